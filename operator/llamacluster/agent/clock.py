"""Time, as an edge that tests replace."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from threading import Event


class Clock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Wall time, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    def wait(self, event: Event, seconds: float) -> bool:
        """Waits until `event` is set, at most `seconds`; says whether it is."""
        return event.wait(seconds)


def rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
