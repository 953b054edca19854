"""Fixtures that stand on the real kind cluster."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.kind.cluster import Cluster
from tests.kind.images import BuiltImages, build_images

_names = itertools.count(1)
settings.register_profile("default", deadline=None)  # a busy machine is no failure


@pytest.fixture(scope="session")
def kind_cluster() -> Iterator[Cluster]:
    """The tests' cluster: made when it is not there or outdated, and left for the next run."""
    cluster = Cluster(os.environ.get("LLAMACLUSTER_TEST_CLUSTER", "llamacluster-test"))
    with cluster.lent():
        yield cluster


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
