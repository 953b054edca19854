"""How far each group is, and what keeps it: an ordered list of checks, the first that speaks wins.

What Kubernetes says of a pod comes before what the agent says of the group, because the agent can
only see that a worker is missing, and Kubernetes knows why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from llamacluster.agent.contract import messages
from llamacluster.api.reasons import ClusterReason
from llamacluster.api.status import GroupPhase, GroupStatus
from llamacluster.controller.observation import Group
from llamacluster.controller.progress import with_progress
from llamacluster.controller.recovery import container_restarts, recovery_told, with_recovery
from llamacluster.planning.reasons import Reason
from llamacluster.resources.metadata import Manifest

_IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_TAKE_LONG = {Reason.Downloading, Reason.Verifying, Reason.Loading}
_CREATE_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}

UNMADE_SECONDS = 60.0
"""How long a pod may not exist before Kubernetes is said not to make it. A second is usual."""


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    phase: GroupPhase
    reason: str
    message: str
    failing: bool = False
    takes_long: bool = False
    """How far it is, is told too."""


Check = Callable[[Group], Finding | None]


def _failing(reason: str, message: str) -> Finding:
    return Finding(GroupPhase.WAITING, reason, message, failing=True)


def group_status(
    group: Group,
    previous: GroupStatus | None,
    now: str,
    *,
    asked_for: bool = False,
    leader: str | None = None,
) -> GroupStatus:
    """Status of a group. `since` moves only with the reason.

    `asked_for`: it is replaced or removed because the spec says so, which is no loss. `leader`:
    name of its leader's pod; None for a group that need not have one.
    """
    missing_since = None
    if missing := _missing(group, leader):
        missing_since = (previous and previous.pods_missing_since) or now
        if _seconds(missing_since, now) >= UNMADE_SECONDS:
            group = replace(group, unmade=missing)
    finding = next(found for check in CHECKS if (found := check(group)))
    restarts, restart_causes = container_restarts(group)
    status = GroupStatus(
        index=group.index,
        phase=finding.phase,
        reason=finding.reason,
        message=finding.message,
        since=now,
        failing=finding.failing,
        pods_missing_since=missing_since,
        workers_attached=_workers_attached(group),
        restarts=restarts,
        restart_causes=restart_causes,
    )
    told: Mapping[str, object] = group.status or {}
    status = with_recovery(
        status, previous, recovery_told(told.get("lastRecovery"), now), now, asked_for=asked_for
    )
    if finding.takes_long:
        status = with_progress(status, previous, told.get("progress"), now)
    if previous and (previous.phase, previous.reason) == (status.phase, status.reason):
        status = status.model_copy(update={"since": previous.since})
    return status


def is_ready(pod: Manifest | None) -> bool:
    """Whether the pod is Ready and will stay."""
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        return False
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def is_silent(group: Group) -> bool:
    """Whether nobody told what a group that serves holds: its agent had no time to, perhaps."""
    return is_ready(group.leader) and group.status is None


def gate_is_closed(group: Group) -> Finding | None:
    """A Secret of the API lets nobody in, whatever else is well."""
    told = group.status.get("gate") if group.status else None
    if not told or not told["closed"] or group.leader is None:
        return None
    if "deletionTimestamp" in group.leader["metadata"]:
        return None
    return _failing(told["closed"]["reason"], told["closed"]["message"])


def leader_is_ready(group: Group) -> Finding | None:
    """The leader's readiness is the group's: its agent answers only for a whole group."""
    if not is_ready(group.leader):
        return None
    count = f"{group.size} worker{'s' if group.size != 1 else ''}"
    return Finding(GroupPhase.SERVING, Reason.Ready, f"{count} attached, answers requests")


def node_is_lost(group: Group) -> Finding | None:
    """A pod is on a node that is lost; first of those that wait for a person."""
    for lost in sorted(group.lost, key=lambda lost: not lost.stays):
        return Finding(GroupPhase.WAITING, ClusterReason.NodeLost, lost.message, lost.stays)
    return None


def leader_is_stopping(group: Group) -> Finding | None:
    """The leader is being deleted: by a rollout, a scale-down, a drain or a person."""
    if group.leader is None or "deletionTimestamp" not in group.leader["metadata"]:
        return None
    name = group.leader["metadata"]["name"]
    return Finding(GroupPhase.DRAINING, Reason.Stopping, f"pod {name} is being deleted")


def pod_was_evicted(group: Group) -> Finding | None:
    """The kubelet evicted a pod, most often for memory or disk pressure."""
    for pod in group.pods:
        status = pod.get("status", {})
        if status.get("phase") == "Failed" and status.get("reason"):
            name, text = pod["metadata"]["name"], status.get("message", "")
            return _failing(
                ClusterReason.Evicted,
                f"pod {name} failed: {status['reason']}: {text}".rstrip(": "),
            )
    return None


def pod_cannot_be_scheduled(group: Group) -> Finding | None:
    """The scheduler's own words say which node lacks what."""
    for pod in group.pods:
        for condition in pod.get("status", {}).get("conditions", []):
            if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
                return Finding(
                    GroupPhase.WAITING,
                    ClusterReason.Unschedulable,
                    f"no node for pod {pod['metadata']['name']}: {condition.get('message', '')}",
                )
    return None


def image_cannot_be_pulled(group: Group) -> Finding | None:
    """A wrong image name, a missing pull secret, or a registry that cannot be reached."""
    for pod, container in _containers(group):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") in _IMAGE_REASONS:
            return _failing(
                ClusterReason.ImagePullFailed,
                f"pod {pod['metadata']['name']} cannot pull image {container['image']}: "
                "check spec.image and spec.imagePullSecrets",
            )
    return None


def container_cannot_start(group: Group) -> Finding | None:
    """The container cannot be made, or ends again and again; with its last words."""
    for pod, container in _containers(group):
        name = pod["metadata"]["name"]
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") in _CREATE_REASONS:
            return _failing(
                ClusterReason.ContainerFailed,
                f"pod {name}: {waiting['reason']}: {waiting.get('message', '')}",
            )
        end = last_end(container)
        if end.get("reason") == "OOMKilled" and not container.get("ready"):
            return _failing(
                ClusterReason.OutOfMemory,
                f"pod {name} was killed at its memory limit: raise resources.limits.memory, add "
                "workers, or use a smaller context",
            )
        if waiting.get("reason") == "CrashLoopBackOff" or "terminated" in container.get(
            "state", {}
        ):
            return _failing(ClusterReason.ContainerFailed, last_words(pod, container))
    return None


def last_end(container: Manifest) -> Manifest:
    """How the container ended the last time; empty if it never did."""
    for state in ("state", "lastState"):
        if ended := container.get(state, {}).get("terminated"):
            return dict(ended)
    return {}


def last_words(pod: Manifest, container: Manifest) -> str:
    """With which exit code the container ended, and the last line that it left."""
    end = last_end(container)
    words = (end.get("message") or "").strip().splitlines()
    return (
        f"container {container['name']} of pod {pod['metadata']['name']} ended with exit code "
        f"{end.get('exitCode')}" + (f": {words[-1]}" if words else "")
    )


def pod_is_not_made(group: Group) -> Finding | None:
    """Who tries to make it knows why it cannot; the operator has no right to read that."""
    if not group.unmade:
        return None
    first, *others = group.unmade
    more = f" and {len(others)} more" if others else ""
    return _failing(
        ClusterReason.PodsMissing,
        f"Kubernetes makes no pod {first}{more}: "
        f"`kubectl describe statefulset {first.rpartition('-')[0]}` says why",
    )


def agent_says(group: Group) -> Finding | None:
    """All containers run: the leader's agent knows best. Where one try after another fails, that is
    what there is to say, however well the next one looks until its end."""
    if group.status is None:
        return None
    phase, reason, message = (group.status[key] for key in ("phase", "reason", "message"))
    failure = group.status.get("lastFailure")  # an older agent does not tell
    often = f"{failure['count']} tries in a row have failed" if failure else ""
    repeated = failure and failure["count"] > 1
    if phase == messages.Phase.Failed:
        return _failing(reason, f"{message}; {often}" if repeated else message)
    if phase == messages.Phase.Serving:
        # The Service leads nobody to a pod that the kubelet has not found ready yet.
        return Finding(
            GroupPhase.VERIFYING,
            Reason.Probing,
            f"the group answers; pod {_name(group.leader)} is not in the Service yet",
        )
    finding = Finding(GroupPhase(phase), reason, message, takes_long=reason in _TAKE_LONG)
    if failure and repeated and phase != messages.Phase.Draining:
        said = f"{failure['message']}; {often}; now: {message}"
        return replace(finding, reason=failure["reason"], message=said, failing=True)
    return finding


def pods_are_missing(group: Group) -> Finding | None:
    """Pods that do not exist or do not run yet, without a known cause."""
    if group.leader is None:
        return Finding(
            GroupPhase.WAITING, ClusterReason.PodsPending, "the leader pod does not exist yet"
        )
    missing = group.size - len(group.workers)
    starting = [p["metadata"]["name"] for p in group.pods if _phase(p) != "Running"]
    if missing > 0:
        return Finding(
            GroupPhase.WAITING,
            ClusterReason.PodsPending,
            f"{missing} of {group.size} worker pods do not exist yet",
        )
    if starting:
        return Finding(
            GroupPhase.WAITING, ClusterReason.PodsPending, f"{', '.join(starting)} not running yet"
        )
    return None


def agent_does_not_answer(group: Group) -> Finding | None:  # noqa: ARG001
    """All pods run, nothing is known: the last check always speaks."""
    return Finding(
        GroupPhase.WAITING,
        ClusterReason.AgentUnreachable,
        "the agent of the leader pod does not answer the operator",
    )


CHECKS: tuple[Check, ...] = (
    gate_is_closed,
    leader_is_ready,
    node_is_lost,
    leader_is_stopping,
    pod_was_evicted,
    pod_cannot_be_scheduled,
    image_cannot_be_pulled,
    container_cannot_start,
    pod_is_not_made,
    agent_says,
    pods_are_missing,
    agent_does_not_answer,
)


def _missing(group: Group, leader: str | None) -> tuple[str, ...]:
    """Names of its pods that do not exist and should. A leader's workers are made once there is the
    leader, and go with it."""
    if group.leader is None:
        return (leader,) if leader else ()
    if "deletionTimestamp" in group.leader["metadata"]:
        return ()
    name = _name(group.leader)
    wanted = range(1, group.size + 1)
    return tuple(f"{name}-{index}" for index in wanted if index not in group.workers)


def _seconds(since: str, now: str) -> float:
    return (datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds()


def _containers(group: Group) -> Iterator[tuple[Manifest, Manifest]]:
    for pod in group.pods:
        if "deletionTimestamp" in pod["metadata"]:
            continue  # that its containers end is no failure
        for container in pod.get("status", {}).get("containerStatuses", []):
            yield pod, container


def _name(pod: Manifest | None) -> str:
    return str(pod["metadata"]["name"]) if pod else ""


def _phase(pod: Manifest) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def _workers_attached(group: Group) -> int:
    if is_ready(group.leader):
        return group.size
    return sum(worker["attached"] for worker in group.status["workers"]) if group.status else 0
