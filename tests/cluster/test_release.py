"""A release's life on a real API server: installed, tested, upgraded, rolled back, uninstalled.

Of a release and in a namespace of its own; the tests' own CRD, which it takes over, stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from llamacluster.controller.kubeapi import LLAMACLUSTERS, KubeApi
from tests.build import manifest
from tests.kind.cluster import Cluster
from tests.kind.images import BuiltImages
from tests.kind.product import CHART, publish_model

pytestmark = pytest.mark.cluster

RELEASE = "release"
OPERATOR = f"deployment/{RELEASE}-llamacluster-operator"
Json = dict[str, Any]


class Release:
    """Helm's commands for it."""

    def __init__(self, cluster: Cluster, images: BuiltImages, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._values = {
            "operatorImage": _image(images.operator),
            "engineImage": _image(images.engine),
            "watchNamespaces": [namespace],
            "test": {"model": {"uri": "http://tiny-model/tiny.gguf"}},
        }

    def upgrade(self, **values: Any) -> None:
        self.cluster.helm(
            *("upgrade", "--install", RELEASE, str(CHART), f"--namespace={self.namespace}"),
            *("--take-ownership", "--wait", "--timeout=3m", "--values=-"),
            stdin=json.dumps({**self._values, **values}),
        )

    def helm(self, command: str, *options: str) -> str:
        return self.cluster.helm(command, RELEASE, *options, f"--namespace={self.namespace}")

    def read(self, *what: str) -> Json:
        found: Json = json.loads(
            self.cluster.kubectl("get", *what, f"--namespace={self.namespace}", "-o", "json")
        )
        return found

    def level(self) -> str:
        """The log level that the operator runs with."""
        [container] = self.read(OPERATOR)["spec"]["template"]["spec"]["containers"]
        [level] = [arg for arg in container["args"] if arg.startswith("--log-level=")]
        return str(level)


def _image(name: str) -> Json:
    repository, tag = name.rsplit(":", 1)
    return {"repository": repository, "tag": tag}


@pytest.fixture
def release(api_server: Cluster, images: BuiltImages, namespace: str) -> Iterator[Release]:
    made = Release(api_server, images, namespace)
    yield made
    made.helm("uninstall", "--ignore-not-found", "--wait")


async def test_a_release_comes_serves_changes_and_goes(
    release: Release, images: BuiltImages, api: KubeApi
) -> None:
    cluster, namespace = release.cluster, release.namespace
    crd = ("crd", "llamaclusters.llamacluster.dev")
    identity = release.read(*crd)["metadata"]["uid"]
    release.upgrade()
    assert release.level() == "--log-level=info"

    publish_model(cluster, images, namespace)
    said = release.helm("test", "--logs", "--timeout=5m")
    assert "Succeeded" in said
    assert "answered: " in said

    await api.create(LLAMACLUSTERS, manifest("kept", namespace, replicas=0))
    kept = release.read("llc", "kept")["metadata"]["uid"]
    release.upgrade(logLevel="debug", podDisruptionBudget={"enabled": True}, replicas=1)
    assert release.level() == "--log-level=debug"
    assert release.read("pdb")["items"]
    release.helm("rollback", "1", "--wait", "--timeout=3m")
    assert release.level() == "--log-level=info"
    assert release.read(OPERATOR)["spec"]["replicas"] == 2

    release.helm("uninstall", "--wait")
    names = [one["metadata"]["name"] for one in release.read("deploy,role,rolebinding")["items"]]
    assert not [name for name in names if name.startswith(RELEASE)]
    assert release.read(*crd)["metadata"]["uid"] == identity
    assert release.read("llc", "kept")["metadata"]["uid"] == kept
