"""The API server with this checkout's CRD, and no operator but the tests' own."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from llamacluster.controller.kubeapi import KubeApi, connect, load_configuration
from tests.kind.cluster import Cluster
from tests.kind.host import REPOSITORY
from tests.kind.product import uninstall_operator

_names = itertools.count(1)


@pytest.fixture(scope="session")
def api_server(kind_cluster: Cluster) -> Cluster:
    uninstall_operator(kind_cluster)
    kind_cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds")
    )
    kind_cluster.kubectl(
        *("wait", "--for=condition=Established", "--timeout=30s"),
        "crd/llamaclusters.llamacluster.dev",
    )
    return kind_cluster


@pytest.fixture
def namespace(api_server: Cluster) -> Iterator[str]:
    """As in tests/conftest.py, with the CRD in place."""
    yield from _namespace(api_server)


@pytest.fixture(scope="module")
def shared_namespace(api_server: Cluster) -> Iterator[str]:
    """One namespace for the tests of a module that share it."""
    yield from _namespace(api_server)


def _namespace(cluster: Cluster) -> Iterator[str]:
    name = f"test-{os.getpid()}-cluster-{next(_names)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
async def api(api_server: Cluster) -> AsyncIterator[KubeApi]:
    """The operator's own client, as the administrator."""
    configuration = await load_configuration(str(api_server.kubeconfig), None)
    async with connect(configuration) as connected:
        yield connected
