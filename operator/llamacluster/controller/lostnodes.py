"""Pods on nodes that are lost: Kubernetes leaves them Terminating, and a StatefulSet never replaces
them, because it cannot know whether they still run.

A worker holds nothing that is not sent to it anew, and should it come back, its leader's epoch is
gone. So it is deleted for good. So is a leader, unless it has a claim that one node only can mount:
whether that node still writes to it, a person has to find out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.controller.kubeapi import (
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PODS,
    ApiError,
    KubeApi,
)
from llamacluster.controller.objects import refusals
from llamacluster.controller.observation import Group, LostPod, Observation
from llamacluster.resources.metadata import Manifest

OVERDUE_SECONDS = 30.0
"""So long after its grace period a pod that is still there is said to be stuck, if its node cannot
be asked."""


SHARED_MODES = frozenset({"ReadOnlyMany", "ReadWriteMany"})
"""Access modes of a claim by which a leader's successor may have it while the lost node still does.
A volume that is bound to the claim has all of the claim's modes."""


class _Unreadable(Enum):
    """Stands for a node that the operator has no right to read."""

    NODE = 0


_UNREADABLE = _Unreadable.NODE
Node = Manifest | None | _Unreadable
"""None: it does not exist."""


class Loss(Enum):
    """How sure it is that a pod will not come back."""

    PERHAPS = "its node is away, but not for long enough"
    KEPT = "its node is away for long enough, and Kubernetes does not delete it"
    SURE = "it may be deleted for good"
    UNKNOWN = "only a person can tell"


@dataclass(frozen=True)
class Verdict:
    """Why a pod is lost."""

    loss: Loss
    why: str


async def with_lost_pods(
    cluster: LlamaCluster, observation: Observation, api: KubeApi, now: datetime
) -> Observation:
    """The same, with the pods that are lost with their nodes. Reads the nodes of pods that may be:
    none while all is well."""
    groups = {
        index: replace(group, lost=await _lost(cluster, group, api, now))
        for index, group in observation.groups.items()
    }
    return replace(observation, groups=groups)


def replaceable(observation: Observation) -> list[LostPod]:
    """Those that may be deleted for good."""
    return [lost for group in observation.groups.values() for lost in group.lost if lost.replaced]


async def delete_lost(lost: LostPod, api: KubeApi) -> None:
    """Delete it for good. Raises Refused."""
    with refusals(PODS, lost.pod["metadata"]["name"]):
        await api.delete_at_once(PODS, lost.pod)


async def _lost(
    cluster: LlamaCluster, group: Group, api: KubeApi, now: datetime
) -> tuple[LostPod, ...]:
    suspects = [pod for pod in group.pods if _may_be_lost(group, pod)]
    names = sorted({_node_name(pod) for pod in suspects})
    read = await asyncio.gather(*(_read(api, name) for name in names))
    nodes = dict(zip(names, read, strict=True))
    seconds = cluster.spec.recovery.lost_node_seconds
    return tuple(
        [
            await _fate(cluster, group, pod, verdict, api)
            for pod in suspects
            if (verdict := judge(pod, nodes[_node_name(pod)], seconds, now))
        ]
    )


async def _read(api: KubeApi, name: str) -> Node:
    try:
        return await api.get(NODES, "", name)
    except ApiError as error:
        if error.status == 403:
            return _UNREADABLE
        raise


def _may_be_lost(group: Group, pod: Manifest) -> bool:
    """Whether its node is worth a look: Kubernetes takes the readiness of all pods of a node that
    it cannot reach, and deletes them some time later."""
    if not _node_name(pod):
        return False
    if "deletionTimestamp" in pod["metadata"]:
        return True
    if pod is group.leader and group.status is not None:
        return False  # its agent has just answered
    status = pod.get("status", {})
    conditions = status.get("conditions", [])
    unready = any(c["type"] == "Ready" and c["status"] != "True" for c in conditions)
    return unready and status.get("phase") == "Running"


def judge(pod: Manifest, node: Node, seconds: int, now: datetime) -> Verdict | None:
    """Whether the pod is lost with its node, which may be away for `seconds`."""
    name = _node_name(pod)
    deleted = pod["metadata"].get("deletionTimestamp")  # the end of its grace period
    overdue = now - datetime.fromisoformat(deleted) if deleted else timedelta.min
    if node is _UNREADABLE:
        if overdue.total_seconds() < OVERDUE_SECONDS:
            return None
        return Verdict(
            Loss.UNKNOWN,
            f"it should have ended at {deleted}, and the operator has no right to see whether node "
            f"{name} is lost",
        )
    if node is None:
        return Verdict(Loss.SURE, f"node {name} does not exist any more")
    ready: Manifest = next((c for c in node["status"]["conditions"] if c["type"] == "Ready"), {})
    if ready.get("status", "Unknown") == "True" or "lastTransitionTime" not in ready:
        return None
    unreachable = ready["status"] == "Unknown"
    away = now - datetime.fromisoformat(ready["lastTransitionTime"])
    # The kubelet of a node that is not ready may be at work, and ends the pod in its time; that of
    # an unreachable one has not even heard of it.
    sure = deleted and away.total_seconds() >= seconds and (unreachable or overdue > timedelta())
    kept = not deleted and away.total_seconds() >= seconds + OVERDUE_SECONDS
    return Verdict(
        Loss.SURE if sure else Loss.KEPT if kept else Loss.PERHAPS,
        f"node {name} is {'unreachable' if unreachable else 'not ready'} since "
        f"{ready['lastTransitionTime']}",
    )


async def _fate(
    cluster: LlamaCluster, group: Group, pod: Manifest, verdict: Verdict, api: KubeApi
) -> LostPod:
    """What becomes of a pod that is lost."""
    name = pod["metadata"]["name"]
    lead = f"pod {name}: {verdict.why}"
    forced = f"`kubectl delete pod {name} -n {cluster.metadata.namespace} --force`"
    match verdict.loss:
        case Loss.PERHAPS:
            seconds = cluster.spec.recovery.lost_node_seconds
            return LostPod(pod, f"{lead}; the pod is replaced if that lasts for {seconds} s")
        case Loss.KEPT:
            return LostPod(
                pod,
                f"{lead}, and its own tolerations keep it there: `kubectl delete pod {name} -n "
                f"{cluster.metadata.namespace} --wait=false` has it replaced",
                stays=True,
            )
        case Loss.UNKNOWN:
            return LostPod(pod, f"{lead}: if it is, {forced}", stays=True)
    claim = await _mounted_once(pod, api) if pod is group.leader else None
    if claim is None:
        return LostPod(pod, f"{lead}; the pod is being replaced", replaced=True)
    return LostPod(
        pod,
        f"{lead}; the pod is not replaced by itself, because claim {claim}: make sure that the node"
        f" is off, then {forced}",
        stays=True,
    )


async def _mounted_once(pod: Manifest, api: KubeApi) -> str | None:
    """The first claim of the pod that may not be mounted on two nodes at once, and why."""
    namespace = pod["metadata"]["namespace"]
    for volume in pod.get("spec", {}).get("volumes", []):
        name = volume.get("persistentVolumeClaim", {}).get("claimName")
        if not name:
            continue
        try:
            claim = await api.get(PERSISTENTVOLUMECLAIMS, namespace, name) or {}
        except ApiError as error:
            if error.status != 403:
                raise
            return f"{name} may be one that a single node mounts, and the operator may not read it"
        modes: list[str] = claim.get("spec", {}).get("accessModes", [])
        if not SHARED_MODES.intersection(modes):
            return f"{name} is one that a single node mounts ({', '.join(modes) or 'no mode'})"
    return None


def _node_name(pod: Manifest) -> str:
    return str(pod.get("spec", {}).get("nodeName", ""))
