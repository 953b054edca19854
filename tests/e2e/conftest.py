"""The operator, installed from its chart as a user installs it, and groups that it runs."""

from __future__ import annotations

import pytest

from tests.e2e.live import Live
from tests.kind.cluster import Cluster
from tests.kind.images import BuiltImages
from tests.kind.product import install_operator, publish_model


@pytest.fixture(scope="session")
def operator(kind_cluster: Cluster, images: BuiltImages) -> None:
    """The operator runs in the cluster. (The cluster tests applied the CRD by hand before.)"""
    install_operator(kind_cluster, images, "--take-ownership")


@pytest.fixture(scope="module")
def group(
    kind_cluster: Cluster, images: BuiltImages, operator: None, shared_namespace: str
) -> Live:
    """examples/tiny.yaml, Ready, for all tests of a module."""
    publish_model(kind_cluster, images, shared_namespace)
    live = Live(kind_cluster, shared_namespace)
    live.apply()
    live.wait_until_ready()
    return live


@pytest.fixture
def fresh(kind_cluster: Cluster, images: BuiltImages, operator: None, namespace: str) -> Live:
    """A namespace with the tiny model, and nothing applied yet."""
    publish_model(kind_cluster, images, namespace)
    return Live(kind_cluster, namespace)
