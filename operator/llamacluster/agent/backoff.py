"""How long to wait before the next try."""

from __future__ import annotations

import random


class Backoff:
    """Waits that double up to a bound, each spread by a quarter so that groups do not march in
    step."""

    def __init__(self, first_seconds: float, most_seconds: float) -> None:
        self._first = first_seconds
        self._most = most_seconds
        self._next = first_seconds

    def next_seconds(self) -> float:
        wait = self._next
        self._next = min(self._most, 2 * wait)
        return wait * random.uniform(0.75, 1.0)  # noqa: S311 - spreading, not security

    def reset(self) -> None:
        self._next = self._first
