"""Ready, Progressing and Degraded, from the plan and the state of the groups: pure."""

from __future__ import annotations

from dataclasses import dataclass

from llamacluster.api.reasons import ClusterReason
from llamacluster.api.status import Condition, ConditionStatus, GroupPhase, GroupStatus

_STATUS = {
    True: ConditionStatus.TRUE,
    False: ConditionStatus.FALSE,
    None: ConditionStatus.UNKNOWN,
}


@dataclass(frozen=True)
class Rollout:
    """How far the groups have the newest spec."""

    wanted: int
    """Groups in the spec."""
    updated: int
    """Groups that have the newest spec."""
    observed: bool
    """Whether LeaderWorkerSet has seen the newest spec at all."""
    stuck: str | None = None
    """Why it does not get on; None while it may."""

    @property
    def complete(self) -> bool:
        """True when no group has an older spec."""
        return self.observed and self.updated >= self.wanted

    @property
    def message(self) -> str:
        """How far it is, for people."""
        return f"{self.updated} of {self.wanted} groups have the newest spec"


@dataclass(frozen=True)
class Verdict:
    """A condition without its history."""

    type: str
    status: bool | None
    """None: not known yet."""
    reason: str
    message: str


def verdicts(
    groups: list[GroupStatus],
    rollout: Rollout,
    planned: Verdict,
    drift: str | None,
    attention: tuple[str, str] | None = None,
) -> list[Verdict]:
    """The conditions of a LlamaCluster whose objects are applied, as far as there is a plan.

    `drift` says what is held otherwise than planned, `attention` (reason and message) what a person
    should see to though the API is served.
    """
    return [
        ready(groups, rollout, planned),
        progressing(groups, rollout, planned),
        degraded(groups, rollout, planned, drift, attention),
        planned,
    ]


def refused(reason: str, message: str) -> list[Verdict]:
    """The conditions of a LlamaCluster that the operator can do nothing for."""
    return [
        Verdict("Ready", False, reason, message),
        Verdict("Progressing", False, reason, message),
        Verdict("Degraded", True, reason, message),
    ]


def delayed(reason: str, message: str) -> list[Verdict]:
    """The conditions of a LlamaCluster that waits for something which passes by itself."""
    return [
        Verdict("Ready", False, reason, message),
        Verdict("Progressing", True, reason, message),
        Verdict("Degraded", False, ClusterReason.AsExpected, "nothing needs attention"),
    ]


def ready(groups: list[GroupStatus], rollout: Rollout, planned: Verdict) -> Verdict:
    """Every wanted group answers requests; as long as the reason is not Ready, some of them with a
    former spec."""
    if _all_answer(groups, rollout):
        count = f"{rollout.wanted} group{'s' if rollout.wanted != 1 else ''} answering requests"
        if not planned.status:
            message = f"{count} with the former spec: {planned.message}"
            return Verdict("Ready", True, planned.reason, message)
        if rollout.stuck:
            return Verdict("Ready", True, ClusterReason.RolloutStuck, rollout.stuck)
        if not rollout.complete:
            message = f"{count}; {rollout.message}"
            return Verdict("Ready", True, ClusterReason.RollingOut, message)
        return Verdict("Ready", True, ClusterReason.Ready, count)
    if not planned.status:
        return Verdict("Ready", False, planned.reason, planned.message)
    if rollout.wanted == 0:
        return Verdict("Ready", False, ClusterReason.ScaledToZero, "replicas is 0")
    if rollout.stuck:
        return Verdict("Ready", False, ClusterReason.RolloutStuck, rollout.stuck)
    waiting = next(
        (g for g in groups if g.index < rollout.wanted and g.phase is not GroupPhase.SERVING), None
    )
    if waiting is None:
        serving = sum(group.phase is GroupPhase.SERVING for group in groups)
        message = f"{rollout.wanted - serving} groups do not exist yet"
        return Verdict("Ready", False, ClusterReason.PodsPending, message)
    return Verdict("Ready", False, waiting.reason, _named(waiting, rollout.wanted))


def _all_answer(groups: list[GroupStatus], rollout: Rollout) -> bool:
    """Whether as many groups answer as are wanted. Groups beyond those count while they help over a
    rollout; else they are on their way out."""
    serving = [
        group
        for group in groups
        if group.phase is GroupPhase.SERVING
        and (group.index < rollout.wanted or not rollout.complete)
    ]
    return 0 < rollout.wanted <= len(serving)


def progressing(groups: list[GroupStatus], rollout: Rollout, planned: Verdict) -> Verdict:
    """Something is on its way by itself. A failed group is retried, but does not get anywhere; nor
    does a plan that failed."""
    if not planned.status:
        return Verdict("Progressing", planned.status is None, planned.reason, planned.message)
    if rollout.stuck:
        return Verdict("Progressing", False, ClusterReason.RolloutStuck, rollout.stuck)
    stopped = all(group.failing for group in groups) and len(groups) >= rollout.wanted
    if not rollout.complete and not (groups and stopped):
        return Verdict("Progressing", True, ClusterReason.RollingOut, rollout.message)
    moving = next((g for g in groups if g.phase is not GroupPhase.SERVING and not g.failing), None)
    if moving:
        return Verdict("Progressing", True, moving.reason, _named(moving, rollout.wanted))
    if len(groups) < rollout.wanted:
        return Verdict("Progressing", True, ClusterReason.PodsPending, "groups are being made")
    return Verdict("Progressing", False, ClusterReason.AsExpected, "no change is under way")


def degraded(
    groups: list[GroupStatus],
    rollout: Rollout,
    planned: Verdict,
    drift: str | None,
    attention: tuple[str, str] | None = None,
) -> Verdict:
    """A group, a rollout, the plan or a Secret of the API needs attention."""
    if rollout.stuck:
        return Verdict("Degraded", True, ClusterReason.RolloutStuck, rollout.stuck)
    failed = next((group for group in groups if group.failing), None)
    if failed:
        return Verdict("Degraded", True, failed.reason, _named(failed, len(groups)))
    if planned.status is False:
        return Verdict("Degraded", True, planned.reason, planned.message)
    stuck = next((g for g in groups if g.reason == ClusterReason.Unschedulable), None)
    if stuck:
        return Verdict("Degraded", True, stuck.reason, _named(stuck, len(groups)))
    if attention:
        return Verdict("Degraded", True, *attention)
    if drift:
        return Verdict("Degraded", True, ClusterReason.PlanDrift, drift)
    return Verdict("Degraded", False, ClusterReason.AsExpected, "nothing needs attention")


KSTATUS = ("Reconciling", "Stalled")
"""Conditions of kstatus, by which Flux and others wait. They are there only while they are True."""


def kstatus(found: list[Verdict]) -> list[Verdict]:
    """What those cannot see who know of Ready alone: that groups still answer with a former spec,
    or that waiting is of no use."""
    match {verdict.type: verdict for verdict in found}:
        case {"Ready": ready, "Progressing": moving} if ready.status and moving.status:
            return [Verdict("Reconciling", True, moving.reason, moving.message)]
        case {"Ready": ready, "Progressing": moving, "Degraded": degraded} if (
            degraded.status and not moving.status and ready.reason == degraded.reason
        ):
            return [Verdict("Stalled", True, degraded.reason, degraded.message)]
    return []


def with_history(
    found: list[Verdict], previous: list[Condition], generation: int, now: str
) -> list[Condition]:
    """metav1.Conditions: the transition time moves only when the status changes. A condition of
    which nothing was found stays as it was, but for kstatus' own."""
    before = {condition.type: condition for condition in previous}
    result = []
    for verdict in found:
        status = _STATUS[verdict.status]
        old = before.get(verdict.type)
        result.append(
            Condition(
                type=verdict.type,
                status=status,
                observed_generation=generation,
                last_transition_time=(
                    old.last_transition_time if old and old.status is status else now
                ),
                reason=verdict.reason,
                message=verdict.message,
            )
        )
    judged = {*KSTATUS, *(verdict.type for verdict in found)}
    return [*result, *(condition for condition in previous if condition.type not in judged)]


def _named(group: GroupStatus, groups: int) -> str:
    """The group's message, with its index where there is more than one."""
    return f"group {group.index}: {group.message}" if groups > 1 else group.message
