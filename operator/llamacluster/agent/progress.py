"""How far something is that takes long, and how much longer it takes at the pace so far."""

from __future__ import annotations

from llamacluster.agent.clock import Clock
from llamacluster.agent.contract.messages import Progress

LEAST_SECONDS = 2.0
"""Before which the pace says nothing."""


class Pace:
    """The pace of one download or load, from when it was first looked at: a download that is
    resumed begins in its midst."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def at(self, done: int, total: int | None) -> Progress:
        """The progress with `done` of `total` bytes."""
        now = self._clock.monotonic()
        if self._first is None or done < self._first[1]:
            self._first = now, done
        began, before = self._first
        left = None
        if total is not None and done > before and now - began >= LEAST_SECONDS:
            left = round((total - done) * (now - began) / (done - before), 1)
        return {"bytes": done, "total": total, "secondsLeft": left}
