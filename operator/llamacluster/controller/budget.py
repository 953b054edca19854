"""What a node drain may take at the moment: one whole group at a time. Pure.

While no group is down, a drain may evict one pod. That takes its group down, and then all of that
group may go and nothing of the others, until it is Ready again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from llamacluster.api.types import LlamaCluster
from llamacluster.controller.groups import is_ready
from llamacluster.controller.observation import Group, Observation
from llamacluster.resources.metadata import Manifest

NEW_SECONDS = 15.0
"""A group with a pod that is newer is down, whatever its leader says: a worker may be Ready again
before the leader has noticed that it was away, which it does within 5 s."""
LONG_SECONDS = 900.0
"""A group that is down for longer does not hold up drains any more: a cluster that cannot become
Ready must not keep nodes from being repaired."""


@dataclass(frozen=True)
class Budget:
    """What may be evicted."""

    down: tuple[int, ...]
    """Groups of which everything may go."""
    allowed: int
    """How many pods of the other groups may go."""
    settling: bool
    """It has to be looked at again, for a group that is Ready."""


def budget(cluster: LlamaCluster, observation: Observation, now: datetime) -> Budget:
    """The budget for the groups that are there and those that should be."""
    wanted = range(cluster.spec.replicas) if observation.group_set else ()
    missing = Group(index=0, size=1)
    groups = {
        index: observation.groups.get(index, missing)
        for index in sorted({*observation.groups, *wanted})
    }
    down = {index: group for index, group in groups.items() if _is_down(group, now)}
    said = {group.index: group.since for group in cluster.status.groups}
    seconds = (_down_seconds(group, said.get(index), now) for index, group in down.items())
    held = any(lasting < LONG_SECONDS for lasting in seconds)
    return Budget(
        down=tuple(down),
        # Kubernetes expects as many leaders as their StatefulSet has replicas, and misses those
        # that the budget leaves out.
        allowed=0
        if held
        else 1 + sum(_is_expected(cluster, i, group) for i, group in down.items()),
        settling=any(is_ready(group.leader) for group in down.values()),
    )


def _is_expected(cluster: LlamaCluster, index: int, group: Group) -> bool:
    """Whether the StatefulSet of the leaders is to have this group's."""
    going = group.leader is None or "deletionTimestamp" in group.leader["metadata"]
    return index < cluster.spec.replicas or not going


def _is_down(group: Group, now: datetime) -> bool:
    """Whether it serves nobody, or will not in a moment."""
    return (
        not is_ready(group.leader)
        or len(group.workers) < group.size
        or any("deletionTimestamp" in pod["metadata"] for pod in group.pods)
        or any(_age(pod["metadata"].get("creationTimestamp"), now) < NEW_SECONDS
               for pod in group.pods)
    )  # fmt: skip


def _down_seconds(group: Group, said: str | None, now: datetime) -> float:
    """For how long its leader has not been Ready, or has not been there, as the status said."""
    if group.leader is None:
        return _age(said, now) if said else 0
    if is_ready(group.leader):
        return 0
    conditions: list[Manifest] = group.leader.get("status", {}).get("conditions", [])
    changed = next((c.get("lastTransitionTime") for c in conditions if c["type"] == "Ready"), None)
    since = changed or group.leader["metadata"].get("creationTimestamp")
    return _age(since, now) if since else 0


def _age(since: str | None, now: datetime) -> float:
    return (now - datetime.fromisoformat(since)).total_seconds() if since else LONG_SECONDS
