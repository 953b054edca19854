"""The PodDisruptionBudget: what a node drain may take at the moment."""

from __future__ import annotations

from collections.abc import Sequence

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.resources.metadata import (
    LWS_GROUP_INDEX_LABEL,
    Manifest,
    budget_name,
    groups_selector,
    object_metadata,
)


def pod_disruption_budget(cluster: LlamaCluster, down: Sequence[int], allowed: int) -> Manifest:
    """A budget of `allowed` pods over all groups but those that are `down` already: to take the
    rest of these costs nothing, and to take it later would bring them down once more.

    Eviction knows pods, not groups: any pod of a group takes the whole group with it. A pod that is
    not Ready may always go.
    """
    selector = groups_selector(cluster)
    if down:
        indexes = [str(index) for index in down]
        others = {"key": LWS_GROUP_INDEX_LABEL, "operator": "NotIn", "values": indexes}
        selector["matchExpressions"].append(others)
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": object_metadata(cluster, budget_name(cluster)),
        "spec": {
            "maxUnavailable": allowed,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": selector,
        },
    }
