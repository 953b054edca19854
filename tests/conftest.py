"""Fixtures that stand on the real kind cluster."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.kind.cluster import Cluster
from tests.kind.images import BuiltImages, build_images

_names = itertools.count(1)
settings.register_profile("default", deadline=None)  # a busy machine is no failure
_ON_THE_CLUSTER = ("tests/cluster/", "tests/e2e/", "tests/chaos/")


class TwoLines(LoadScopeScheduling):  # type: ignore[misc] # xdist tells no types
    """Tests wait more than they work, so two lines of them run beside one another: the cluster has
    room for one at a time; what needs no cluster is the other."""

    def _split_scope(self, nodeid: str) -> str:
        return "cluster" if nodeid.startswith(_ON_THE_CLUSTER) else "host"


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> TwoLines:
    """With `-n 2 --dist loadscope`."""
    return TwoLines(config, log)


@pytest.fixture(scope="session")
def kind_cluster() -> Cluster:
    """The tests' cluster: made when it is not there or outdated, and left for the next run."""
    cluster = Cluster(os.environ.get("LLAMACLUSTER_TEST_CLUSTER", "llamacluster-test"))
    cluster.up(renew=True)
    return cluster


@pytest.fixture(scope="session")
def images(kind_cluster: Cluster) -> BuiltImages:
    """The product's two images, on every node."""
    built = build_images()
    kind_cluster.load(built.engine)
    kind_cluster.load(built.operator)
    return built


@contextlib.contextmanager
def fresh_namespace(cluster: Cluster) -> Iterator[str]:
    """An empty namespace that lets in nothing but `restricted` pods; removed afterwards."""
    name = f"test-{os.getpid()}-{next(_names)}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def namespace(kind_cluster: Cluster) -> Iterator[str]:
    """A namespace for one test."""
    with fresh_namespace(kind_cluster) as name:
        yield name


@pytest.fixture(scope="module")
def shared_namespace(kind_cluster: Cluster) -> Iterator[str]:
    """A namespace for all tests of a module."""
    with fresh_namespace(kind_cluster) as name:
        yield name
