"""The LeaderWorkerSet that runs the groups."""

from __future__ import annotations

import json

from llamacluster.agent.contract.places import LEADER_CONTAINER
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.plan import Plan, PlanMethod, PlannedMemory, PlannedModel, PlannedWorker
from llamacluster.resources.leaderpod import MODEL_VOLUME, leader_pod
from llamacluster.resources.metadata import (
    PLAN_LABEL,
    SPEC_HASH_ANNOTATION,
    TEMPLATE_ANNOTATION,
    TEMPLATE_ID_ANNOTATION,
    UPGRADE_ANNOTATION,
    Manifest,
    digest,
    group_set_name,
    labels,
    object_metadata,
)
from llamacluster.resources.planjob import inputs_hash
from llamacluster.resources.workerpod import worker_pod

_LITTLE = PlannedMemory(weights="1Mi", context="1Mi", compute="1Mi", memory_limit="1Mi")
_SOME_PLAN = Plan(
    inputs_hash="",
    fits=True,
    message="",
    method=PlanMethod.FORMULA,
    model=PlannedModel(architecture="", layers=0, bytes=0, context_train=0, header_digest=""),
    workers=1,
    worker_memory="1Mi",
    per_worker=[PlannedWorker(first_layer=0, last_layer=0, layers=1, **_LITTLE.model_dump())],
    leader=_LITTLE,
    leader_memory="1Mi",
    tensor_split="1",
)


def leader_worker_set(cluster: LlamaCluster, image: str, plan: Plan) -> Manifest:
    """`replicas` groups of one leader and the plan's workers, running `image`.

    restartPolicy None: a container that restarts must not take its whole group with it, because
    the agents heal the group in place. startupPolicy LeaderCreated: a leader is Ready only with its
    workers, so waiting for it before making them would wait for ever.
    """
    template = _template(cluster, image, plan)
    metadata = object_metadata(cluster, group_set_name(cluster))
    metadata["labels"][PLAN_LABEL] = plan.inputs_hash
    metadata["annotations"] = {
        SPEC_HASH_ANNOTATION: spec_hash(cluster),
        TEMPLATE_ANNOTATION: json.dumps(template, separators=(",", ":")),
        TEMPLATE_ID_ANNOTATION: template_id(cluster, image),
    }
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata,
        "spec": {
            "replicas": cluster.spec.replicas,
            "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {
                    "maxUnavailable": cluster.spec.rollout.unavailable,
                    "maxSurge": cluster.spec.rollout.max_surge,
                },
            },
            "networkConfig": {"subdomainPolicy": "Shared"},
            "leaderWorkerTemplate": template,
        },
    }


def _template(cluster: LlamaCluster, image: str, plan: Plan) -> Manifest:
    """The pods of a group, and their claims."""
    template: Manifest = {
        "size": plan.workers + 1,
        "restartPolicy": "None",
        "leaderTemplate": leader_pod(cluster, image, plan),
        "workerTemplate": worker_pod(cluster, image, plan),
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
    return template


def keep_running(desired: Manifest, live: Manifest | None) -> Manifest:
    """`desired` with the pod templates of `live`, if only the operator has changed since them.

    A newer operator makes other templates from the same spec: another default image, another
    argument. Applying them would restart every group, and nobody asked for that. They come with the
    next change of the spec, or with an upgrade that is asked for. The templates are those that were
    made then, from an annotation: what somebody else has changed in them since is taken back.
    """
    wanted, there = desired["metadata"]["annotations"], _annotations(live)
    if wanted[SPEC_HASH_ANNOTATION] != there.get(SPEC_HASH_ANNOTATION):
        return desired
    template = running_template(live)
    if template is None:
        return desired
    return {
        **desired,
        "metadata": {
            **desired["metadata"],
            "labels": {
                **desired["metadata"]["labels"],
                PLAN_LABEL: running_plan(live) or "",
            },
            "annotations": {
                **wanted,
                TEMPLATE_ANNOTATION: there[TEMPLATE_ANNOTATION],
                TEMPLATE_ID_ANNOTATION: running_template_id(live) or "",
            },
        },
        "spec": {**desired["spec"], "leaderWorkerTemplate": template},
    }


def template_id(cluster: LlamaCluster, image: str) -> str:
    """Digest of what this operator makes of the spec with this image, whatever the plan is: another
    one from the same spec is an upgrade."""
    return digest([_template(cluster, image, _SOME_PLAN), inputs_hash(cluster, image)])


def running_template(group_set: Manifest | None) -> Manifest | None:
    """The templates that the groups were made from; None where nobody knows."""
    try:
        template = json.loads(_annotations(group_set).get(TEMPLATE_ANNOTATION, ""))
    except ValueError:
        return None  # somebody has edited it
    return template if isinstance(template, dict) else None


def running_template_id(group_set: Manifest | None) -> str | None:
    """Of the templates that the groups were made from."""
    return _annotations(group_set).get(TEMPLATE_ID_ANNOTATION)


def wanted_template_id(group_set: Manifest | None) -> str | None:
    """Of the upgrade that a person has asked for last."""
    return _annotations(group_set).get(UPGRADE_ANNOTATION)


def running_image(group_set: Manifest) -> str | None:
    """The engine image of the groups; None if somebody has taken their containers away."""
    containers = group_set["spec"]["leaderWorkerTemplate"]["leaderTemplate"]["spec"]["containers"]
    return next((c["image"] for c in containers if c["name"] == LEADER_CONTAINER), None)


def running_plan(group_set: Manifest | None) -> str | None:
    """Inputs hash of the plan that the groups were made from."""
    return group_set["metadata"].get("labels", {}).get(PLAN_LABEL) if group_set else None


def runs_this_spec(cluster: LlamaCluster, group_set: Manifest | None) -> bool:
    """Whether the groups were made from the newest spec, by whatever version of the operator."""
    return _annotations(group_set).get(SPEC_HASH_ANNOTATION) == spec_hash(cluster)


def workers_of(group_set: Manifest | None) -> int:
    """Workers of each group; 0 while there is no LeaderWorkerSet."""
    return int(group_set["spec"]["leaderWorkerTemplate"]["size"]) - 1 if group_set else 0


def newly_mounts(volume: str, wanted: Manifest, live: Manifest | None) -> bool:
    """Whether the pods of `wanted` need a volume that those of `live` do not have."""
    return _mounts(volume, wanted) and not (live and _mounts(volume, live))


def _mounts(volume: str, group_set: Manifest) -> bool:
    template = group_set["spec"]["leaderWorkerTemplate"]
    pods = (template["leaderTemplate"], template["workerTemplate"])
    return any(v["name"] == volume for pod in pods for v in pod["spec"].get("volumes", []))


def spec_hash(cluster: LlamaCluster) -> str:
    """Digest of what the user asked of the pods."""
    return digest(_spec_of_pods(cluster))


def _annotations(group_set: Manifest | None) -> dict[str, str]:
    return group_set["metadata"].get("annotations", {}) if group_set else {}


def _spec_of_pods(cluster: LlamaCluster) -> Manifest:
    """What the user asked of the pods: not the operator's defaults, nor what pods do not show."""
    spec = cluster.spec.model_dump(
        mode="json",
        by_alias=True,
        exclude_defaults=True,
        exclude={
            "replicas": True,
            "rollout": True,
            "network_policy": True,
            "server": {"service": True},
        },
    )
    return {field: value for field, value in spec.items() if value != {}}
