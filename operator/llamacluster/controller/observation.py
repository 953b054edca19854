"""What there is of a LlamaCluster: its objects, its pods and what their agents say."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from llamacluster.agent.contract import messages
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.controller.agents import Agents
from llamacluster.controller.kubeapi import PODS, KubeApi
from llamacluster.resources.leaderworkerset import workers_of
from llamacluster.resources.metadata import (
    CLUSTER_LABEL,
    LWS_GROUP_INDEX_LABEL,
    LWS_SIZE_ANNOTATION,
    LWS_WORKER_INDEX_LABEL,
    Manifest,
)

ASKED_AT_ONCE = 16
"""Leaders of one LlamaCluster: a thousand that do not answer would take the time of others'."""


@dataclass(frozen=True)
class LostPod:
    """A pod on a node that is lost, or may be."""

    pod: Manifest
    message: str
    """Why it is lost, and what comes of it."""
    replaced: bool = False
    """It is deleted for good, so that another one takes its place."""
    stays: bool = False
    """It stays until a person does something."""


@dataclass(frozen=True)
class Group:
    """The pods of one group, and what its leader's agent says."""

    index: int
    size: int
    """Workers that it should have."""
    leader: Manifest | None = None
    workers: dict[int, Manifest] = field(default_factory=dict)
    """By worker index, from 1."""
    status: messages.LeaderStatus | None = None
    lost: tuple[LostPod, ...] = ()
    unmade: tuple[str, ...] = ()
    """Names of pods that have not existed for so long that something keeps Kubernetes from making
    them."""

    @property
    def pods(self) -> list[Manifest]:
        """Leader first, then the workers by index."""
        workers = [self.workers[index] for index in sorted(self.workers)]
        return [self.leader, *workers] if self.leader else workers


@dataclass(frozen=True)
class Observation:
    """All that status and conditions are made from."""

    group_set: Manifest | None
    """The LeaderWorkerSet; None before the first plan."""
    groups: dict[int, Group]


async def observe(
    cluster: LlamaCluster, group_set: Manifest | None, api: KubeApi, agents: Agents
) -> Observation:
    """Read everything but the LeaderWorkerSet, now."""
    selector = f"{CLUSTER_LABEL}={cluster.metadata.name}"
    pods = await api.list(PODS, cluster.metadata.namespace, selector)
    groups = sorted_into_groups(pods, workers_of(group_set))
    turns = asyncio.Semaphore(ASKED_AT_ONCE)
    statuses = await asyncio.gather(*(_leader_status(group, agents, turns) for group in groups))
    return Observation(
        group_set=group_set,
        groups={
            group.index: replace(group, status=status)
            for group, status in zip(groups, statuses, strict=True)
        },
    )


def sorted_into_groups(pods: list[Manifest], size: int) -> list[Group]:
    """Groups by index, of `size` workers unless their pods say otherwise, as some do during a
    rollout. A pod without LeaderWorkerSet's labels belongs to none."""
    leaders: dict[int, Manifest] = {}
    workers: dict[int, dict[int, Manifest]] = {}
    sizes: dict[int, int] = {}
    for pod in pods:
        labels = pod["metadata"].get("labels", {})
        try:
            group = int(labels[LWS_GROUP_INDEX_LABEL])
            worker = int(labels[LWS_WORKER_INDEX_LABEL])
        except (KeyError, ValueError):
            continue
        sizes[group] = _size(pod, size)
        if worker == 0:
            leaders[group] = pod
        else:
            workers.setdefault(group, {})[worker] = pod
    return [
        Group(index, sizes[index], leaders.get(index), workers.get(index, {}))
        for index in sorted(sizes)
    ]


def _size(pod: Manifest, otherwise: int) -> int:
    """Workers of the pod's group."""
    try:
        return int(pod["metadata"]["annotations"][LWS_SIZE_ANNOTATION]) - 1
    except (KeyError, ValueError):
        return otherwise


async def _leader_status(
    group: Group, agents: Agents, turns: asyncio.Semaphore
) -> messages.LeaderStatus | None:
    if group.leader is None or group.leader.get("status", {}).get("phase") != "Running":
        return None
    async with turns:
        return await agents.leader_status(group.leader)
