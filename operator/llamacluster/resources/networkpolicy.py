"""What the NetworkPolicies of a LlamaCluster have in common."""

from __future__ import annotations

from dataclasses import dataclass

from llamacluster.api.llamacluster import LlamaCluster
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
ANYWHERE = "0.0.0.0/0"
"""IPv4 alone, which the engine's RPC needs in any case: one IPv6 range in one policy makes
kube-router (1.6, seen) enforce no policy at all in a cluster without IPv6."""
NO_MODEL_SOURCE = [
    *("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"),
]
"""Addresses by which clouds hand credentials to whoever asks from a node: link-local ones (nearly
all clouds), Alibaba's, Azure's and Oracle's."""


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
    ingress: list[Manifest] | None,
    egress: list[Manifest] | None,
) -> Manifest:
    """Nothing goes into `pods` or out of them but what these rules say, and what rules of other
    policies allow. None: the policy says nothing of this direction."""
    rules = {"Ingress": ingress, "Egress": egress}
    said = {direction: given for direction, given in rules.items() if given is not None}
    spec: Manifest = {
        "podSelector": {"matchLabels": pods},
        "policyTypes": list(said),
        **{direction.lower(): given for direction, given in said.items()},
    }
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
    if not cluster.spec.model.is_downloaded:
        return []
    block = {"cidr": ANYWHERE, "except": NO_MODEL_SOURCE}
    return [
        {
            "to": [{"namespaceSelector": {}}, {"ipBlock": block}],
            "ports": [{"protocol": "TCP"}],
        }
    ]
