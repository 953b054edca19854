"""The Service in front of the leaders of all groups."""

from __future__ import annotations

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.resources.metadata import (
    Manifest,
    leader_selector,
    object_metadata,
    service_name,
)


def service(cluster: LlamaCluster) -> Manifest:
    """The API's Service. A leader that is not Ready has no place in it."""
    spec = cluster.spec.server
    metadata = object_metadata(cluster, service_name(cluster))
    if spec.service.annotations:
        metadata["annotations"] = dict(spec.service.annotations)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": spec.service.type.value,
            "selector": leader_selector(cluster),
            "ports": [
                {
                    "name": "http",
                    "port": spec.port,
                    "targetPort": "http",
                    "protocol": "TCP",
                    "appProtocol": scheme(cluster),
                }
            ],
        },
    }


def endpoint(cluster: LlamaCluster) -> str:
    """URL of the OpenAI-compatible API inside the cluster."""
    host = f"{service_name(cluster)}.{cluster.metadata.namespace}.svc"
    return f"{scheme(cluster)}://{host}:{cluster.spec.server.port}/v1"


def scheme(cluster: LlamaCluster) -> str:
    """http, or https where the LlamaCluster has a certificate."""
    return "https" if cluster.spec.server.tls_secret else "http"
