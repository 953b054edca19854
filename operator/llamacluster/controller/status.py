"""The status of a LlamaCluster, made whole from what was observed: pure."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import urlsplit

from llamacluster.api import API_VERSION, KIND
from llamacluster.api.types import (
    Condition,
    EngineStatus,
    GroupPhase,
    GroupStatus,
    LlamaCluster,
    LlamaClusterStatus,
    ObjectMeta,
)
from llamacluster.controller.conditions import Rollout, Verdict, verdicts, with_history
from llamacluster.controller.groups import group_status
from llamacluster.controller.observation import Group, Observation
from llamacluster.resources.metadata import Manifest, leader_selector
from llamacluster.resources.pod import as_manifest
from llamacluster.resources.service import endpoint


def new_status(
    cluster: LlamaCluster, observation: Observation, image: str, now: str
) -> LlamaClusterStatus:
    """Status of a LlamaCluster whose objects are applied."""
    before = {group.index: group for group in cluster.status.groups}
    groups = [
        group_status(
            observation.groups.get(index, Group(index, cluster.spec.workers.count)),
            before.get(index),
            now,
        )
        for index in sorted(observation.groups.keys() | set(range(cluster.spec.replicas)))
    ]
    found = verdicts(groups, rollout(cluster, observation.group_set))
    return cluster.status.model_copy(
        update={
            "observed_generation": cluster.metadata.generation,
            "conditions": with_history(
                found, cluster.status.conditions, cluster.metadata.generation, now
            ),
            "replicas": len(observation.groups),
            "ready_replicas": sum(group.phase is GroupPhase.READY for group in groups),
            "selector": ",".join(f"{k}={v}" for k, v in sorted(leader_selector(cluster).items())),
            "endpoint": endpoint(cluster),
            "model_file": PurePosixPath(urlsplit(cluster.spec.model.uri).path).name,
            "groups": groups,
            "engine": EngineStatus(image=image, version=_engine_version(cluster, observation)),
        }
    )


def refused_status(
    metadata: ObjectMeta, before: LlamaClusterStatus, found: list[Verdict], now: str
) -> LlamaClusterStatus:
    """Status when the operator could not apply what is wanted: the groups stay as last seen."""
    generation = metadata.generation
    return before.model_copy(
        update={
            "observed_generation": generation,
            "conditions": with_history(found, before.conditions, generation, now),
        }
    )


def status_manifest(metadata: ObjectMeta, status: LlamaClusterStatus) -> Manifest:
    """The body of a server-side apply of the status."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        # With the version, a status that was made from an older spec, or from a deleted object of
        # the same name, is refused.
        "metadata": {
            "namespace": metadata.namespace,
            "name": metadata.name,
            "resourceVersion": metadata.resource_version,
        },
        "status": as_manifest(status),
    }


def rollout(cluster: LlamaCluster, group_set: Manifest | None) -> Rollout:
    """How far LeaderWorkerSet is with the newest template."""
    if group_set is None:
        return Rollout(wanted=cluster.spec.replicas, updated=0, observed=False)
    status = group_set.get("status", {})
    observed = status.get("observedGeneration", 0) >= group_set["metadata"]["generation"]
    return Rollout(
        wanted=cluster.spec.replicas,
        # Until LeaderWorkerSet has seen the newest template its counts speak of an older one.
        updated=min(status.get("updatedReplicas", 0), cluster.spec.replicas) if observed else 0,
        observed=observed,
    )


def ready_condition(status: LlamaClusterStatus) -> Condition | None:
    """The condition that people wait for."""
    return next((c for c in status.conditions if c.type == "Ready"), None)


def _engine_version(cluster: LlamaCluster, observation: Observation) -> str | None:
    for group in observation.groups.values():
        if group.status:
            return group.status["engine"]["version"]
    return cluster.status.engine.version if cluster.status.engine else None


def unsettled(groups: list[GroupStatus]) -> bool:
    """Whether a group is in a state that changes without an event of the API server."""
    return any(group.phase is not GroupPhase.READY for group in groups)
