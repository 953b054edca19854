"""The real API server does what the operator relies on, and what the fake of it does."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from llamacluster.controller.kubeapi import LEADERWORKERSETS, NODES, SERVICES, ApiError, KubeApi
from tests.build import Manifest
from tests.kind.cluster import Cluster
from tests.kubeapibehaviour import KubeApiBehaviour, Server, a_service

pytestmark = pytest.mark.cluster


@dataclass
class RealServer:
    """See Server."""

    api: KubeApi
    namespace: str
    cluster: Cluster

    def put_cluster(self, manifest: Manifest) -> None:
        self.cluster.kubectl("create", "-f", "-", stdin=json.dumps(manifest))

    def put_secret(self, manifest: Manifest) -> None:
        self.cluster.kubectl("create", "-f", "-", stdin=json.dumps(manifest))

    def edit_service(self, name: str, changes: Manifest) -> None:
        patch = f"--patch={json.dumps(changes)}"
        self.cluster.kubectl(
            *("patch", "service", name, f"--namespace={self.namespace}", "--type=merge", patch)
        )

    def delete_service(self, name: str) -> None:
        self.cluster.kubectl("delete", "service", name, f"--namespace={self.namespace}")


class TestKubeApi(KubeApiBehaviour):
    @pytest.fixture
    def server(self, api: KubeApi, api_server: Cluster, namespace: str) -> Server:
        return RealServer(api, namespace, api_server)

    async def test_an_invalid_object_is_refused_in_the_servers_words(self, server: Server) -> None:
        ports = [{"name": "http", "port": 0, "protocol": "TCP"}]
        with pytest.raises(ApiError, match=r"spec\.ports\[0\]\.port: Invalid value: 0") as refused:
            await server.api.apply(SERVICES, a_service(server, spec={"ports": ports}))
        assert refused.value.status == 422

    async def test_an_invalid_leaderworkerset_is_refused(self, server: Server) -> None:
        manifest = {
            "apiVersion": "leaderworkerset.x-k8s.io/v1",
            "kind": "LeaderWorkerSet",
            "metadata": {"name": "x", "namespace": server.namespace},
            "spec": {"leaderWorkerTemplate": {"size": "many"}},
        }
        with pytest.raises(ApiError) as refused:
            await server.api.apply(LEADERWORKERSETS, manifest)
        assert refused.value.status == 500
        assert "failed to create typed patch object" in refused.value.message

    async def test_nodes_are_in_no_namespace(self, server: Server, api_server: Cluster) -> None:
        [name, *_] = api_server.worker_nodes()
        node = await server.api.get(NODES, "", name)
        assert node is not None
        assert any(c["type"] == "Ready" for c in node["status"]["conditions"])
        assert await server.api.get(NODES, "", "nowhere") is None

    async def test_an_unknown_kind_is_not_found(self, server: Server) -> None:
        unknown = type(SERVICES)(
            prefix="apis",
            group="leaderworkerset.x-k8s.io",
            api_version="v1",
            kind="NoSuchKind",
            name="nosuchkinds",
            namespaced=True,
        )
        assert await server.api.get(unknown, server.namespace, "x") is None
        manifest = a_service(server) | {"kind": "NoSuchKind"}
        with pytest.raises(ApiError) as refused:
            await server.api.apply(unknown, manifest)
        assert refused.value.status == 404

    async def test_a_namespace_that_does_not_exist_is_not_found(self, server: Server) -> None:
        nowhere = a_service(server, metadata={"namespace": "no-such-namespace"})
        with pytest.raises(ApiError, match="no-such-namespace") as refused:
            await server.api.apply(SERVICES, nowhere)
        assert refused.value.status == 404
