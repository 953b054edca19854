"""Who may reach the pods: the part of networking.k8s.io/v1 that a LlamaCluster's policies need."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from llamacluster.api.scheduling import LabelSelector
from llamacluster.api.schema import ApiModel, Rule, rules

Cidr = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        pattern=r"^((\d{1,3}\.){3}\d{1,3}/([12]?\d|3[0-2])"
        r"|[0-9a-fA-F]*:[0-9a-fA-F:.]*/(\d{1,2}|1[01]\d|12[0-8]))$",
    ),
]
_ONE_KIND = (
    "a peer is either an ipBlock, or pods by podSelector, namespaceSelector or both; "
    "namespaceSelector: {} is every pod of the cluster"
)


class IPBlock(ApiModel):
    """Addresses, of clients outside the cluster."""

    cidr: Cidr
    """Range of addresses, such as 10.0.0.0/8 or fd00::/8."""
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
