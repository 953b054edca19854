"""What the chart lets the operator do, and no more (test_chart.py); the operator uses each of these
rights and no other (controller/test_rights.py)."""

from __future__ import annotations

Rights = dict[tuple[str, str], set[str]]
"""Verbs by API group and resource."""

IN_NAMESPACES: Rights = {
    ("llamacluster.dev", "llamaclusters"): {"get", "list", "watch"},
    ("llamacluster.dev", "llamaclusters/status"): {"patch"},
    ("leaderworkerset.x-k8s.io", "leaderworkersets"): {"get", "list", "watch", "create", "patch"},
    ("", "services"): {"get", "list", "watch", "create", "patch"},
    ("policy", "poddisruptionbudgets"): {"get", "list", "watch", "create", "patch"},
    ("networking.k8s.io", "networkpolicies"): {
        *("get", "list", "watch", "create", "patch", "delete"),
    },
    ("batch", "jobs"): {"get", "list", "create", "patch", "delete"},
    ("", "pods"): {"list", "watch", "delete"},
    ("", "secrets"): {"create", "patch"},
    ("", "configmaps"): {"get", "create", "patch"},
    ("", "persistentvolumeclaims"): {"get"},
    ("", "events"): {"create"},
}
IN_ALL_NAMESPACES: Rights = {
    ("apiextensions.k8s.io", "customresourcedefinitions"): {"list", "watch"},
}
"""Only where it watches all."""
OF_NODES: Rights = {("", "nodes"): {"get"}}


def each(*rights: Rights) -> set[tuple[str, str, str]]:
    """API group, resource and verb."""
    return {(*what, verb) for some in rights for what, verbs in some.items() for verb in verbs}
