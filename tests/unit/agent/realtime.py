"""The machine's own time, for threads and processes that no fake clock holds."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_SECONDS = 120
"""On a machine that is busy with other things."""


def until(look: Callable[[], object]) -> None:
    """Waits until `look` is true; fails if it is not in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not look():
        assert time.monotonic() < deadline
