"""What the leader says of its group, kept for the threads that serve it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from threading import Lock

from llamacluster.agent.clock import Clock, rfc3339
from llamacluster.agent.contract.messages import (
    AttachedWorker,
    EngineBuild,
    GateStatus,
    HeldMemory,
    LastFailure,
    LeaderMemory,
    LeaderStatus,
    ModelStatus,
    Phase,
    Placement,
    Progress,
    Recovery,
)
from llamacluster.planning.reasons import GroupError, Reason

FAILURE_SHOWN_SECONDS = 10.0
"""How long the next try must be under way before it, not the last failure, is what is said. A try
that fails again within this time would otherwise flip the state twice for nothing."""
_LOST_BY = (Reason.WorkerLost, Reason.WorkerLeaving, Reason.EngineHung, Reason.EngineFailed)
"""What a group that serves is lost by, mostly. Counted from 0 on: of a series that begins with 1
Prometheus sees no increase."""

_WAY = (
    Reason.Starting,
    Reason.Downloading,
    Reason.Verifying,
    Reason.WaitingForWorkers,
    Reason.Attaching,
    Reason.Loading,
    Reason.Probing,
    Reason.Ready,
)
"""The steps of a try, in their order."""


@dataclass(frozen=True)
class _Step:
    phase: Phase
    reason: Reason
    message: str
    since: datetime


class _Failures:
    """Tries that failed one after another, until one gets further than all of them: what fails at
    the end of a long load is no better while the next load is under way."""

    def __init__(self) -> None:
        self.last: LastFailure | None = None
        self._at = self._furthest = 0
        self._counted = False

    def begin_try(self) -> None:
        self._at = 0
        self._counted = False

    def reach(self, reason: Reason) -> None:
        """The try has come to this step."""
        if reason not in _WAY:
            return
        self._at = _WAY.index(reason)
        if self.last is None:
            return
        # A download goes on where it broke off.
        resumed = (reason, self.last["reason"]) == (Reason.Downloading, Reason.ModelDownloadFailed)
        if self._at > self._furthest or resumed:
            self.last = None

    def add(self, error: GroupError) -> None:
        """The try ended like this. That a group which served was lost is no failed try, and a
        worker that was told to stop is no fault."""
        served = _WAY[self._at] is Reason.Ready
        if self._counted or served or error.reason is Reason.WorkerLeaving:
            return
        self._counted = True
        self._furthest = max(self._furthest, self._at) if self.last else self._at
        count = self.last["count"] + 1 if self.last else 1
        self.last = {"reason": error.reason, "message": error.message, "count": count}


class GroupStatus:
    """The group's state. Attributes hold facts; the way through the phases has methods."""

    def __init__(
        self,
        name: str,
        engine: EngineBuild,
        threads: int,
        memory_limit_bytes: int | None,
        clock: Clock,
    ) -> None:
        self.model: ModelStatus | None = None
        self.progress: Progress | None = None
        self.workers: list[AttachedWorker] = []
        self.placement: list[Placement] = []
        self.leader: LeaderMemory | None = None
        self.memory: HeldMemory | None = None
        self.epoch: str | None = None
        self.formed_seconds: float | None = None
        self.load_seconds: float | None = None
        self.tokens_per_second: float | None = None
        self._name = name
        self._engine = engine
        self._threads = threads
        self._memory_limit_bytes = memory_limit_bytes
        self._clock = clock
        self._lock = Lock()
        self._formations = 0
        self._try_began = clock.monotonic()
        self._step = self._made(Phase.Waiting, Reason.Starting, "the agent starts")
        self._failure: _Step | None = None
        self._failures = _Failures()
        self._lost: tuple[GroupError, float] | None = None
        self._recovery: Recovery | None = None
        self._recoveries: dict[str, tuple[int, float]] = dict.fromkeys(_LOST_BY, (0, 0.0))

    def begin_try(self) -> None:
        with self._lock:
            self._try_began = self._clock.monotonic()
            self._failures.begin_try()

    def enter(self, phase: Phase, reason: Reason, message: str) -> bool:
        """The group now does this, or waits for it. True if it did something else before."""
        with self._lock:
            if self._step.reason is Reason.Stopping:
                return False
            self._failures.reach(reason)
            now = self._step
            if (now.phase, now.reason) == (phase, reason):
                self._step = _Step(phase, reason, message, now.since)
            else:
                self._step = self._made(phase, reason, message)
            if phase is Phase.Serving or reason is Reason.Stopping:
                self._failure = None
            if phase is Phase.Serving:
                self._formations += 1
                self._recovered()
            return (now.phase, now.reason, now.message) != (phase, reason, message)

    def fail(self, error: GroupError) -> None:
        """The try ended like this."""
        with self._lock:
            if self._step.reason is Reason.Stopping:
                return
            self._failures.add(error)
            if self._step.phase in (Phase.Serving, Phase.Draining):
                self._lost = error, self._clock.monotonic()
            failed, now = self._failure, self._made(Phase.Failed, error.reason, error.message)
            since = failed.since if failed and failed.reason == error.reason else now.since
            self._failure = _Step(now.phase, now.reason, now.message, since)
            self._step = self._failure

    @property
    def is_ready(self) -> bool:
        with self._lock:
            return self._step.phase is Phase.Serving

    @property
    def summary(self) -> str:
        """Reason and message in one line."""
        with self._lock:
            step = self._shown()
            return f"{step.reason}: {step.message}"

    @property
    def recoveries(self) -> dict[str, tuple[int, float]]:
        """How many there were and the seconds that they took, by what the group was lost by."""
        with self._lock:
            return dict(self._recoveries)

    def snapshot(self, gate: GateStatus | None = None) -> LeaderStatus:
        with self._lock:
            step = self._shown()
            return {
                "role": "leader",
                "name": self._name,
                "phase": step.phase,
                "reason": step.reason,
                "message": step.message,
                "since": rfc3339(step.since),
                "epoch": self.epoch,
                "model": self.model,
                "progress": self.progress,
                "workers": self.workers,
                "placement": self.placement,
                "leader": self.leader,
                "memory": self.memory,
                "engine": self._engine,
                "threads": self._threads,
                "memoryLimitBytes": self._memory_limit_bytes,
                "formations": self._formations,
                "lastFailure": self._failures.last,
                "lastRecovery": self._recovery,
                "formedSeconds": self.formed_seconds,
                "loadSeconds": self.load_seconds,
                "lastTokensPerSecond": self.tokens_per_second,
                "gate": gate,
            }

    def _recovered(self) -> None:
        if self._lost is None:
            return
        error, since = self._lost
        self._lost = None
        took = round(self._clock.monotonic() - since, 3)
        self._recovery = {
            "reason": error.reason,
            "message": error.message,
            "at": rfc3339(self._clock.now()),
            "seconds": took,
        }
        count, seconds = self._recoveries.get(error.reason, (0, 0.0))
        self._recoveries[error.reason] = count + 1, seconds + took

    def _shown(self) -> _Step:
        """The last failure, until the next try has lasted for a while."""
        lasting = self._clock.monotonic() - self._try_began
        if self._failure and lasting < FAILURE_SHOWN_SECONDS:
            return self._failure
        return self._step

    def _made(self, phase: Phase, reason: Reason, message: str) -> _Step:
        return _Step(phase, reason, message, self._clock.now())
