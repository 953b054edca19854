"""The machine's own time, for threads and processes that no fake clock holds."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(look: Callable[[], object]) -> None:
    """Waits until `look` is true; fails if it is not within 120 seconds."""
    deadline = time.monotonic() + 120
    while not look():
        assert time.monotonic() < deadline
