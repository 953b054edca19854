"""What the pods of the engine image have in common: security, probes, scheduling."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from llamacluster.agent.contract.places import AGENT_UID, LIVEZ, READYZ, SCRATCH_DIR
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.quantity import to_bytes
from llamacluster.api.scheduling import PodSettings, TaintEffect
from llamacluster.resources.metadata import (
    COMPONENT_LABEL,
    Manifest,
    groups_selector,
    labels,
)

DEAF_AGENT_GRACE_SECONDS = 30
"""At most, between SIGTERM and SIGKILL to an agent that its liveness probe finds dead."""
SCRATCH_VOLUME = "tmp"
LOST_NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def as_manifest(value: BaseModel) -> dict[str, Any]:
    """An API type as the user would write it: camelCase, without absent fields."""
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def pod_template(
    cluster: LlamaCluster,
    settings: PodSettings,
    container: Manifest,
    volumes: list[Manifest],
) -> Manifest:
    """Pod template around the agent's container; passes the `restricted` Pod Security Standard."""
    role = container["name"]
    metadata: Manifest = {
        "labels": {
            **(settings.metadata.labels or {}),
            **labels(cluster),
            COMPONENT_LABEL: role,
        }
    }
    if settings.metadata.annotations:
        metadata["annotations"] = dict(settings.metadata.annotations)
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": cluster.spec.termination_grace_period_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": AGENT_UID,
            "runAsGroup": AGENT_UID,
            "fsGroup": AGENT_UID,
            # A claim of hundreds of gigabytes is not re-owned file by file at every start.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": SCRATCH_VOLUME, "emptyDir": {}}, *volumes],
        **_scheduling(cluster, settings),
    }
    if cluster.spec.image_pull_secrets:
        spec["imagePullSecrets"] = [as_manifest(s) for s in cluster.spec.image_pull_secrets]
    return {"metadata": metadata, "spec": spec}


def agent_container(
    cluster: LlamaCluster,
    settings: PodSettings,
    image: str,
    *,
    name: str,
    args: list[str],
    ports: list[Manifest],
    mounts: list[Manifest],
    memory: str,
    probe_port: str = "agent",
) -> Manifest:
    """A container in which the agent runs a part of a group and answers for it.

    `memory` is its memory limit if the user gave none.
    """
    return {
        **engine_container(cluster, image, name=name, args=args, mounts=mounts),
        "ports": ports,
        "resources": _resources(settings, memory),
        # The agent answers for its engine. Nothing ever connects to the RPC port to see whether it
        # is open: the RPC server would take the probe for its leader and turn the leader away.
        "readinessProbe": {
            "httpGet": {"path": READYZ, "port": probe_port},
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": 1,
        },
        "livenessProbe": {
            "httpGet": {"path": LIVEZ, "port": probe_port},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
            # An agent that has not answered for a minute is frozen, deaf to SIGTERM too. With the
            # pod's grace, the group would lack it for five more minutes.
            "terminationGracePeriodSeconds": min(
                DEAF_AGENT_GRACE_SECONDS, cluster.spec.termination_grace_period_seconds
            ),
        },
    }


def engine_container(
    cluster: LlamaCluster,
    image: str,
    *,
    name: str,
    args: list[str],
    mounts: list[Manifest],
    scratch: str = SCRATCH_VOLUME,
) -> Manifest:
    """A container of the engine image in which the agent runs as `name`. `scratch` is its volume at
    SCRATCH_DIR, which it shares with others of the pod unless it has one of its own."""
    container: Manifest = {
        "name": name,
        "image": image,
        # Kubernetes expands $(NAME) in arguments and takes $$ for $; a user's text is meant as it
        # stands.
        "args": [arg.replace("$", "$$") for arg in args],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": scratch, "mountPath": SCRATCH_DIR}, *mounts],
        # The status says them of a container that ends again and again.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if cluster.spec.image_pull_policy:
        container["imagePullPolicy"] = cluster.spec.image_pull_policy.value
    return container


def add_users_secret(
    name: str, volume: str, path: str, volumes: list[Manifest], mounts: list[Manifest]
) -> None:
    """A Secret of the user's at `path`. Optional: the agent there says that it is missing, and
    takes it up when it comes."""
    secret = {"secretName": name, "optional": True, "defaultMode": 0o440}
    volumes.append({"name": volume, "secret": secret})
    mounts.append({"name": volume, "mountPath": path, "readOnly": True})


def _resources(settings: PodSettings, memory: str) -> Manifest:
    """The user's resources; without a memory limit, with the plan's as limit and request."""
    resources = as_manifest(settings.resources)
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    if "memory" in limits:
        return resources
    own = requests.get("memory")
    fits = own is not None and to_bytes(own) <= to_bytes(memory)
    return {
        "limits": {**limits, "memory": memory},
        "requests": {**requests, "memory": own if fits else memory},
    }


def _tolerations(settings: PodSettings, lost_node_seconds: int) -> list[Manifest]:
    """The user's, and for how long a pod stays on a node that is lost: Kubernetes' own default is
    300 s, through which a group that lacks one pod serves nobody. One of every taint is for pools
    of nodes, not to wait for a lost one for ever; of two that match, the shorter time counts."""
    theirs = settings.tolerations or []
    ours = [
        {
            "key": key,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": lost_node_seconds,
        }
        for key in LOST_NODE_TAINTS
        if not any(t.key == key and t.effect in (TaintEffect.NO_EXECUTE, None) for t in theirs)
    ]
    return [*map(as_manifest, theirs), *ours]


def _scheduling(cluster: LlamaCluster, settings: PodSettings) -> Manifest:
    result: Manifest = {}
    if settings.node_selector:
        result["nodeSelector"] = dict(settings.node_selector)
    result["tolerations"] = _tolerations(settings, cluster.spec.recovery.lost_node_seconds)
    if settings.affinity:
        result["affinity"] = as_manifest(settings.affinity)
    if settings.priority_class_name:
        result["priorityClassName"] = settings.priority_class_name
    if settings.topology_spread_constraints is not None:
        constraints = [as_manifest(c) for c in settings.topology_spread_constraints]
    else:
        # The point of a group is the memory of several nodes. A planner that has just ended counts
        # as running for a moment, and would send two workers to one node.
        constraints = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": groups_selector(cluster),
            }
        ]
    if constraints:
        result["topologySpreadConstraints"] = constraints
    return result
