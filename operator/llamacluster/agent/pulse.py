"""Whether the engine gets on with its work.

llama-server has no timeout for a worker that is silent: a request then hangs for ever, and /health
says 200. Its /metrics are told between two steps of the computation, so an answer is a sign of
life. None is no sign of death: a step of a long prompt may take minutes on slow CPUs. But then some
part of the group computes. Where no answer comes and no process of the group takes CPU time,
nothing is under way any more, whatever the model's pace is.
"""

from __future__ import annotations

from collections.abc import Callable

LOOKS = 2
"""Looks in a row without a sign of life after which the engine hangs."""
IDLE_CPUS = 0.02
"""What the processes of a group take while they only wait."""


class Pulse:
    """Looks for signs of life."""

    def __init__(
        self,
        answers: Callable[[float], bool],
        cpu_seconds: Callable[[], float],
        hung_seconds: float,
    ) -> None:
        """`answers` waits so many seconds at most for the engine's answer; `cpu_seconds` is the CPU
        time that all processes of the group have taken. After `hung_seconds` without either the
        engine hangs."""
        self.stopped = False
        self._answers = answers
        self._cpu_seconds = cpu_seconds
        self._look_seconds = hung_seconds / LOOKS
        self._silent = 0

    def look(self) -> None:
        """Looks once, for half of `hung_seconds` at most."""
        before = self._cpu_seconds()
        idle = IDLE_CPUS * self._look_seconds
        if self._answers(self._look_seconds) or self._cpu_seconds() - before > idle:
            self._silent = 0
            return
        self._silent += 1
        self.stopped = self._silent >= LOOKS
