"""The work queue: one key at a time, each at its time, none lost. All in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from llamacluster.controller.workqueue import BASE_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS, WorkQueue
from tests.virtualtime import in_virtual_time

Answer = float | None | Exception


@dataclass
class Worker:
    """Works for `seconds` at each key and answers in turn; notes when it did what."""

    seconds: float = 0.0
    answers: Iterator[Answer] = field(default_factory=lambda: iter(()))
    starts: list[tuple[float, str]] = field(default_factory=list)
    active: Counter[str] = field(default_factory=Counter)
    most_active: int = 0
    overlapped: bool = False

    async def __call__(self, key: str) -> float | None:
        loop = asyncio.get_running_loop()
        self.starts.append((loop.time(), key))
        self.active[key] += 1
        self.overlapped |= self.active[key] > 1
        self.most_active = max(self.most_active, self.active.total())
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.active[key] -= 1
        answer = next(self.answers, None)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def times(self, key: str) -> list[float]:
        """When the key was begun, in milliseconds' precision."""
        return [round(time, 3) for time, started in self.starts if started == key]


def run(
    worker: Worker,
    adds: list[tuple[float, str, float]],
    *,
    concurrency: int = 2,
    until: float = 1000.0,
    jitter: Callable[[], float] = lambda: 1.0,
    expected: tuple[type[Exception], ...] = (ValueError,),
) -> WorkQueue:
    """A queue to which, at each given time, a key was added with a delay."""

    async def scenario() -> WorkQueue:
        queue = WorkQueue(worker, concurrency=concurrency, jitter=jitter, expected=expected)
        running = asyncio.create_task(queue.run())
        loop = asyncio.get_running_loop()
        for time, key, delay in sorted(adds):
            await asyncio.sleep(max(0.0, time - loop.time()))
            await queue.add(key, delay)
        await asyncio.sleep(until - loop.time())
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        return queue

    return in_virtual_time(scenario())


def test_a_key_is_worked_on_at_once() -> None:
    worker = Worker()
    run(worker, [(5.0, "a", 0.0)])
    assert worker.starts == [(5.0, "a")]


def test_a_delayed_key_is_worked_on_at_its_time() -> None:
    worker = Worker()
    run(worker, [(0.0, "a", 30.0)])
    assert worker.times("a") == [30.0]


def test_a_key_that_waits_waits_once() -> None:
    worker = Worker()
    run(worker, [(0.0, "a", 10.0)] * 5)
    assert worker.times("a") == [10.0]


def test_the_earlier_of_two_times_wins() -> None:
    worker = Worker()
    run(worker, [(0.0, "sooner", 60.0), (1.0, "sooner", 2.0)])
    run(worker, [(0.0, "later", 2.0), (1.0, "later", 60.0)])
    assert worker.times("sooner") == [3.0]
    assert worker.times("later") == [2.0]


def test_a_key_that_is_added_while_it_is_worked_on_is_worked_on_again_afterwards() -> None:
    worker = Worker(seconds=10.0)
    run(worker, [(0.0, "a", 0.0), (3.0, "a", 0.0), (4.0, "a", 0.0)])
    assert worker.times("a") == [0.0, 10.0]


def test_a_key_that_is_worked_on_holds_up_no_other_one() -> None:
    worker = Worker(seconds=10.0)
    run(worker, [(0.0, "a", 0.0), (1.0, "a", 0.0), (2.0, "b", 0.0)])
    assert worker.times("b") == [2.0]


def test_a_delayed_key_holds_up_no_other_one() -> None:
    worker = Worker()
    run(worker, [(0.0, "a", 100.0), (1.0, "b", 0.0)], concurrency=1)
    assert worker.times("b") == [1.0]


def test_a_worker_that_wants_to_look_again_does() -> None:
    worker = Worker(answers=iter([15.0, 15.0, None]))
    run(worker, [(0.0, "a", 0.0)])
    assert worker.times("a") == [0.0, 15.0, 30.0]


def test_an_event_comes_before_the_next_look() -> None:
    worker = Worker(answers=iter([15.0, None]))
    run(worker, [(0.0, "a", 0.0), (4.0, "a", 0.0)])
    assert worker.times("a") == [0.0, 4.0]


def test_failures_come_back_at_doubling_intervals_up_to_a_limit() -> None:
    worker = Worker(answers=iter([ValueError()] * 10))
    run(worker, [(0.0, "a", 0.0)], until=10_000.0)
    times = worker.times("a")
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, 64]
    assert set(pauses[7:]) == {MAX_BACKOFF_SECONDS}


@given(st.floats(0.0, 1.0), st.integers(1, 12))
def test_jitter_keeps_between_half_and_whole_of_the_backoff(jitter: float, failures: int) -> None:
    worker = Worker(answers=iter([ValueError()] * failures))
    run(worker, [(0.0, "a", 0.0)], until=10_000.0, jitter=lambda: jitter)
    *_, before, last = worker.times("a")
    full = min(MAX_BACKOFF_SECONDS, BASE_BACKOFF_SECONDS * 2 ** (failures - 1))
    assert full / 2 - 0.002 <= last - before <= full + 0.002


def test_a_success_ends_the_backoff() -> None:
    worker = Worker(answers=iter([ValueError(), ValueError(), None, ValueError(), None]))
    run(worker, [(0.0, "a", 0.0), (100.0, "a", 0.0)])
    assert worker.times("a") == [0.0, 1.0, 3.0, 100.0, 101.0]


def test_a_failing_key_holds_up_no_other_one() -> None:
    worker = Worker(answers=iter([ValueError()]))
    run(worker, [(0.0, "a", 0.0), (0.5, "b", 0.0)], concurrency=1)
    assert worker.times("b") == [0.5]


@pytest.mark.parametrize(
    ("expected", "level", "traceback"),
    [((), "error", True), ((ValueError,), "warning", False)],
)
def test_only_an_unexpected_error_is_logged_with_its_traceback(
    expected: tuple[type[Exception], ...], level: str, traceback: bool
) -> None:
    worker = Worker(answers=iter([ValueError("no")]))
    with capture_logs() as lines:
        run(worker, [(0.0, "ns/a", 0.0)], expected=expected)
    [line] = lines
    assert (line["log_level"], line["key"]) == (level, "ns/a")
    assert bool(line.get("exc_info")) is traceback


def test_workers_that_are_woken_a_moment_early_do_not_spin() -> None:
    assert 0.2 + 1.0 < 1.1 + 0.1  # by less than the loop's clock can tell
    worker = Worker()
    run(worker, [(0.2, "a", 1.0), (1.1, "b", 0.1)])
    assert worker.times("a") == worker.times("b") == [1.2]


def test_nothing_is_kept_of_keys_that_are_done() -> None:
    worker = Worker(answers=iter([ValueError(), ValueError()]))
    queue = run(worker, [(float(n), f"k{n}", 0.0) for n in range(50)])
    assert len(queue) == 0
    assert not queue._failures
    assert not queue._heap


keys = st.sampled_from("abc")
times = st.integers(0, 40).map(lambda tenths: tenths / 10)


@given(
    adds=st.lists(st.tuples(times, keys, times), max_size=25),
    concurrency=st.integers(1, 3),
    seconds=st.sampled_from([0.0, 0.1, 1.5]),
)
def test_whatever_is_added_is_worked_on_in_time_by_one_at_a_time(
    adds: list[tuple[float, str, float]], concurrency: int, seconds: float
) -> None:
    worker = Worker(seconds=seconds)
    queue = run(worker, adds, concurrency=concurrency)
    assert not worker.overlapped
    assert worker.most_active <= concurrency
    assert len(queue) == 0

    added, started = defaultdict(list), defaultdict(list)
    for time, key, delay in adds:
        added[key].append((time, time + delay))
    for time, key in worker.starts:
        started[key].append(time)
    assert added.keys() == started.keys()
    for key, wanted in added.items():
        assert len(started[key]) <= len(wanted)
        # The last start is not before the last add became known.
        assert max(started[key]) >= max(time for time, _ in wanted) - 1e-6
        # No start without a reason, that is before the first time at which it was wanted.
        assert min(started[key]) >= min(due for _, due in wanted) - 1e-6
