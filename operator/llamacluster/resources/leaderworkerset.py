"""The LeaderWorkerSet that runs the groups."""

from __future__ import annotations

from llamacluster.api.types import LlamaCluster
from llamacluster.resources.leaderpod import MODEL_VOLUME, leader_pod
from llamacluster.resources.metadata import (
    Manifest,
    group_set_name,
    labels,
    object_metadata,
)
from llamacluster.resources.workerpod import worker_pod


def leader_worker_set(cluster: LlamaCluster, image: str) -> Manifest:
    """`replicas` groups of one leader and `workers.count` workers, running `image`.

    restartPolicy None: a container that restarts must not take its whole group with it, because
    the agents heal the group in place. startupPolicy LeaderCreated: a leader is Ready only with its
    workers, so waiting for it before making them would wait for ever.
    """
    template: Manifest = {
        "size": cluster.spec.workers.count + 1,
        "restartPolicy": "None",
        "leaderTemplate": leader_pod(cluster, image),
        "workerTemplate": worker_pod(cluster, image),
    }
    if storage := cluster.spec.model.storage:
        claim: Manifest = {
            "accessModes": [mode.value for mode in storage.access_modes],
            "resources": {"requests": {"storage": storage.size}},
        }
        if storage.storage_class_name is not None:
            claim["storageClassName"] = storage.storage_class_name
        template["volumeClaimTemplates"] = [
            {"metadata": {"name": MODEL_VOLUME, "labels": labels(cluster)}, "spec": claim}
        ]
        template["persistentVolumeClaimRetentionPolicy"] = {
            "whenDeleted": "Delete",
            "whenScaled": "Retain",
        }
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": object_metadata(cluster, group_set_name(cluster)),
        "spec": {
            "replicas": cluster.spec.replicas,
            "startupPolicy": "LeaderCreated",
            "networkConfig": {"subdomainPolicy": "Shared"},
            "leaderWorkerTemplate": template,
        },
    }
