"""A long step of the computation is no hang; silence without any work is one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from llamacluster.agent.pulse import Pulse


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
