"""The NetworkPolicy of the planner's pods: they read the model's header, and nobody asks them."""

from __future__ import annotations

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.resources.metadata import Manifest, plan_policy_name, plan_selector
from llamacluster.resources.networkpolicy import DNS, model_egress, network_policy


def plan_policy(cluster: LlamaCluster) -> Manifest:
    """Nothing goes in; out go questions for the model's header, if it is elsewhere."""
    sources = model_egress(cluster)
    return network_policy(
        cluster,
        plan_policy_name(cluster),
        plan_selector(cluster),
        ingress=[],
        egress=[DNS, *sources] if sources else [],
    )
