"""Fixtures that stand on the real kind cluster."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from tests.kind.cluster import Cluster
from tests.kind.images import BuiltImages, build_images

_names = itertools.count(1)


@pytest.fixture(scope="session")
def kind_cluster() -> Cluster:
    """The tests' cluster: made when it is not there, and left for the next run."""
    cluster = Cluster(os.environ.get("LLAMACLUSTER_TEST_CLUSTER", "llamacluster-test"))
    cluster.up()
    return cluster


@pytest.fixture(scope="session")
def images(kind_cluster: Cluster) -> BuiltImages:
    """The product's two images, on every node."""
    built = build_images()
    kind_cluster.load(built.engine)
    kind_cluster.load(built.operator)
    return built


@pytest.fixture
def namespace(kind_cluster: Cluster) -> Iterator[str]:
    """An empty namespace that lets in nothing but `restricted` pods; removed afterwards."""
    name = f"test-{os.getpid()}-{next(_names)}"
    kind_cluster.kubectl("create", "namespace", name)
    kind_cluster.kubectl(
        "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted"
    )
    yield name
    kind_cluster.kubectl("delete", "namespace", name, "--wait=false")
