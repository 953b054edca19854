"""The worker pod: llama.cpp's RPC server under the agent."""

from __future__ import annotations

from llamacluster.agent import contract
from llamacluster.api.types import LlamaCluster, Plan
from llamacluster.resources.controlsecret import CONTROL_MOUNT, control_volume
from llamacluster.resources.metadata import Manifest
from llamacluster.resources.pod import agent_container, pod_template


def worker_pod(cluster: LlamaCluster, image: str, plan: Plan) -> Manifest:
    """Template of all workers of a group; they are alike but for their index."""
    settings = cluster.spec.workers
    container = agent_container(
        cluster,
        settings,
        image,
        name=contract.WORKER_CONTAINER,
        args=contract.worker_args(
            contract.WorkerOptions(
                threads=settings.threads,
                grace_seconds=cluster.spec.termination_grace_period_seconds,
                control_token_file=contract.CONTROL_TOKEN_FILE,
            )
        ),
        ports=[{"name": "rpc", "containerPort": contract.RPC_PORT}],
        mounts=[CONTROL_MOUNT],
        memory=plan.worker_memory,
    )
    return pod_template(cluster, settings, container, [control_volume(cluster)])
