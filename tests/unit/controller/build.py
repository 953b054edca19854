"""Builders of what the API server and the agents say of a group."""

from __future__ import annotations

from typing import Any, cast

from llamacluster.agent.contract import messages
from llamacluster.agent.contract.places import LEADER_CONTAINER, PLAN_CONTAINER, WORKER_CONTAINER
from llamacluster.api.plan import Plan
from llamacluster.api.status import GroupPhase, GroupStatus
from llamacluster.controller.conditions import Verdict
from llamacluster.controller.observation import Group
from llamacluster.controller.planner import Found
from llamacluster.resources.metadata import (
    CLUSTER_LABEL,
    JOB_UID_LABEL,
    LWS_GROUP_INDEX_LABEL,
    LWS_SIZE_ANNOTATION,
    LWS_WORKER_INDEX_LABEL,
)
from tests.build import IMAGE, Manifest, a_plan

NOW = "2026-11-22T12:00:00Z"
EARLIER = "2026-11-22T11:00:00Z"


def pod(
    worker: int = 0,
    *,
    group: int = 0,
    phase: str = "Running",
    ready: bool = False,
    deleting: bool = False,
    size: int | None = None,
    state: Manifest | None = None,
    last_state: Manifest | None = None,
    conditions: list[Manifest] | None = None,
    **status: Any,
) -> Manifest:
    """A pod of LlamaCluster x; by default it runs and is not ready."""
    name = f"x-group-{group}" + (f"-{worker}" if worker else "")
    role = WORKER_CONTAINER if worker else LEADER_CONTAINER
    metadata: Manifest = {
        "name": name,
        "namespace": "ns",
        "labels": {
            CLUSTER_LABEL: "x",
            LWS_GROUP_INDEX_LABEL: str(group),
            LWS_WORKER_INDEX_LABEL: str(worker),
        },
    }
    if deleting:
        metadata["deletionTimestamp"] = NOW
    if size is not None:
        metadata["annotations"] = {LWS_SIZE_ANNOTATION: str(size + 1)}
    container = {
        "name": role,
        "image": IMAGE,
        "ready": ready,
        "state": state or {"running": {"startedAt": EARLIER}},
        "lastState": last_state or {},
    }
    return {
        "metadata": metadata,
        "status": {
            "phase": phase,
            "podIP": "10.0.0.1",
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True" if ready else "False",
                    "lastTransitionTime": EARLIER,
                },
                *(conditions or []),
            ],
            "containerStatuses": [container],
            **status,
        },
    }


def plan_pod(
    *,
    state: Manifest | None = None,
    last_state: Manifest | None = None,
    job_uid: str = "job",
    created: str = NOW,
    **status: Any,
) -> Manifest:
    """A pod of LlamaCluster x's planner; by default it runs."""
    made = pod(state=state, last_state=last_state, **status)
    made["metadata"] |= {
        "name": f"x-plan-{job_uid}-{created}",
        "labels": {CLUSTER_LABEL: "x", JOB_UID_LABEL: job_uid},
        "creationTimestamp": created,
    }
    for container in made["status"]["containerStatuses"]:
        container["name"] = PLAN_CONTAINER
    return made


def unschedulable_pod(worker: int = 0, message: str = "0/3 nodes: too little memory") -> Manifest:
    """A pod that the scheduler has no node for."""
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    }
    return pod(worker, phase="Pending", conditions=[condition], containerStatuses=[])


def waiting(reason: str, message: str = "") -> Manifest:
    """State of a container that waits."""
    return {"waiting": {"reason": reason, "message": message}}


def terminated(reason: str, exit_code: int, message: str = "") -> Manifest:
    """State of a container that ended."""
    return {"terminated": {"reason": reason, "exitCode": exit_code, "message": message}}


def leader_status(
    phase: messages.Phase = messages.Phase.Waiting,
    reason: str = "WaitingForWorkers",
    message: str = "waiting for worker x-group-0-1",
    attached: int = 0,
    held: list[int] | None = None,
    leader_held: int | None = None,
    placed: list[tuple[int, int, int]] | None = None,
    gate: messages.GateStatus | None = None,
    progress: messages.Progress | None = None,
    failure: messages.LastFailure | None = None,
) -> messages.LeaderStatus:
    """What the leader's agent says, as far as the operator reads it: `held` and `placed` (weights,
    context, compute) are bytes of each worker."""

    def memory(count: int | None) -> Manifest | None:
        return None if count is None else {"residentBytes": count, "peakBytes": None}

    parts = ("modelBytes", "contextBytes", "computeBytes")
    return cast(
        "messages.LeaderStatus",
        {
            "role": "leader",
            "phase": phase.value,
            "reason": reason,
            "message": message,
            "workers": [
                {"attached": index < attached, "memory": memory(held[index] if held else None)}
                for index in range(len(held or [0, 0]))
            ],
            "memory": memory(leader_held),
            "placement": [dict(zip(parts, row, strict=True)) for row in placed or []],
            "engine": {"version": "b9000", "build": "abc"},
            "gate": gate,
            "progress": progress,
            "lastFailure": failure,
        },
    )


def group(
    *pods: Manifest, index: int = 0, size: int = 2, status: messages.LeaderStatus | None = None
) -> Group:
    """A group of these pods: the leader, if there is one, and the workers by their label."""
    by_index = {int(p["metadata"]["labels"][LWS_WORKER_INDEX_LABEL]): p for p in pods}
    return Group(index, size, by_index.pop(0, None), by_index, status)


def group_status(
    index: int = 0,
    phase: GroupPhase = GroupPhase.SERVING,
    reason: str = "Ready",
    message: str = "2 workers attached",
    since: str = EARLIER,
    *,
    failing: bool = False,
) -> GroupStatus:
    """What was or is said of a group."""
    return GroupStatus(
        index=index, phase=phase, reason=reason, message=message, since=since, failing=failing
    )


PLANNED = Verdict("Planned", True, "Planned", "8 layers over 2 workers")
PLANNING = Verdict("Planned", None, "Planning", "Job x-plan-hash plans")
UNPROVEN = Verdict("Isolated", None, "PoliciesUnproven", "not tried yet")
DOES_NOT_FIT = Verdict("Planned", False, "DoesNotFit", "500Mi too little")


def found(plan: Plan | None = None) -> Found:
    """A plan that fits."""
    return Found(PLANNED, plan or a_plan())
