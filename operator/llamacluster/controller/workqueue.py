"""A work queue as in client-go: one key for each object, each key worked on by one at a time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

log = structlog.get_logger()

BASE_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 120.0
EARLY_SECONDS = 1e-6
"""A key may begin this early. asyncio's timers fire up to a nanosecond early; without an allowance
a worker that is woken then would wait again, for nothing, as fast as it can."""


class Worker(Protocol):
    """Does the work for a key; returns the seconds after which to do it again, or None."""

    def __call__(self, key: str, /) -> Awaitable[float | None]: ...


class WorkQueue:
    """Keys that wait for their time.

    A key that is added while it waits waits once, at the earlier of the two times. A key that is
    added while it is worked on is worked on again afterwards. A key whose work fails comes back
    after an exponential backoff with jitter, which its next success ends. An `expected` error is
    logged in a line, any other one with its traceback.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        concurrency: int,
        expected: tuple[type[Exception], ...] = (),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._worker = worker
        self._concurrency = concurrency
        self._expected = expected
        self._jitter = jitter
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._active: set[str] = set()
        self._failures: dict[str, int] = {}
        self._changed = asyncio.Condition()

    def __len__(self) -> int:
        """Keys that wait or are worked on."""
        return len(self._due.keys() | self._active)

    def waiting(self, now: float) -> int:
        """Keys that are due at `now`, by the loop's clock, and that nobody has begun with."""
        return sum(due <= now for due in list(self._due.values()))

    async def add(self, key: str, delay: float = 0.0) -> None:
        """Have `key` worked on in `delay` seconds at the latest."""
        due = asyncio.get_running_loop().time() + delay
        async with self._changed:
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                heapq.heappush(self._heap, (due, next(self._order), key))
                self._changed.notify_all()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._concurrency):
                tasks.create_task(self._run_one())

    async def _run_one(self) -> None:
        while True:
            key = await self._next()
            delay: float | None = None
            try:
                delay = await self._worker(key)
                self._failures.pop(key, None)
            except Exception as error:
                delay = self._backoff(key)
                retry = round(delay, 1)
                if isinstance(error, self._expected):
                    log.warning("reconcile failed", key=key, error=str(error), retry_seconds=retry)
                else:
                    log.exception("reconcile failed", key=key, retry_seconds=retry)
            finally:
                async with self._changed:
                    self._active.discard(key)
                    self._changed.notify_all()
            if delay is not None:
                await self.add(key, delay)

    async def _next(self) -> str:
        """The first key that is due and not worked on."""
        loop = asyncio.get_running_loop()
        async with self._changed:
            while True:
                wait: float | None = None
                blocked = []
                while self._heap:
                    due, _, key = self._heap[0]
                    if self._due.get(key) != due:
                        heapq.heappop(self._heap)  # superseded by an earlier time
                    elif due > loop.time() + EARLY_SECONDS:
                        wait = due - loop.time()
                        break
                    elif key in self._active:
                        blocked.append(heapq.heappop(self._heap))
                    else:
                        heapq.heappop(self._heap)
                        for entry in blocked:
                            heapq.heappush(self._heap, entry)
                        del self._due[key]
                        self._active.add(key)
                        return key
                for entry in blocked:
                    heapq.heappush(self._heap, entry)
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def _backoff(self, key: str) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        full = min(MAX_BACKOFF_SECONDS, BASE_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 20))
        return full * (0.5 + 0.5 * self._jitter())
