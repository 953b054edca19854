"""What a group went through: restarts of its containers, and how it became Ready again. Pure.

A loss is remembered in the status from one look to the next, so that what takes the leader's pod
with it is measured too. A recovery that was over between two looks is known from the leader's
agent.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from llamacluster.api.status import (
    MAX_CAUSES,
    GroupLoss,
    GroupPhase,
    GroupRecovery,
    GroupStatus,
    RecoveryCause,
    RestartCause,
)
from llamacluster.controller.agents import in_words, moment_told
from llamacluster.controller.observation import Group
from llamacluster.resources.metadata import Manifest

SAME_SECONDS = 15.0
"""Agent and operator may tell of the same recovery at times that differ by so much."""
TOLD_WITHIN = timedelta(days=1)
"""A recovery counts if the agent tells of it no later; its node's clock may be as wrong."""


def with_recovery(
    status: GroupStatus,
    previous: GroupStatus | None,
    told: GroupRecovery | None,
    now: str,
    *,
    asked_for: bool,
) -> GroupStatus:
    """The status with what the group recovers from, or has recovered from; Recovering until then,
    unless it still drains. `told` is the agent's word, which is exact, of a recovery in place."""
    if previous is None:
        return status
    lost, causes, last = previous.lost, previous.recovery_causes, previous.last_recovery
    count = previous.recoveries
    if status.phase is not GroupPhase.SERVING:
        if previous.phase is GroupPhase.SERVING and not asked_for:
            lost = GroupLoss(reason=status.reason, message=status.message, at=now)
    else:
        own = _over(lost, now)
        lost = None
        # What the agent tells may be of long ago, and counted.
        newer = told and (last is None or _after(told.at, last.at, SAME_SECONDS))
        if over := told if newer else own:
            count, causes, last = count + 1, _with_cause(causes, over), over
    status = status.model_copy(
        update={
            "lost": lost,
            "recoveries": count,
            "recovery_causes": causes,
            "last_recovery": last,
        }
    )
    if lost is None or status.phase is GroupPhase.DRAINING:
        return status
    said = f"{status.message}; the last recovery took {last.seconds} s" if last else status.message
    return status.model_copy(update={"phase": GroupPhase.RECOVERING, "message": said})


def _over(lost: GroupLoss | None, now: str) -> GroupRecovery | None:
    if lost is None:
        return None
    seconds = (datetime.fromisoformat(now) - datetime.fromisoformat(lost.at)).total_seconds()
    return GroupRecovery(
        reason=lost.reason, message=lost.message, at=now, seconds=max(0, round(seconds))
    )


def _with_cause(causes: list[RecoveryCause], over: GroupRecovery) -> list[RecoveryCause]:
    before = sum(cause.count for cause in causes if cause.reason == over.reason)
    newest = RecoveryCause(reason=over.reason, count=before + 1, at=over.at)
    return [newest, *(cause for cause in causes if cause.reason != over.reason)][:MAX_CAUSES]


def _after(one: str, other: str, seconds: float) -> bool:
    later = datetime.fromisoformat(one) - datetime.fromisoformat(other)
    return later.total_seconds() > seconds


def recovery_told(answer: object, now: str) -> GroupRecovery | None:
    """What the agent says; None for what an older or newer one says otherwise, and for what was so
    long ago that it is counted, or is to come."""
    match answer:
        case {
            "reason": str(reason),
            "message": str(message),
            "at": str(at),
            "seconds": int() | float() as seconds,
        } if 0 <= seconds < 2**31:
            moment = moment_told(at)
            if moment is None or abs(moment - datetime.fromisoformat(now)) > TOLD_WITHIN:
                return None
            return GroupRecovery(
                reason=reason[:128],
                message=message[:1024],
                at=in_words(moment),
                seconds=round(seconds),
            )
    return None


def container_restarts(group: Group) -> tuple[int, list[RestartCause]]:
    """How often containers of its pods were started again, and why; the last first."""
    causes = [
        _cause(pod["metadata"]["name"], container)
        for pod in group.pods
        for container in pod.get("status", {}).get("containerStatuses", [])
        if container.get("restartCount")
    ]
    causes.sort(key=lambda cause: cause.at or "", reverse=True)
    return sum(cause.count for cause in causes), causes[:MAX_CAUSES]


def _cause(pod: str, container: Manifest) -> RestartCause:
    ended: Manifest = container.get("lastState", {}).get("terminated") or {}
    return RestartCause(
        pod=pod,
        container=container["name"],
        count=container["restartCount"],
        reason=ended.get("reason") or "Unknown",
        exit_code=ended.get("exitCode"),
        at=ended.get("finishedAt"),
    )
