"""What a node drain may take at the moment: one whole group at a time. Pure.

While no group is down, a drain may evict one pod. That takes its group down, and then all of that
group may go and nothing of the others, until it is Ready again. A large model takes its hours for
that; a group that gets nowhere is not waited for so long.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.status import GroupStatus
from llamacluster.controller.groups import is_ready
from llamacluster.controller.observation import Group, Observation
from llamacluster.planning.reasons import Reason
from llamacluster.resources.metadata import Manifest

NEW_SECONDS = 15.0
"""A group with a pod that is newer is down, whatever its leader says: a worker may be Ready again
before the leader has noticed that it was away, which it does within 5 s."""
LONG_SECONDS = 900.0
"""A group that gets nowhere for longer does not hold up drains any more: a cluster that cannot
become Ready must not keep nodes from being repaired."""
_MOVES = frozenset(
    {Reason.Downloading, Reason.Verifying, Reason.Attaching, Reason.Loading, Reason.Probing}
)
"""What a leader says while its group is on its way to Ready, however long that takes. It says that
it fails for a while after each failure."""


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
    said = {group.index: group for group in cluster.status.groups}
    seconds = (_still_seconds(group, said.get(index), now) for index, group in down.items())
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


def _still_seconds(group: Group, said: GroupStatus | None, now: datetime) -> float:
    """For how long a group that is down has got nowhere."""
    leader, agent = group.leader, group.status
    if is_ready(leader) or (agent and agent["reason"] in _MOVES):
        return 0
    ages = [_changed_seconds(pod, now) for pod in group.pods]
    if leader:
        conditions: list[Manifest] = leader.get("status", {}).get("conditions", [])
        unready = next(
            (c.get("lastTransitionTime") for c in conditions if c["type"] == "Ready"), None
        )
        ages.append(_age(unready or leader["metadata"].get("creationTimestamp"), now))
    if agent is None or len(group.workers) < group.size:
        # A pod that is missing tells nothing, nor does an agent that is silent, perhaps only once:
        # what the status has said counts, and from when.
        if said is None or said.reason in {Reason.Ready, *_MOVES}:
            return 0
        if not (said.failing and ages):  # who fails may do so in several ways by turns
            ages.append(_age(said.since, now))
    return min(ages)


def _changed_seconds(pod: Manifest, now: datetime) -> float:
    """Since the pod was made, or its grace period ended: until then it may finish requests."""
    metadata = pod["metadata"]
    return _age(metadata.get("deletionTimestamp") or metadata.get("creationTimestamp"), now)


def _age(since: str | None, now: datetime) -> float:
    return (now - datetime.fromisoformat(since)).total_seconds() if since else LONG_SECONDS
