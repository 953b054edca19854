"""The chart's objects are such as a real API server takes."""

from __future__ import annotations

import json

import pytest

from tests.kind.cluster import Cluster
from tests.kind.product import CHART

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("some_namespaces", [False, True], ids=["all namespaces", "one namespace"])
def test_the_api_server_takes_every_object_of_the_chart(
    api_server: Cluster, shared_namespace: str, some_namespaces: bool
) -> None:
    values = {
        "watchNamespaces": [shared_namespace] if some_namespaces else [],
        "metrics": {"enabled": True},
        "monitoring": {"dashboards": {"enabled": True}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "a"},
        "imagePullSecrets": [{"name": "a"}],
        "tolerations": [{"operator": "Exists"}],
        "commonLabels": {"team": "a"},
        "podDisruptionBudget": {"enabled": True},
        "networkPolicy": {"enabled": True},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
            }
        ],
    }
    objects = api_server.helm(
        *("template", "llamacluster", str(CHART), f"--namespace={shared_namespace}"),
        # Without those of `helm test`, whose pod would need its service account to be there.
        *("--kube-version=1.36", "--no-hooks", "--values=-"),
        stdin=json.dumps(values),
    )
    said = api_server.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"),
        *("-f", "-"),
        stdin=objects,
    )
    assert "deployment.apps/llamacluster-operator serverside-applied (server dry run)" in said
    assert "Warning" not in said
