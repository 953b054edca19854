"""A long step of the computation is no hang; silence without any work is one."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Event

import pytest

from llamacluster.agent.pulse import Load, Pulse, gets_on
from tests.unit.agent.fakes import FastClock


@pytest.mark.parametrize(
    ("looks", "stopped"),
    [
        # Whether it answered, and the CPU seconds that the group took meanwhile.
        ([(True, 0.0)] * 5, False),
        ([(False, 10.0)] * 100, False),  # a step that takes a quarter of an hour
        ([(False, 0.3)] * 5, False),
        ([(False, 0.0)], False),
        ([(False, 0.0), (True, 0.0), (False, 0.0)], False),
        ([(False, 0.0), (False, 5.0), (False, 0.0)], False),
        ([(False, 0.0), (False, 0.1)], True),
        ([(True, 1.0), (False, 8.0), (False, 0.0), (False, 0.0)], True),
    ],
)
def test_signs_of_life(looks: Iterable[tuple[bool, float]], stopped: bool) -> None:
    script = list(looks)
    taken = 100.0

    def answers(seconds: float) -> bool:
        nonlocal taken
        assert seconds == 10
        answer, cpu = script.pop(0)
        taken += cpu
        return answer

    pulse = Pulse(answers, lambda: taken, hung_seconds=20)
    while script:
        pulse.look()
    assert pulse.stopped is stopped
    assert (pulse.error is not None) is stopped


@pytest.mark.parametrize(
    ("before", "now", "lives"),
    [
        ((1, 7), (1, 8), True),
        ((1, 7), (1, 7), False),
        ((0, 7), (1, 7), True),  # it has just begun
        ((0, 7), (0, 7), True),  # nothing is to be done
        ((1, 7), (0, 7), True),
    ],
)
def test_an_engine_gets_on_that_counts_or_has_nothing_to_do(
    before: tuple[int, int], now: tuple[int, int], lives: bool
) -> None:
    assert gets_on(told(*before), told(*now)) is lives


def test_an_engine_that_does_not_tell_what_it_does_is_taken_to_live() -> None:
    assert gets_on("", "")


def told(processing: int, decodes: int) -> str:
    return (
        "# TYPE llamacpp:n_decode_total counter\n"
        f"llamacpp:n_decode_total {decodes}\n"
        "# TYPE llamacpp:requests_processing gauge\n"
        f"llamacpp:requests_processing {processing}\n"
    )


def stands_still_after(cpus: float, *, loads_for: float) -> float:
    """Seconds after which a load stands still that took so many CPUs before and, idle, one in
    500."""
    clock, cpu, received = FastClock(), 0.0, 0
    load = Load(lambda: cpu, hung_seconds=20, clock=clock)
    while clock.monotonic() < loads_for:
        clock.wait(Event(), 1)
        cpu += cpus
        received += 10 if cpus else 0
        assert load.error(received) is None
    while load.error(received) is None:
        clock.wait(Event(), 1)
        cpu += 0.002
    return clock.monotonic() - loads_for


def test_a_load_that_never_began_stands_still_after_a_minute() -> None:
    assert stands_still_after(0, loads_for=0) == 60


def test_a_long_load_is_given_more_time() -> None:
    assert stands_still_after(0.5, loads_for=180) == 60
    assert stands_still_after(0.5, loads_for=3600) == 1200  # a quarter of both together


def test_what_is_slow_does_not_stand_still() -> None:
    clock, cpu = FastClock(), 0.0
    load = Load(lambda: cpu, hung_seconds=20, clock=clock)
    for _ in range(5000):  # one large tensor is hashed, and not sent yet
        clock.wait(Event(), 1)
        cpu += 0.01
        assert load.error(0) is None
    for second in range(300):  # without any CPU time that is told, but with bytes that arrive
        clock.wait(Event(), 50)
        assert load.error(second) is None
