"""Names, labels and ownership of all objects of a LlamaCluster."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from llamacluster.agent.contract.places import LEADER_CONTAINER, PLAN_CONTAINER, WORKER_CONTAINER
from llamacluster.api import API_VERSION, GROUP, KIND
from llamacluster.api.llamacluster import LlamaCluster

Manifest = dict[str, Any]
"""A Kubernetes object as a plain dict, like its YAML."""

FIELD_MANAGER = "llamacluster-operator"
CLUSTER_LABEL = f"{GROUP}/cluster"
"""On every object of a LlamaCluster, with the LlamaCluster's name."""
COMPONENT_LABEL = "app.kubernetes.io/component"
DESIRED_HASH_ANNOTATION = f"{GROUP}/desired-hash"
"""On every object of ours: the digest of what was last applied (see `controller.apply`)."""

SPEC_HASH_ANNOTATION = f"{GROUP}/spec-hash"
"""On the LeaderWorkerSet: the digest of the part of the spec that its pods are made from."""
TEMPLATE_ANNOTATION = f"{GROUP}/template"
"""On the LeaderWorkerSet: the pod templates that were made from that spec, as JSON."""
TEMPLATE_ID_ANNOTATION = f"{GROUP}/template-id"
"""On the LeaderWorkerSet: which operator and engine image its templates were made by (see
`leaderworkerset.template_id`)."""
UPGRADE_ANNOTATION = f"{GROUP}/upgrade"
"""On the LeaderWorkerSet, by a person: the template id that its groups shall have. It asks for that
one upgrade and for no later one, so that it need not be taken away again."""
PLAN_LABEL = f"{GROUP}/plan"
"""On the LeaderWorkerSet: the inputs hash of the plan that its pod templates were made from."""
MODEL_CLAIM_LABEL = f"{GROUP}/model-claim"
"""On pods that mount the user's claim with the model: the digest of its name."""

JOB_UID_LABEL = "batch.kubernetes.io/controller-uid"
"""Set by Kubernetes on the pods of a Job."""
LWS_GROUP_INDEX_LABEL = "leaderworkerset.sigs.k8s.io/group-index"
LWS_WORKER_INDEX_LABEL = "leaderworkerset.sigs.k8s.io/worker-index"
LWS_SIZE_ANNOTATION = "leaderworkerset.sigs.k8s.io/size"
"""On every pod of a group: how many pods the group has."""


def digest(value: Any) -> str:
    """Short digest of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def group_set_name(cluster: LlamaCluster) -> str:
    """Name of the LeaderWorkerSet, its headless Service, and the prefix of all pods.

    LeaderWorkerSet makes a headless Service of its own name, so ours needs another one.
    """
    return f"{cluster.metadata.name}-group"


def service_name(cluster: LlamaCluster) -> str:
    """Name of the Service of the API."""
    return cluster.metadata.name


def budget_name(cluster: LlamaCluster) -> str:
    """Name of the PodDisruptionBudget."""
    return cluster.metadata.name


def workers_policy_name(cluster: LlamaCluster, group: int | None = None) -> str:
    """Name of the NetworkPolicy of all workers, or of those of one group."""
    name = f"{cluster.metadata.name}-workers"
    return name if group is None else f"{name}-{group}"


def leader_policy_name(cluster: LlamaCluster) -> str:
    """Name of the NetworkPolicy of the leaders."""
    return f"{cluster.metadata.name}-{LEADER_CONTAINER}"


def plan_policy_name(cluster: LlamaCluster) -> str:
    """Name of the NetworkPolicy of the planner's pods."""
    return f"{cluster.metadata.name}-{PLAN_CONTAINER}"


def control_secret_name(cluster: LlamaCluster) -> str:
    """Name of the Secret with the agents' token."""
    return f"{cluster.metadata.name}-control"


def rpc_secret_name(cluster: LlamaCluster) -> str:
    """Name of the Secret with the certificates of RPC encryption."""
    return f"{cluster.metadata.name}-rpc-tls"


def rpc_authority_name(cluster: LlamaCluster) -> str:
    """Name of the ConfigMap with the authority that they are from."""
    return f"{cluster.metadata.name}-rpc-ca"


def plan_job_name(cluster: LlamaCluster, inputs_hash: str) -> str:
    """Name of the Job that plans."""
    return f"{cluster.metadata.name}-{PLAN_CONTAINER}-{inputs_hash}"


def labels(cluster: LlamaCluster) -> dict[str, str]:
    """Labels of every object of a LlamaCluster. None of them changes during its life."""
    return {
        CLUSTER_LABEL: cluster.metadata.name,
        "app.kubernetes.io/name": "llamacluster",
        "app.kubernetes.io/instance": cluster.metadata.name,
        "app.kubernetes.io/managed-by": FIELD_MANAGER,
    }


def leader_selector(cluster: LlamaCluster) -> dict[str, str]:
    """Labels that select the leader pods of all groups, and no other pod."""
    return {
        CLUSTER_LABEL: cluster.metadata.name,
        COMPONENT_LABEL: LEADER_CONTAINER,
        LWS_WORKER_INDEX_LABEL: "0",
    }


def groups_selector(cluster: LlamaCluster) -> Manifest:
    """LabelSelector of the pods of all groups, and not of the planner's."""
    roles = [LEADER_CONTAINER, WORKER_CONTAINER]
    return {
        "matchLabels": {CLUSTER_LABEL: cluster.metadata.name},
        "matchExpressions": [{"key": COMPONENT_LABEL, "operator": "In", "values": roles}],
    }


def plan_selector(cluster: LlamaCluster) -> dict[str, str]:
    """Labels that select the plan's Jobs and their pods."""
    return role_selector(cluster, PLAN_CONTAINER)


def role_selector(cluster: LlamaCluster, role: str, group: int | None = None) -> dict[str, str]:
    """Labels that select the pods of this role, of all groups or of one."""
    selected = {CLUSTER_LABEL: cluster.metadata.name, COMPONENT_LABEL: role}
    return selected if group is None else {**selected, LWS_GROUP_INDEX_LABEL: str(group)}


def object_metadata(cluster: LlamaCluster, name: str) -> Manifest:
    """Metadata of an object owned by the LlamaCluster: it goes when its owner goes."""
    return {
        "name": name,
        "namespace": cluster.metadata.namespace,
        "labels": labels(cluster),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": cluster.metadata.name,
                "uid": cluster.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }
