"""Time for several agents in one process: one thread at a time, always in the same order.

Agents wait by their clock alone. Here a thread that waits gives its turn away, and gets it back
when its time has come or what it waits for has happened. So hours of several pods' lives take a
moment, and a failure that was found once is found again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Condition, Event, Thread
from typing import Any

from llamacluster.agent.clock import Clock

REAL_SECONDS = 60.0
"""Of a machine that is very busy, for one turn."""


@dataclass
class _Waiting:
    event: Event
    until: float
    may_go: bool = False


class TurnClock(Clock):
    """Stands still until `pass_time`."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._others = set(threading.enumerate())
        self._changed = Condition()
        self._waiting: dict[Thread, _Waiting] = {}
        self._order: dict[Thread, int] = {}

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        return self._seconds

    def wait(self, event: Event, seconds: float) -> bool:
        this = threading.current_thread()
        assert this not in self._others, "the test itself does not wait"
        mine = _Waiting(event, self._seconds + max(0.0, seconds))
        with self._changed:
            self._order.setdefault(this, len(self._order))
            self._waiting[this] = mine
            self._changed.notify_all()
            while not mine.may_go:
                self._changed.wait()
        return event.is_set()

    def pass_time(self, seconds: float) -> None:
        """Gives each thread its turns until so much time has passed."""
        end = self._seconds + seconds
        self.settle()
        while waiting := sorted(self._waiting, key=self._order.__getitem__):
            told = next((t for t in waiting if self._waiting[t].event.is_set()), None)
            first = told or min(waiting, key=lambda t: self._waiting[t].until)
            if not told and self._waiting[first].until > end:
                break
            if not told:
                self._seconds = max(self._seconds, self._waiting[first].until)
            with self._changed:
                self._waiting.pop(first).may_go = True
                self._changed.notify_all()
            self.settle()
        self._seconds = end

    def settle(self) -> None:
        """Returns when every thread waits or has ended."""
        rounds = 0
        with self._changed:
            while any(
                thread not in self._waiting
                for thread in threading.enumerate()
                if thread not in self._others
            ):
                self._changed.wait(0.002)  # the end of a thread is told by nobody
                rounds += 1
                assert rounds < REAL_SECONDS / 0.002, "a thread waits for something else"


class OneAtATime(Executor):
    """Does at once, in the caller's thread, what it is given."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - as any executor does
            future.set_exception(error)
        return future
