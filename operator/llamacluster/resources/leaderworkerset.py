"""The LeaderWorkerSet that runs the groups."""

from __future__ import annotations

import json

from llamacluster.api.types import LlamaCluster
from llamacluster.resources.leaderpod import MODEL_VOLUME, leader_pod
from llamacluster.resources.metadata import (
    SPEC_HASH_ANNOTATION,
    TEMPLATE_ANNOTATION,
    Manifest,
    digest,
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
    metadata = object_metadata(cluster, group_set_name(cluster))
    metadata["annotations"] = {
        SPEC_HASH_ANNOTATION: digest(_spec_of_pods(cluster)),
        TEMPLATE_ANNOTATION: json.dumps(template, separators=(",", ":")),
    }
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata,
        "spec": {
            "replicas": cluster.spec.replicas,
            "startupPolicy": "LeaderCreated",
            "networkConfig": {"subdomainPolicy": "Shared"},
            "leaderWorkerTemplate": template,
        },
    }


def keep_running(desired: Manifest, live: Manifest | None) -> Manifest:
    """`desired` with the pod templates of `live`, if only the operator has changed since them.

    A newer operator makes other templates from the same spec: another default image, another
    argument. Applying them would restart every group, and nobody asked for that. They come with the
    next change of the spec. The templates are those that were made then, from an annotation: what
    somebody else has changed in them since is taken back.
    """
    wanted = desired["metadata"]["annotations"]
    there = live["metadata"].get("annotations", {}) if live else {}
    if wanted[SPEC_HASH_ANNOTATION] != there.get(SPEC_HASH_ANNOTATION):
        return desired
    text = there.get(TEMPLATE_ANNOTATION, "")
    try:
        template = json.loads(text)
    except ValueError:
        return desired  # somebody has edited it
    return {
        **desired,
        "metadata": {
            **desired["metadata"],
            "annotations": {**wanted, TEMPLATE_ANNOTATION: text},
        },
        "spec": {**desired["spec"], "leaderWorkerTemplate": template},
    }


def running_image(group_set: Manifest) -> str:
    """The engine image of the groups."""
    template = group_set["spec"]["leaderWorkerTemplate"]["leaderTemplate"]
    image: str = template["spec"]["containers"][0]["image"]
    return image


def _spec_of_pods(cluster: LlamaCluster) -> Manifest:
    """What the user asked of the pods: not the operator's defaults, nor what pods do not show."""
    spec = cluster.spec.model_dump(
        mode="json",
        by_alias=True,
        exclude_defaults=True,
        exclude={"replicas": True, "server": {"service": True}},
    )
    return {field: value for field, value in spec.items() if value != {}}
