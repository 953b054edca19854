"""The NetworkPolicies of the leaders: the API for those that the user names, their state for the
operator and for monitoring."""

from __future__ import annotations

from llamacluster.agent.contract.places import (
    AGENT_PORT,
    LEADER_CONTAINER,
    RPC_PORT,
    WORKER_CONTAINER,
)
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.resources.metadata import Manifest, leader_policy_name, role_selector
from llamacluster.resources.networkpolicy import (
    DNS,
    OperatorPods,
    model_egress,
    network_policy,
    tcp,
)
from llamacluster.resources.pod import as_manifest


def leader_policy(cluster: LlamaCluster, operator: OperatorPods | None) -> Manifest:
    """`operator` is None for one that runs outside the cluster: no policy can name it."""
    wanted, port = cluster.spec.network_policy, cluster.spec.server.port
    # A podSelector alone: the pods of the policy's own namespace.
    clients = [as_manifest(peer) for peer in wanted.from_ or []] or [{"podSelector": {}}]
    watchers = [as_manifest(peer) for peer in wanted.monitoring or []]
    if operator:
        watchers.insert(0, operator.peer)
    ingress: list[Manifest] = [{"from": clients, "ports": tcp(port)}]
    if watchers:  # a rule from nobody would be one from everybody
        ingress.append({"from": watchers, "ports": tcp(AGENT_PORT)})
    return network_policy(
        cluster,
        leader_policy_name(cluster),
        role_selector(cluster, LEADER_CONTAINER),
        ingress,
        egress=None,
    )


def leader_egress_policy(cluster: LlamaCluster) -> Manifest:
    """Apart from what comes in: where one policy says both, kube-router (1.6, seen) takes its
    egress rules for ingress rules between two pods that it selects, and any leader reached every
    port of any other."""
    workers = role_selector(cluster, WORKER_CONTAINER)
    to_workers = {
        "to": [{"podSelector": {"matchLabels": workers}}],
        "ports": tcp(AGENT_PORT, RPC_PORT),
    }
    return network_policy(
        cluster,
        f"{leader_policy_name(cluster)}-egress",
        role_selector(cluster, LEADER_CONTAINER),
        ingress=None,
        egress=[to_workers, DNS, *model_egress(cluster)],
    )
