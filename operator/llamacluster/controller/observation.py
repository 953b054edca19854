"""What there is of a LlamaCluster: its objects, its pods and what their agents say."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from llamacluster.agent import contract
from llamacluster.api.types import LlamaCluster
from llamacluster.controller.agents import Agents
from llamacluster.controller.kubeapi import LEADERWORKERSETS, PODS, KubeApi
from llamacluster.resources.metadata import (
    CLUSTER_LABEL,
    LWS_GROUP_INDEX_LABEL,
    LWS_WORKER_INDEX_LABEL,
    Manifest,
    group_set_name,
)


@dataclass(frozen=True)
class Group:
    """The pods of one group, and what its leader's agent says."""

    index: int
    size: int
    """Workers that it should have."""
    leader: Manifest | None = None
    workers: dict[int, Manifest] = field(default_factory=dict)
    """By worker index, 1 to workers.count."""
    status: contract.LeaderStatus | None = None

    @property
    def pods(self) -> list[Manifest]:
        """Leader first, then the workers by index."""
        workers = [self.workers[index] for index in sorted(self.workers)]
        return [self.leader, *workers] if self.leader else workers


@dataclass(frozen=True)
class Observation:
    """All that status and conditions are made from."""

    group_set: Manifest | None
    """The LeaderWorkerSet."""
    groups: dict[int, Group]


async def observe(cluster: LlamaCluster, api: KubeApi, agents: Agents) -> Observation:
    """Read everything, now."""
    namespace = cluster.metadata.namespace
    group_set, pods = await asyncio.gather(
        api.get(LEADERWORKERSETS, namespace, group_set_name(cluster)),
        api.list(PODS, namespace, f"{CLUSTER_LABEL}={cluster.metadata.name}"),
    )
    groups = sorted_into_groups(pods, cluster.spec.workers.count)
    statuses = await asyncio.gather(*(_leader_status(group, agents) for group in groups))
    return Observation(
        group_set=group_set,
        groups={
            group.index: replace(group, status=status)
            for group, status in zip(groups, statuses, strict=True)
        },
    )


def sorted_into_groups(pods: list[Manifest], size: int) -> list[Group]:
    """Groups of `size` workers by index. A pod without LeaderWorkerSet's labels belongs to none."""
    leaders: dict[int, Manifest] = {}
    workers: dict[int, dict[int, Manifest]] = {}
    for pod in pods:
        labels = pod["metadata"].get("labels", {})
        try:
            group = int(labels[LWS_GROUP_INDEX_LABEL])
            worker = int(labels[LWS_WORKER_INDEX_LABEL])
        except (KeyError, ValueError):
            continue
        if worker == 0:
            leaders[group] = pod
        else:
            workers.setdefault(group, {})[worker] = pod
    return [
        Group(index, size, leaders.get(index), workers.get(index, {}))
        for index in sorted(leaders.keys() | workers.keys())
    ]


async def _leader_status(group: Group, agents: Agents) -> contract.LeaderStatus | None:
    if group.leader is None or group.leader.get("status", {}).get("phase") != "Running":
        return None
    return await agents.leader_status(group.leader)
