"""The leader pod: llama-server under the agent, with the model's file, and the gate before it."""

from __future__ import annotations

from llamacluster.agent import contract
from llamacluster.api.types import LlamaCluster, Plan
from llamacluster.resources.metadata import Manifest
from llamacluster.resources.modelclaim import claim_labels, claim_volume
from llamacluster.resources.pod import agent_container, engine_container, pod_template

MODEL_VOLUME = "model"
GATE_RESOURCES = {
    "requests": {"cpu": "20m", "memory": "128Mi"},
    # No limit of CPU: throttling would hold up every token.
    "limits": {"memory": "128Mi"},
}
"""HAProxy and its agent hold 50 MiB idle, and up to 35 KiB more for each of 1,000 connections."""


def leader_pod(cluster: LlamaCluster, image: str, plan: Plan) -> Manifest:
    """Template of the leader of a group."""
    settings = cluster.spec.leader
    volumes, mounts = _model_volume(cluster)
    container = agent_container(
        cluster,
        settings,
        image,
        name=contract.LEADER_CONTAINER,
        args=contract.leader_args(_options(cluster, plan)),
        ports=[],
        mounts=mounts,
        memory=plan.leader_memory,
    )
    pod = pod_template(cluster, settings, container, volumes)
    pod["metadata"]["labels"] |= claim_labels(cluster)
    pod["spec"]["containers"].append(_gate(cluster, image))
    return pod


def _gate(cluster: LlamaCluster, image: str) -> Manifest:
    """The container that the API's clients talk to.

    It has no probe of its own: the leader's says whether the gate listens, and a probe through a
    gate that a flood keeps busy would kill the streams that run through it.
    """
    spec = cluster.spec
    options = contract.GateOptions(
        parallel=spec.inference.parallel,
        context_size=spec.inference.context_size,
        server_port=spec.server.port,
        queue=spec.server.queue.max_requests,
        queue_seconds=spec.server.queue.timeout_seconds,
        grace_seconds=spec.termination_grace_period_seconds,
    )
    return {
        **engine_container(
            cluster,
            image,
            name=contract.GATE_CONTAINER,
            args=contract.gate_args(options),
            mounts=[],
        ),
        "ports": [{"name": "http", "containerPort": spec.server.port}],
        "resources": GATE_RESOURCES,
    }


def _options(cluster: LlamaCluster, plan: Plan) -> contract.LeaderOptions:
    spec, inference = cluster.spec, cluster.spec.inference
    return contract.LeaderOptions(
        model_uri=spec.model.uri,
        model_sha256=spec.model.sha256,
        model_name=cluster.metadata.name,
        layers=plan.layers,
        server_port=spec.server.port,
        context_size=inference.context_size,
        parallel=inference.parallel,
        batch_size=inference.batch_size,
        ubatch_size=inference.ubatch_size,
        cache_type_k=inference.cache_type_k.value,
        cache_type_v=inference.cache_type_v.value,
        threads=spec.leader.threads,
        embeddings=inference.embeddings,
        chat_template=inference.chat_template,
        allow_local_addresses=spec.model.allow_local_addresses,
        extra_args=tuple(inference.extra_args),
        hung_engine_seconds=spec.recovery.hung_engine_seconds,
        grace_seconds=spec.termination_grace_period_seconds,
    )


def _model_volume(cluster: LlamaCluster) -> tuple[list[Manifest], list[Manifest]]:
    """Volumes and mounts for the model's file, by the kind of its URI."""
    model = cluster.spec.model
    if model.uri.startswith("pvc://"):
        return claim_volume(cluster)
    if model.uri.startswith("file://"):
        return [], []
    mount = {"name": MODEL_VOLUME, "mountPath": contract.MODEL_DIR}
    if model.storage:
        return [], [mount]  # the StatefulSet brings the claim's volume by its template's name
    return [{"name": MODEL_VOLUME, "emptyDir": {}}], [mount]
