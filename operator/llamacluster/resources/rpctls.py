"""RPC encryption: the Secret and the ConfigMap of its certificates, and the container of each pod
that uses them."""

from __future__ import annotations

import base64

from llamacluster.agent.contract.options import TunnelOptions, tunnel_args
from llamacluster.agent.contract.places import AGENT_PORT, RPC_PORT, RPC_TLS_DIR, TUNNEL_CONTAINER
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.resources.metadata import (
    Manifest,
    group_set_name,
    object_metadata,
    rpc_authority_name,
    rpc_secret_name,
)
from llamacluster.resources.pod import engine_container

VOLUME = "rpc-tls"
OWN_VOLUME = "tunnel"
AUTHORITY_KEY = "ca.crt"
RESOURCES = {
    "requests": {"cpu": "20m", "memory": "64Mi"},
    # No limit of CPU: throttling would hold up every token.
    "limits": {"memory": "128Mi"},
}
"""HAProxy and its agent hold 40 MiB, and a hundred connections no more than 10 MiB."""


def server_name(cluster: LlamaCluster) -> str:
    """The name that the certificate is for: of all pods of all groups."""
    return f"*.{group_set_name(cluster)}.{cluster.metadata.namespace}"


def rpc_secret(
    cluster: LlamaCluster, authorities: list[str], certificate: str, key: str
) -> Manifest:
    """What a tunnel trusts and what it shows, as PEM."""
    texts = {"ca.crt": "".join(authorities), "tls.crt": certificate, "tls.key": key}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": object_metadata(cluster, rpc_secret_name(cluster)),
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()},
    }


def rpc_authority(cluster: LlamaCluster, authority: str) -> Manifest:
    """The authority of the Secret's certificate, as PEM: what the operator has to know of it, which
    does not read Secrets. It says when it is to be renewed, and is trusted for a while after."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": object_metadata(cluster, rpc_authority_name(cluster)),
        "data": {AUTHORITY_KEY: authority},
    }


def add_tunnel(pod: Manifest, cluster: LlamaCluster, image: str, workers: int | None) -> None:
    """Adds the tunnel to a pod's template: that of a worker, or of a leader of so many `workers`.

    It has no probe of its own: the worker's says whether it listens. It shares no volume with the
    engine, which could otherwise tell its HAProxy to give the private key away.
    """
    mount = {"name": VOLUME, "mountPath": RPC_TLS_DIR, "readOnly": True}
    options = TunnelOptions(
        workers=workers, grace_seconds=cluster.spec.termination_grace_period_seconds
    )
    container = engine_container(
        cluster,
        image,
        name=TUNNEL_CONTAINER,
        args=tunnel_args(options),
        mounts=[mount],
        scratch=OWN_VOLUME,
    )
    if workers is None:
        container["ports"] = [
            {"name": "rpc", "containerPort": RPC_PORT},
            {"name": "agent", "containerPort": AGENT_PORT},
        ]
    container["resources"] = RESOURCES
    pod["spec"]["containers"].append(container)
    pod["spec"]["volumes"] += [
        {
            "name": VOLUME,
            # For the pods' own group alone.
            "secret": {"secretName": rpc_secret_name(cluster), "defaultMode": 0o440},
        },
        {"name": OWN_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]
