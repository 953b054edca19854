"""The operator, installed from its chart as a user installs it, and groups that it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from tests.conftest import fresh_namespace
from tests.e2e.live import Live
from tests.kind.cluster import Cluster
from tests.kind.images import BuiltImages
from tests.kind.product import install_operator, publish_model

NewNamespace = Callable[[], AbstractContextManager[Live]]


@pytest.fixture(scope="session")
def operator(kind_cluster: Cluster, images: BuiltImages) -> None:
    """The operator runs in the cluster. (The cluster tests applied the CRD by hand before.)"""
    install_operator(kind_cluster, images, "--take-ownership")


@pytest.fixture(scope="package")
def new_namespace(
    kind_cluster: Cluster, images: BuiltImages, operator: None
) -> Iterator[NewNamespace]:
    """Namespaces with the tiny model, and nothing applied yet. One is always made ahead, while the
    test before runs: a model server is little work, but takes seconds to be there."""

    def make() -> tuple[ExitStack, Live]:
        with ExitStack() as stack:
            name = stack.enter_context(fresh_namespace(kind_cluster))
            publish_model(kind_cluster, images, name)
            return stack.pop_all(), Live(kind_cluster, name)

    with ThreadPoolExecutor(1) as pool:
        ahead = [pool.submit(make)]

        @contextmanager
        def take() -> Iterator[Live]:
            ready = ahead.pop()
            ahead.append(pool.submit(make))
            stack, live = ready.result()
            with stack:
                yield live

        yield take
        for unused in ahead:
            if not unused.exception():
                unused.result()[0].close()


@pytest.fixture(scope="module")
def published(new_namespace: NewNamespace) -> Iterator[Live]:
    """A namespace for all tests of a module."""
    with new_namespace() as live:
        yield live


@pytest.fixture(scope="module")
def group(published: Live) -> Live:
    """examples/tiny.yaml, Ready, for all tests of a module."""
    published.apply()
    published.wait_until_ready()
    return published


@pytest.fixture
def fresh(new_namespace: NewNamespace) -> Iterator[Live]:
    """A namespace for one test."""
    with new_namespace() as live:
        yield live
