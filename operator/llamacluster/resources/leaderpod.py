"""The leader pod: llama-server under the agent, with the model's file, and the gate before it."""

from __future__ import annotations

from llamacluster.agent.contract.options import GateOptions, LeaderOptions, gate_args, leader_args
from llamacluster.agent.contract.places import (
    AGENT_PORT,
    API_KEYS_DIR,
    CONTROL_TOKEN_FILE,
    GATE_CONTAINER,
    GATE_DIR,
    LEADER_CONTAINER,
    MODEL_DIR,
    TLS_DIR,
)
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.plan import Plan
from llamacluster.api.schema import name_of
from llamacluster.resources.controlsecret import CONTROL_MOUNT, control_volume
from llamacluster.resources.metadata import Manifest
from llamacluster.resources.modelsource import claim_labels, credentials_secret, source_volumes
from llamacluster.resources.pod import (
    add_users_secret,
    agent_container,
    engine_container,
    pod_template,
)
from llamacluster.resources.rpctls import add_tunnel

MODEL_VOLUME = "model"
GATE_VOLUME = "gate"
API_KEYS_VOLUME = "api-keys"
TLS_VOLUME = "tls"
GATE_MEMORY = "128Mi"
"""HAProxy and its agent hold 30 MiB, and 28 KiB more for each of 1,000 connections that send a body
(60 MiB in all, seen), for which the kernel keeps up to 32 KiB each."""
GATE_MEMORY_WITH_TLS = "256Mi"
"""A connection over TLS takes 110 KiB more."""


def leader_pod(cluster: LlamaCluster, image: str, plan: Plan) -> Manifest:
    """Template of the leader of a group."""
    settings = cluster.spec.leader
    volumes, mounts = _model_volume(cluster)
    container = agent_container(
        cluster,
        settings,
        image,
        name=LEADER_CONTAINER,
        args=leader_args(_options(cluster, plan)),
        ports=[{"name": "agent", "containerPort": AGENT_PORT}],
        mounts=[CONTROL_MOUNT, *mounts],
        memory=plan.leader_memory,
    )
    pod = pod_template(cluster, settings, container, [control_volume(cluster), *volumes])
    pod["metadata"]["labels"] |= claim_labels(cluster)
    gate_volumes, gate_mounts = _gate_volumes(cluster)
    pod["spec"]["containers"].append(_gate(cluster, image, gate_mounts))
    pod["spec"]["volumes"] += gate_volumes
    if cluster.spec.rpc.encryption:
        add_tunnel(pod, cluster, image, workers=plan.workers)
    return pod


def _gate(cluster: LlamaCluster, image: str, mounts: list[Manifest]) -> Manifest:
    """The container that the API's clients talk to.

    It has no probe of its own: the leader's says whether the gate listens, and a probe through a
    gate that a flood keeps busy would kill the streams that run through it.
    """
    spec = cluster.spec
    options = GateOptions(
        parallel=spec.inference.parallel,
        context_size=spec.inference.context_size,
        server_port=spec.server.port,
        queue=spec.server.queue.max_requests,
        queue_seconds=spec.server.queue.timeout_seconds,
        grace_seconds=spec.termination_grace_period_seconds,
        api_keys_secret=name_of(spec.server.api_keys_secret),
        tls_secret=name_of(spec.server.tls_secret),
    )
    memory = GATE_MEMORY_WITH_TLS if spec.server.tls_secret else GATE_MEMORY
    return {
        **engine_container(
            cluster,
            image,
            name=GATE_CONTAINER,
            args=gate_args(options),
            mounts=mounts,
        ),
        "ports": [{"name": "http", "containerPort": spec.server.port}],
        # No limit of CPU: throttling would hold up every token.
        "resources": {"requests": {"cpu": "20m", "memory": memory}, "limits": {"memory": memory}},
    }


def _gate_volumes(cluster: LlamaCluster) -> tuple[list[Manifest], list[Manifest]]:
    """Volumes of the gate alone: the engine, which reads what strangers send, sees neither keys nor
    certificate. What HAProxy reads of them is in memory, never on a disk."""
    memory = {"medium": "Memory", "sizeLimit": "8Mi"}
    volumes: list[Manifest] = [{"name": GATE_VOLUME, "emptyDir": memory}]
    mounts: list[Manifest] = [{"name": GATE_VOLUME, "mountPath": GATE_DIR}]
    server = cluster.spec.server
    if keys := server.api_keys_secret:
        add_users_secret(keys.name, API_KEYS_VOLUME, API_KEYS_DIR, volumes, mounts)
    if tls := server.tls_secret:
        add_users_secret(tls.name, TLS_VOLUME, TLS_DIR, volumes, mounts)
    return volumes, mounts


def _options(cluster: LlamaCluster, plan: Plan) -> LeaderOptions:
    spec, inference = cluster.spec, cluster.spec.inference
    return LeaderOptions(
        model_uri=spec.model.location,
        credentials_secret=credentials_secret(cluster),
        model_sha256=spec.model.sha256,
        model_bytes=plan.model.bytes,
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
        control_token_file=CONTROL_TOKEN_FILE,
        encrypted=spec.rpc.encryption,
    )


def _model_volume(cluster: LlamaCluster) -> tuple[list[Manifest], list[Manifest]]:
    """Volumes and mounts for the model's file, by the kind of its URI."""
    model = cluster.spec.model
    volumes, mounts = source_volumes(cluster)
    if model.is_downloaded:
        mounts.append({"name": MODEL_VOLUME, "mountPath": MODEL_DIR})
        # The StatefulSet brings a claim's volume by its template's name.
        if not model.storage:
            volumes.append({"name": MODEL_VOLUME, "emptyDir": {}})
    return volumes, mounts
