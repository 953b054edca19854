"""Who may reach the pods: the part of networking.k8s.io/v1 that a LlamaCluster's policies need."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from llamacluster.api.scheduling import LabelSelector
from llamacluster.api.schema import ApiModel, Rule, rules

# Not for tidiness alone: one IPv6 range in one policy makes kube-router enforce none at all in a
# cluster without IPv6, and who may write a LlamaCluster may not do that to other namespaces.
_NO_IPV6 = "the pods listen on IPv4 alone, so that a range of IPv6 lets nobody in: remove it"


def _no_ipv6(cidr: str) -> str:
    if ":" in cidr:
        raise ValueError(_NO_IPV6)
    return cidr


Cidr = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        pattern=r"^((\d{1,3}\.){3}\d{1,3}/([12]?\d|3[0-2])|.*:.*)$",
        json_schema_extra=rules(Rule("!self.contains(':')", _NO_IPV6)),
    ),
    AfterValidator(_no_ipv6),
]
_ONE_KIND = (
    "a peer is either an ipBlock, or pods by podSelector, namespaceSelector or both; "
    "namespaceSelector: {} is every pod of the cluster"
)


class IPBlock(ApiModel):
    """Addresses, of clients outside the cluster."""

    cidr: Cidr
    """Range of addresses, such as 10.0.0.0/8. Of IPv4, which the pods listen on."""
    except_: Annotated[
        Annotated[list[Cidr], Field(max_length=64)] | None, Field(alias="except")
    ] = None
    """Ranges within cidr that do not count."""


class NetworkPolicyPeer(ApiModel):
    """Pods or addresses, as in networking.k8s.io/v1."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
                _ONE_KIND,
            )
        )
    )

    pod_selector: LabelSelector | None = None
    """Pods by their labels; of this namespace, unless there is a namespaceSelector."""
    namespace_selector: LabelSelector | None = None
    """Namespaces by their labels; every namespace has `kubernetes.io/metadata.name`."""
    ip_block: IPBlock | None = None
    """Addresses. Which address a client outside the cluster comes from depends on the Service's
    type and on the network: see docs/security.md."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> NetworkPolicyPeer:
        # What an older CRD may have let through: Kubernetes takes no peer for every peer.
        if bool(self.ip_block) == bool(self.pod_selector or self.namespace_selector):
            raise ValueError(_ONE_KIND)
        return self


Peers = Annotated[list[NetworkPolicyPeer], Field(min_length=1, max_length=32)]


class NetworkPolicy(ApiModel):
    """NetworkPolicies of the pods. They need a network that enforces them: the condition Isolated
    says whether it does."""

    enabled: bool = True
    """Whether there are NetworkPolicies. Without them everybody who reaches a pod reaches
    llama.cpp's RPC server, which runs code for whoever connects."""
    from_: Annotated[Peers | None, Field(alias="from")] = None
    """Who may reach the API; default: the pods of this namespace. For everybody:
    `[{namespaceSelector: {}}, {ipBlock: {cidr: 0.0.0.0/0}}]`."""
    monitoring: Peers | None = None
    """Who may read the state and the metrics of leaders on port 50051, besides the operator;
    default: nobody."""
