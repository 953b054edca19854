"""The worker pod: llama.cpp's RPC server under the agent."""

from __future__ import annotations

from llamacluster.agent.contract.options import WorkerOptions, worker_args
from llamacluster.agent.contract.places import (
    AGENT_PORT,
    CONTROL_TOKEN_FILE,
    PROBE_PORT,
    RPC_PORT,
    WORKER_CONTAINER,
)
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.plan import Plan
from llamacluster.resources.controlsecret import CONTROL_MOUNT, control_volume
from llamacluster.resources.metadata import Manifest
from llamacluster.resources.pod import agent_container, pod_template
from llamacluster.resources.rpctls import add_tunnel


def worker_pod(cluster: LlamaCluster, image: str, plan: Plan) -> Manifest:
    """Template of all workers of a group; they are alike but for their index."""
    settings = cluster.spec.workers
    encrypted = cluster.spec.rpc.encryption
    probe = {"name": "probe", "containerPort": PROBE_PORT}
    rpc = {"name": "rpc", "containerPort": RPC_PORT}
    agent = {"name": "agent", "containerPort": AGENT_PORT}
    container = agent_container(
        cluster,
        settings,
        image,
        name=WORKER_CONTAINER,
        args=worker_args(
            WorkerOptions(
                threads=settings.threads,
                grace_seconds=cluster.spec.termination_grace_period_seconds,
                control_token_file=CONTROL_TOKEN_FILE,
                encrypted=encrypted,
            )
        ),
        ports=[probe] if encrypted else [rpc, agent],
        mounts=[CONTROL_MOUNT],
        memory=plan.worker_memory,
        probe_port="probe" if encrypted else "agent",
    )
    pod = pod_template(cluster, settings, container, [control_volume(cluster)])
    if encrypted:
        add_tunnel(pod, cluster, image, workers=None)
    return pod
