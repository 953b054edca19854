"""What the NetworkPolicies of a LlamaCluster have in common."""

from __future__ import annotations

from dataclasses import dataclass

from llamacluster.api.types import LlamaCluster
from llamacluster.resources.metadata import Manifest, object_metadata

DNS: Manifest = {
    "ports": [
        {"protocol": protocol, "port": port}
        # Policies see the port of the DNS server's pod: on OpenShift it is 5353.
        for port in (53, 5353)
        for protocol in ("UDP", "TCP")
    ]
}
"""Egress to any DNS server: which pods or node addresses that are, each distribution decides."""
NO_MODEL_SOURCE = {
    "0.0.0.0/0": ["169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"],
    "::/0": ["fe80::/10", "fd00:ec2::/32"],
}
"""Addresses by which clouds hand credentials to whoever asks from a node, by the range that they
are in: link-local ones (nearly all clouds), Alibaba's, Azure's and Oracle's."""


@dataclass(frozen=True)
class OperatorPods:
    """By what policies know the operator's own pods."""

    namespace: str
    labels: dict[str, str]

    @property
    def peer(self) -> Manifest:
        """As a peer of a policy."""
        names = {"kubernetes.io/metadata.name": self.namespace}
        return {
            "namespaceSelector": {"matchLabels": names},
            "podSelector": {"matchLabels": self.labels},
        }


def network_policy(
    cluster: LlamaCluster,
    name: str,
    pods: dict[str, str],
    ingress: list[Manifest],
    egress: list[Manifest] | None,
) -> Manifest:
    """Nothing goes into `pods` or out of them but what these rules say, and what rules of other
    policies allow. None: the policy says nothing of what goes out."""
    spec: Manifest = {
        "podSelector": {"matchLabels": pods},
        "policyTypes": ["Ingress"],
        "ingress": ingress,
    }
    if egress is not None:
        spec |= {"policyTypes": ["Ingress", "Egress"], "egress": egress}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": object_metadata(cluster, name),
        "spec": spec,
    }


def tcp(*ports: int) -> list[Manifest]:
    """These ports of a rule."""
    return [{"protocol": "TCP", "port": port} for port in ports]


def model_egress(cluster: LlamaCluster) -> list[Manifest]:
    """Rules for whoever reads the model: none where it comes from a volume or from the image.

    Any port, because a policy sees the port of the pod behind a Service, and any address, because
    it sees no names. Pods are said apart from addresses: to some networks they are none.
    """
    if not cluster.spec.model.uri.startswith(("http://", "https://")):
        return []
    blocks = [
        {"ipBlock": {"cidr": cidr, "except": hidden}} for cidr, hidden in NO_MODEL_SOURCE.items()
    ]
    return [{"to": [{"namespaceSelector": {}}, *blocks], "ports": [{"protocol": "TCP"}]}]
