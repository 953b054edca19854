"""The Job that plans: it reads the model's header and asks the engine how much memory it takes."""

from __future__ import annotations

from llamacluster.agent.contract.options import PlanOptions, plan_args
from llamacluster.agent.contract.places import PLAN_CONTAINER
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.quantity import to_bytes, to_millicpus
from llamacluster.api.scheduling import (
    Affinity,
    LabelSelector,
    PodAffinity,
    PodAffinityTerm,
    PodSettings,
)
from llamacluster.resources.metadata import (
    Manifest,
    digest,
    object_metadata,
    plan_job_name,
    plan_selector,
)
from llamacluster.resources.modelsource import claim_labels, credentials_secret, source_volumes
from llamacluster.resources.pod import engine_container, pod_template

NEVER_GIVES_UP = 2**31 - 1
KEPT_SECONDS = 3600
"""For its log to be read after it has ended."""
RESOURCES = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"cpu": "1", "memory": "1Gi"},
}


def inputs_hash(cluster: LlamaCluster, image: str) -> str:
    """Digest of all that a plan depends on."""
    return digest([image, plan_args(plan_options(cluster)), cluster.spec.model.sha256])


def plan_job(cluster: LlamaCluster, image: str) -> Manifest:
    """The Job that answers with a `messages.Plan` in the termination message of its container.

    While there can be no plan, because the model is not there yet or cannot be reached, the
    container ends with 1 and a `messages.PlanFailure`, and the kubelet starts it again with
    backoff, for as long as it takes.
    """
    volumes, mounts = source_volumes(cluster)
    container = engine_container(
        cluster,
        image,
        name=PLAN_CONTAINER,
        args=plan_args(plan_options(cluster)),
        mounts=mounts,
    )
    container["resources"] = RESOURCES
    pod = pod_template(cluster, _placed(cluster), container, volumes)
    pod["metadata"]["labels"] |= claim_labels(cluster)
    pod["spec"]["restartPolicy"] = "OnFailure"
    metadata = object_metadata(cluster, plan_job_name(cluster, inputs_hash(cluster, image)))
    metadata["labels"] |= plan_selector(cluster)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": NEVER_GIVES_UP,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": pod,
        },
    }


def plan_options(cluster: LlamaCluster) -> PlanOptions:
    """What the planner is asked; the quantities in bytes and thousandths of a CPU."""
    spec, inference = cluster.spec, cluster.spec.inference
    limits = spec.workers.resources.limits or {}
    leader_limits = spec.leader.resources.limits or {}
    return PlanOptions(
        model_uri=spec.model.location,
        context_size=inference.context_size,
        parallel=inference.parallel,
        workers=spec.workers.count,
        worker_memory=to_bytes(limits["memory"]) if "memory" in limits else None,
        worker_cpu=(to_millicpus(limits["cpu"]) or None) if "cpu" in limits else None,
        leader_memory=to_bytes(leader_limits["memory"]) if "memory" in leader_limits else None,
        batch_size=inference.batch_size,
        ubatch_size=inference.ubatch_size,
        cache_type_k=inference.cache_type_k.value,
        cache_type_v=inference.cache_type_v.value,
        embeddings=inference.embeddings,
        credentials_secret=credentials_secret(cluster),
        allow_local_addresses=spec.model.allow_local_addresses,
        extra_args=tuple(inference.extra_args),
    )


def _placed(cluster: LlamaCluster) -> PodSettings:
    """The leader's settings, because what lets the leader reach the model lets the planner; but
    beside a leader where the model's claim can be mounted on one node only."""
    leader = cluster.spec.leader
    node_affinity = leader.affinity.node_affinity if leader.affinity else None
    near = None
    if mine := claim_labels(cluster):
        # Required, and yet no hindrance while no leader runs: the scheduler lets a pod whose own
        # labels match its required affinity start anywhere when no other pod matches.
        beside = PodAffinityTerm(
            topology_key="kubernetes.io/hostname",
            label_selector=LabelSelector(match_labels=mine),
        )
        near = PodAffinity(required_during_scheduling_ignored_during_execution=[beside])
    affinity = Affinity(node_affinity=node_affinity, pod_affinity=near)
    return leader.model_copy(
        update={
            "affinity": affinity if node_affinity or near else None,
            "topology_spread_constraints": [],
        }
    )
