"""Whether the engine gets on with its work.

llama-server has no timeout for a worker that is silent: a request then hangs for ever, and /health
says 200. So may /metrics, which then stay as they were: the sign of life is that nothing is under
way, or that more is counted than before (`gets_on`). No sign is not death: a step of a long prompt
may take minutes on slow CPUs. But then some part of the group computes. Where nothing is counted
and nothing that computes takes CPU time, nothing gets on any more, whatever the model's pace is.

While the engine loads it has no such answer, and a disk or a network that stands still for a while
may be all that there is to it. To load anew costs what it has cost so far, so a load is given time
in proportion to that.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from llamacluster.agent.clock import Clock
from llamacluster.planning.reasons import GroupError, Reason

_PROCESSING = "requests_processing"
_COUNTED = (
    *("n_decode_total", "spec_decode_num_drafts_total"),
    *("prompt_tokens_total", "tokens_predicted_total"),
)
_WORK = re.compile(rf"^llamacpp:({'|'.join((_PROCESSING, *_COUNTED))}) (.+)", re.MULTILINE)
LOOKS = 2
"""Looks in a row without a sign of life after which the engine hangs."""
IDLE_CPUS = 0.02
"""What the processes of a group take while they only wait."""
LOADING_TIMES = 3
"""A load may stand still for so many times as long as a request."""
LOADING_SHARE = 0.25
"""And for this part of the time that it has taken so far."""
LOADING_IDLE_CPUS = 0.005
"""To hash and send weights takes more, be it at 5 MB/s."""


def gets_on(before: str, now: str) -> bool:
    """Whether the engine, by what its /metrics told a while ago and tell now, has nothing to do or
    has done something since."""
    work = dict(_WORK.findall(now))
    return work.get(_PROCESSING, "0") == "0" or work != dict(_WORK.findall(before))


class Pulse:
    """Looks for signs of life."""

    def __init__(
        self,
        counts: Callable[[float], bool],
        cpu_seconds: Callable[[], float],
        hung_seconds: float,
    ) -> None:
        """`counts` waits so many seconds at most for the engine to get on, by its own count;
        `cpu_seconds` is the CPU time that the group's computation has taken. After `hung_seconds`
        without either the engine hangs."""
        self.stopped = False
        self._counts = counts
        self._cpu_seconds = cpu_seconds
        self._look_seconds = hung_seconds / LOOKS
        self._silent = 0

    def look(self) -> None:
        """Looks once, for half of `hung_seconds` at most."""
        before = self._cpu_seconds()
        idle = IDLE_CPUS * self._look_seconds
        if self._counts(self._look_seconds) or self._cpu_seconds() - before > idle:
            self._silent = 0
            return
        self._silent += 1
        self.stopped = self._silent >= LOOKS

    @property
    def error(self) -> GroupError | None:
        """What is wrong, once it has stopped."""
        if not self.stopped:
            return None
        return GroupError(
            Reason.EngineHung,
            "a request is under way, and neither the engine nor any worker works on it: a worker"
            " does not answer the engine; the group forms anew",
        )


class Load:
    """Whether a load gets on: bytes move, or some process of the group takes CPU time. Either may
    be all for long: the engine first maps the whole file, which costs little but disk, and a tensor
    of gigabytes is hashed before it is sent."""

    def __init__(self, cpu_seconds: Callable[[], float], hung_seconds: float, clock: Clock) -> None:
        """`cpu_seconds` is that of all processes of the group; `hung_seconds` as in Pulse."""
        self._cpu_seconds = cpu_seconds
        self._least_seconds = LOADING_TIMES * hung_seconds
        self._clock = clock
        self._began = self._moved = clock.monotonic()
        self._bytes, self._cpu = 0, cpu_seconds()

    def error(self, moved_bytes: int) -> GroupError | None:
        """What is wrong when it has stood still for too long. `moved_bytes`: that the engine has
        read and the workers hold."""
        now, cpu = self._clock.monotonic(), self._cpu_seconds()
        most = max(self._least_seconds, LOADING_SHARE * (now - self._began))
        if moved_bytes != self._bytes or cpu - self._cpu > LOADING_IDLE_CPUS * most:
            self._moved, self._bytes, self._cpu = now, moved_bytes, cpu
        if now - self._moved < most:
            return None
        return GroupError(
            Reason.EngineHung,
            f"the load has stood still for {now - self._moved:.0f} s: the engine reads nothing and"
            " the workers receive nothing; the group forms anew. Look at the network between the"
            " nodes, and at the model's storage",
        )
