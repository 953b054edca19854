"""The API server with this checkout's CRD, and no operator but the tests' own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from llamacluster.controller.kubeapi import KubeApi, connect, load_configuration
from llamacluster.controller.operator import Options, run
from tests.build import IMAGE
from tests.conftest import fresh_namespace
from tests.kind.cluster import Cluster
from tests.kind.command import succeeds
from tests.kind.faults import wait_until
from tests.kind.host import REPOSITORY
from tests.kind.product import uninstall_operator


@pytest.fixture(scope="session")
def api_server(kind_cluster: Cluster) -> Cluster:
    uninstall_operator(kind_cluster)
    kind_cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds")
    )
    # Not `kubectl wait`: it fails on a CRD so new that it has no conditions yet.
    served = kind_cluster.kubectl_command("get", "llamaclusters")
    wait_until("LlamaClusters are served", lambda: succeeds(served), 60)
    return kind_cluster


@pytest.fixture
def namespace(api_server: Cluster) -> Iterator[str]:
    """As in tests/conftest.py, with the CRD in place."""
    with fresh_namespace(api_server) as name:
        yield name


@pytest.fixture(scope="module")
def shared_namespace(api_server: Cluster) -> Iterator[str]:
    """One namespace for the tests of a module that share it."""
    with fresh_namespace(api_server) as name:
        yield name


@pytest.fixture
async def api(api_server: Cluster) -> AsyncIterator[KubeApi]:
    """The operator's own client, as the administrator."""
    configuration = await load_configuration(str(api_server.kubeconfig), None)
    async with connect(configuration) as connected:
        yield connected


@pytest.fixture
async def operator(api_server: Cluster, namespace: str) -> AsyncIterator[None]:
    """An operator of the test's namespace, in this process."""
    configuration = await load_configuration(str(api_server.kubeconfig), None)
    options = Options(engine_image=IMAGE, namespaces=(namespace,), in_cluster=False)
    running = asyncio.create_task(run(configuration, options))
    yield
    assert not running.done(), "the operator ended by itself"
    running.cancel()
    # kopf cancels every task that began after it, and waits for its end. This is one: it must not
    # wait for kopf then, and has no need to, for the operator is all but ended.
    with suppress(asyncio.CancelledError):
        await asyncio.wait([running])
