"""What a group went through: restarts of its containers, and how it became Ready again. Pure.

A loss is remembered in the status from one look to the next, so that what takes the leader's pod
with it is measured too. A recovery that was over between two looks is known from the leader's
agent.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from llamacluster.api.types import GroupLoss, GroupPhase, GroupRecovery, GroupStatus
from llamacluster.controller.observation import Group
from llamacluster.resources.metadata import Manifest

SAME_SECONDS = 15.0
"""Agent and operator may tell of the same recovery at times that differ by so much."""


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
    lost, count, last = previous.lost, previous.recoveries, previous.last_recovery
    if status.phase is not GroupPhase.SERVING:
        if previous.phase is GroupPhase.SERVING and not asked_for:
            lost = GroupLoss(reason=status.reason, message=status.message, at=now)
    else:
        own = _over(lost, now)
        lost = None
        # What the agent tells may be of long ago, and counted.
        newer = told and (last is None or _after(told.at, last.at, SAME_SECONDS))
        if told and newer:
            count, last = count + 1, told
        elif own:
            count, last = count + 1, own
    status = status.model_copy(update={"lost": lost, "recoveries": count, "last_recovery": last})
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


def _after(one: str, other: str, seconds: float) -> bool:
    return datetime.fromisoformat(one) > datetime.fromisoformat(other) + timedelta(seconds=seconds)


def recovery_told(answer: object) -> GroupRecovery | None:
    """What the agent says; None for what an older or newer one says otherwise."""
    match answer:
        case {
            "reason": str(reason),
            "message": str(message),
            "at": str(at),
            "seconds": int() | float() as seconds,
        } if 0 <= seconds < 2**31:
            try:
                moment = datetime.fromisoformat(at)
            except ValueError:
                return None
            if moment.tzinfo is None:
                return None
            return GroupRecovery(
                reason=reason[:128], message=message[:1024], at=at, seconds=round(seconds)
            )
    return None


def container_restarts(group: Group) -> tuple[int, str | None]:
    """How often containers of its pods were started again, and why the last of them."""
    count = 0
    last: tuple[str, str] | None = None
    for pod in group.pods:
        for container in pod.get("status", {}).get("containerStatuses", []):
            count += container.get("restartCount", 0)
            end: Manifest = container.get("lastState", {}).get("terminated") or {}
            if end and (last is None or str(end.get("finishedAt", "")) > last[0]):
                last = str(end.get("finishedAt", "")), _told(pod, container["name"], end)
    return count, last[1] if last else None


def _told(pod: Manifest, container: str, end: Manifest) -> str:
    how = f"{end.get('reason', 'Error')}, exit code {end.get('exitCode')}"
    when = f" at {end['finishedAt']}" if end.get("finishedAt") else ""
    return f"{container} of pod {pod['metadata']['name']}: {how}{when}"
