"""Builders of what the API server and the agents say of a group."""

from __future__ import annotations

from typing import Any, cast

from llamacluster.agent import contract
from llamacluster.api.types import GroupPhase, GroupStatus
from llamacluster.controller.observation import Group
from llamacluster.resources.metadata import (
    CLUSTER_LABEL,
    LWS_GROUP_INDEX_LABEL,
    LWS_WORKER_INDEX_LABEL,
)
from tests.build import IMAGE, Manifest

NOW = "2026-11-22T12:00:00Z"
EARLIER = "2026-11-22T11:00:00Z"


def pod(
    worker: int = 0,
    *,
    group: int = 0,
    phase: str = "Running",
    ready: bool = False,
    deleting: bool = False,
    state: Manifest | None = None,
    last_state: Manifest | None = None,
    conditions: list[Manifest] | None = None,
    **status: Any,
) -> Manifest:
    """A pod of LlamaCluster x; by default it runs and is not ready."""
    name = f"x-group-{group}" + (f"-{worker}" if worker else "")
    role = contract.WORKER_CONTAINER if worker else contract.LEADER_CONTAINER
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
                {"type": "Ready", "status": "True" if ready else "False"},
                *(conditions or []),
            ],
            "containerStatuses": [container],
            **status,
        },
    }


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
    phase: contract.Phase = contract.Phase.Forming,
    reason: str = "WaitingForWorkers",
    message: str = "waiting for worker x-group-0-1",
    attached: int = 0,
) -> contract.LeaderStatus:
    """What the leader's agent says, as far as the operator reads it."""
    return cast(
        "contract.LeaderStatus",
        {
            "role": "leader",
            "phase": phase.value,
            "reason": reason,
            "message": message,
            "workers": [{"attached": index < attached} for index in range(2)],
            "engine": {"version": "b9000", "build": "abc"},
        },
    )


def group(
    *pods: Manifest, index: int = 0, size: int = 2, status: contract.LeaderStatus | None = None
) -> Group:
    """A group of these pods: the leader, if there is one, and the workers by their label."""
    by_index = {int(p["metadata"]["labels"][LWS_WORKER_INDEX_LABEL]): p for p in pods}
    return Group(index, size, by_index.pop(0, None), by_index, status)


def group_status(
    index: int = 0,
    phase: GroupPhase = GroupPhase.READY,
    reason: str = "Ready",
    message: str = "2 workers attached",
    since: str = EARLIER,
) -> GroupStatus:
    """What was or is said of a group."""
    return GroupStatus(index=index, phase=phase, reason=reason, message=message, since=since)
