"""How far LeaderWorkerSet is with the newest spec, and whether it gets on: pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.reasons import ClusterReason
from llamacluster.api.status import ConditionStatus, GroupPhase, GroupStatus
from llamacluster.controller.conditions import Rollout
from llamacluster.controller.observation import Group, Observation


def rollout(
    cluster: LlamaCluster, observation: Observation, groups: list[GroupStatus], now: str
) -> Rollout:
    """How far the groups have the newest spec."""
    wanted, group_set = cluster.spec.replicas, observation.group_set
    if group_set is None:
        return Rollout(wanted, updated=0, observed=False)
    status = group_set.get("status", {})
    # Until LeaderWorkerSet has seen the newest template its counts speak of an older one.
    if status.get("observedGeneration", 0) < group_set["metadata"]["generation"]:
        return Rollout(wanted, updated=0, observed=False)
    updated = min(status.get("updatedReplicas", 0), wanted)
    if _is_under_way(status):
        # Its count has the groups that are there for the rollout only, and those go again.
        surge = sum(index >= wanted for index in observation.groups)
        updated = max(0, min(status.get("updatedReplicas", 0) - surge, wanted - 1))
    found = Rollout(wanted, updated, observed=True)
    return replace(found, stuck=_stuck(cluster, observation, groups, found, now))


def _is_under_way(status: dict[str, list[dict[str, str]]]) -> bool:
    return any(
        c["type"] == "UpdateInProgress" and c["status"] == "True"
        for c in status.get("conditions", [])
    )


def _stuck(
    cluster: LlamaCluster,
    observation: Observation,
    groups: list[GroupStatus],
    found: Rollout,
    now: str,
) -> str | None:
    """Why the rollout does not get on, once a group of it has failed for as long as it may, while
    others go on. Where none does, the group's own reason is all that there is to say.

    A group that fails is tried again and again, and says so in between. That is no progress: what
    was said stays until the group is Ready or gone, or the spec changes.
    """
    if found.complete or not any(group.phase is GroupPhase.SERVING for group in groups):
        return None
    said = next((c for c in cluster.status.conditions if c.type == "Progressing"), None)
    newest = said is not None and said.observed_generation == cluster.metadata.generation
    again = said is not None and newest and said.reason == ClusterReason.RolloutStuck
    moving = said is not None and said.status is ConditionStatus.TRUE
    limit = cluster.spec.rollout.progress_deadline_seconds
    if not again and not (said and moving and _age(said.last_transition_time, now) >= limit):
        return None
    late = [
        group
        for group in groups
        if group.phase is not GroupPhase.SERVING
        and _leader_age(observation.groups.get(group.index), now) >= limit
    ]
    for group in late:
        if group.failing or group.reason == ClusterReason.Unschedulable:
            return (
                f"{found.message}; group {group.index} does not get on: {group.reason}: "
                f"{group.message}. Groups that are not replaced yet go on with the former spec: "
                "correct the spec, or change it back"
            )
    return said.message if said and again and late else None


def _leader_age(group: Group | None, now: str) -> float:
    """Seconds since the group was made; 0 if it is not there."""
    made = group.leader["metadata"].get("creationTimestamp") if group and group.leader else None
    return _age(made, now) if made else 0


def _age(since: str, now: str) -> float:
    return (datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds()
