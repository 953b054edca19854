"""The fake API server does what tests/cluster/test_kubeapi.py sees the real one do."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from llamacluster.controller.kubeapi import LLAMACLUSTERS, SECRETS, SERVICES, KubeApi
from tests.build import Manifest
from tests.fakekubeapi import FakeKubeApi
from tests.kubeapibehaviour import KubeApiBehaviour, Server


@dataclass
class FakeServer:
    """See Server."""

    fake: FakeKubeApi = field(default_factory=FakeKubeApi)
    namespace: str = "ns"

    @property
    def api(self) -> KubeApi:
        return self.fake

    def put_cluster(self, manifest: Manifest) -> None:
        self.fake.put(LLAMACLUSTERS, manifest)

    def put_secret(self, manifest: Manifest) -> None:
        self.fake.put(SECRETS, manifest)

    def edit_service(self, name: str, changes: Manifest) -> None:
        self.fake.edit(SERVICES, self.namespace, name, changes)

    def delete_service(self, name: str) -> None:
        self.fake.remove(SERVICES, self.namespace, name)


class TestFakeKubeApi(KubeApiBehaviour):
    @pytest.fixture
    def server(self) -> Server:
        return FakeServer()
