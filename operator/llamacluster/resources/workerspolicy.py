"""The NetworkPolicies of the workers: closed to all but the leader of their own group."""

from __future__ import annotations

from llamacluster.agent.contract.places import (
    AGENT_PORT,
    LEADER_CONTAINER,
    RPC_PORT,
    WORKER_CONTAINER,
)
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.resources.metadata import Manifest, role_selector, workers_policy_name
from llamacluster.resources.networkpolicy import network_policy, tcp


def workers_policy(cluster: LlamaCluster) -> Manifest:
    """Closes the workers of all groups. They never begin a connection themselves, and look up no
    name: nothing goes out, not even to the DNS."""
    pods = role_selector(cluster, WORKER_CONTAINER)
    return network_policy(cluster, workers_policy_name(cluster), pods, ingress=[], egress=[])


def group_policy(cluster: LlamaCluster, group: int) -> Manifest:
    """Opens the workers of one group to their leader.

    One policy for each group, because a policy selects pods by constant labels: a single one could
    only say that any leader of the LlamaCluster reaches any of its workers.
    """
    leader = role_selector(cluster, LEADER_CONTAINER, group)
    rule = {
        "from": [{"podSelector": {"matchLabels": leader}}],
        "ports": tcp(AGENT_PORT, RPC_PORT),
    }
    return network_policy(
        cluster,
        workers_policy_name(cluster, group),
        role_selector(cluster, WORKER_CONTAINER, group),
        ingress=[rule],
        egress=None,
    )
