"""What the operator relies on of an API server: a test class for the real one and for the fake."""

from __future__ import annotations

from typing import Protocol

import pytest

from llamacluster.controller.kubeapi import (
    EVENTS,
    LEASES,
    LLAMACLUSTERS,
    SECRETS,
    SERVICES,
    ApiError,
    KubeApi,
)
from llamacluster.resources.metadata import FIELD_MANAGER
from tests.build import Manifest, manifest


class Server(Protocol):
    """An API server, and what somebody else does with it."""

    namespace: str

    @property
    def api(self) -> KubeApi: ...

    def put_cluster(self, manifest: Manifest) -> None:
        """Somebody makes a LlamaCluster."""

    def put_secret(self, manifest: Manifest) -> None:
        """Somebody makes a Secret."""

    def edit_service(self, name: str, changes: Manifest) -> None:
        """Somebody changes a Service by a merge patch."""

    def delete_service(self, name: str) -> None:
        """Somebody deletes a Service."""


def a_secret(server: Server, name: str, value: str = "MQ==") -> Manifest:
    """A Secret as the operator would apply it."""
    metadata = {"name": name, "namespace": server.namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"a": value}}


def a_service(server: Server, name: str = "s", **changes: Manifest) -> Manifest:
    """A Service as the operator would apply it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": server.namespace,
            "labels": {"a": "1", "b": "1"},
            **changes.get("metadata", {}),
        },
        "spec": {
            "selector": {"app": "x"},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            **changes.get("spec", {}),
        },
    }


class KubeApiBehaviour:
    """Subclasses give a fixture `server`."""

    async def test_what_is_not_there_is_none(self, server: Server) -> None:
        assert await server.api.get(SERVICES, server.namespace, "s") is None

    async def test_a_path_tells_whether_the_kind_is_known(self, server: Server) -> None:
        group = LLAMACLUSTERS.group_version
        assert (await server.api.get_raw(f"/apis/{group}", 10))["kind"] == "APIResourceList"
        with pytest.raises(ApiError) as refused:
            await server.api.get_raw(f"/apis/{group}x", 10)
        assert refused.value.status == 404

    async def test_an_applied_object_can_be_read(self, server: Server) -> None:
        await server.api.apply(SERVICES, a_service(server))
        live = await server.api.get(SERVICES, server.namespace, "s")
        assert live is not None
        assert live["kind"] == "Service"
        assert live["metadata"]["uid"]
        assert live["spec"]["selector"] == {"app": "x"}

    async def test_what_others_have_made_is_not_taken_over(self, server: Server) -> None:
        theirs = a_secret(server, "theirs")
        await server.api.apply_ours(SECRETS, a_secret(server, "ours"))
        await server.api.apply_ours(SECRETS, a_secret(server, "ours", "Mg=="))
        server.put_secret(theirs)
        with pytest.raises(ApiError) as refused:
            await server.api.apply_ours(SECRETS, a_secret(server, "theirs", "Mg=="))
        assert refused.value.status == 409

    async def test_what_is_missing_is_known_without_reading(self, server: Server) -> None:
        assert await server.api.is_missing(SECRETS, server.namespace, "s")
        assert await server.api.is_missing(SECRETS, server.namespace, "s")
        await server.api.apply_ours(SECRETS, a_secret(server, "s"))
        assert not await server.api.is_missing(SECRETS, server.namespace, "s")

    async def test_the_same_apply_again_changes_nothing(self, server: Server) -> None:
        first = await server.api.apply(SERVICES, a_service(server))
        second = await server.api.apply(SERVICES, a_service(server))
        assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]

    async def test_what_others_added_stays(self, server: Server) -> None:
        await server.api.apply(SERVICES, a_service(server))
        others = {
            "metadata": {"labels": {"theirs": "1"}, "annotations": {"theirs": "1"}},
            "spec": {"sessionAffinity": "ClientIP"},
        }
        server.edit_service("s", others)
        after = await server.api.apply(SERVICES, a_service(server))
        assert after["metadata"]["labels"] == {"a": "1", "b": "1", "theirs": "1"}
        assert after["metadata"]["annotations"] == {"theirs": "1"}
        assert after["spec"]["sessionAffinity"] == "ClientIP"

    async def test_what_others_changed_is_taken_back(self, server: Server) -> None:
        await server.api.apply(SERVICES, a_service(server))
        server.edit_service("s", {"metadata": {"labels": {"a": "theirs"}}})
        after = await server.api.apply(SERVICES, a_service(server))
        assert after["metadata"]["labels"]["a"] == "1"

    async def test_what_is_not_applied_any_more_goes(self, server: Server) -> None:
        await server.api.apply(SERVICES, a_service(server))
        after = await server.api.apply(SERVICES, a_service(server, metadata={"labels": {"a": "1"}}))
        assert after["metadata"]["labels"] == {"a": "1"}

    async def test_objects_are_listed_by_all_their_labels(self, server: Server) -> None:
        await server.api.apply(SERVICES, a_service(server, "s1"))
        await server.api.apply(
            SERVICES, a_service(server, "s2", metadata={"labels": {"a": "1", "b": "2"}})
        )
        found = await server.api.list(SERVICES, server.namespace, "a=1,b=2")
        assert [service["metadata"]["name"] for service in found] == ["s2"]
        assert (found[0]["apiVersion"], found[0]["kind"]) == ("v1", "Service")

    async def test_no_more_objects_are_listed_than_asked_for(self, server: Server) -> None:
        for name in ("s1", "s2"):
            await server.api.apply(SERVICES, a_service(server, name))
        assert len(await server.api.list(SERVICES, server.namespace, "a=1", limit=1)) == 1

    async def test_what_the_operator_deletes_is_gone_and_may_be_gone_already(
        self, server: Server
    ) -> None:
        await server.api.apply(SERVICES, a_service(server))
        for _ in range(2):
            await server.api.delete(SERVICES, server.namespace, "s")
            assert await server.api.get(SERVICES, server.namespace, "s") is None

    async def test_only_this_very_object_is_deleted_at_once(self, server: Server) -> None:
        first = await server.api.apply(SERVICES, a_service(server))
        for _ in range(2):
            await server.api.delete_at_once(SERVICES, first)
            assert await server.api.get(SERVICES, server.namespace, "s") is None
        second = await server.api.apply(SERVICES, a_service(server))
        await server.api.delete_at_once(SERVICES, first)
        assert await server.api.get(SERVICES, server.namespace, "s") == second

    async def test_a_persons_annotation_stays_until_it_is_taken_away(self, server: Server) -> None:
        async def annotations() -> Manifest:
            live = await server.api.get(SERVICES, server.namespace, "s")
            assert live is not None
            found: Manifest = live["metadata"].get("annotations", {})
            return found

        await server.api.apply(SERVICES, a_service(server))
        await server.api.annotate(SERVICES, server.namespace, "s", {"a": "1", "b": "2"})
        await server.api.apply(SERVICES, a_service(server))
        await server.api.annotate(SERVICES, server.namespace, "s", {"b": None})
        assert await annotations() == {"a": "1"}
        with pytest.raises(ApiError) as refused:
            await server.api.annotate(SERVICES, server.namespace, "none", {"a": "1"})
        assert refused.value.status == 404

    async def test_a_deleted_object_is_made_anew(self, server: Server) -> None:
        first = await server.api.apply(SERVICES, a_service(server))
        server.delete_service("s")
        assert await server.api.get(SERVICES, server.namespace, "s") is None
        second = await server.api.apply(SERVICES, a_service(server))
        assert first["metadata"]["uid"] != second["metadata"]["uid"]

    async def test_a_status_is_written_beside_the_spec(self, server: Server) -> None:
        before = await self._cluster(server)
        after = await server.api.apply_status(LLAMACLUSTERS, self._status(before, 3))
        assert after["status"]["replicas"] == 3
        assert after["spec"] == before["spec"]
        assert after["metadata"]["generation"] == before["metadata"]["generation"]

    async def test_a_status_field_that_is_not_applied_any_more_goes(self, server: Server) -> None:
        status = self._status(await self._cluster(server), 3)
        status["status"]["endpoint"] = "http://x"
        between = await server.api.apply_status(LLAMACLUSTERS, status)
        after = await server.api.apply_status(LLAMACLUSTERS, self._status(between, 3))
        assert "endpoint" not in after["status"]

    async def test_the_status_of_what_is_gone_is_refused(self, server: Server) -> None:
        gone = manifest("gone", server.namespace)
        with pytest.raises(ApiError) as refused:
            await server.api.apply_status(LLAMACLUSTERS, self._status(gone, 1))
        assert refused.value.status == 404

    async def test_a_status_made_from_an_older_version_is_refused(self, server: Server) -> None:
        status = self._status(await self._cluster(server), 1)
        await server.api.apply_status(LLAMACLUSTERS, status)
        status["status"]["replicas"] = 2
        with pytest.raises(ApiError) as refused:
            await server.api.apply_status(LLAMACLUSTERS, status)
        assert refused.value.status == 409

    async def test_a_created_object_gets_a_name(self, server: Server) -> None:
        event = self._event(server)
        first = await server.api.create(EVENTS, event)
        second = await server.api.create(EVENTS, event)
        assert first["metadata"]["name"].startswith("x.")
        assert first["metadata"]["name"] != second["metadata"]["name"]

    async def test_an_object_that_is_there_is_not_created(self, server: Server) -> None:
        await server.api.create(LEASES, self._lease(server))
        with pytest.raises(ApiError) as refused:
            await server.api.create(LEASES, self._lease(server))
        assert refused.value.status == 409

    async def test_an_object_is_replaced_as_a_whole(self, server: Server) -> None:
        made = await server.api.create(LEASES, self._lease(server))
        del made["spec"]["holderIdentity"]
        await server.api.replace(LEASES, made)
        live = await server.api.get(LEASES, server.namespace, "l")
        assert live is not None
        assert live["spec"] == {"leaseDurationSeconds": 12}
        assert live["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]

    async def test_an_older_version_replaces_nothing(self, server: Server) -> None:
        made = await server.api.create(LEASES, self._lease(server))
        newer = {**made, "spec": {"holderIdentity": "b"}}
        await server.api.replace(LEASES, newer)
        with pytest.raises(ApiError) as refused:
            await server.api.replace(LEASES, made)
        assert refused.value.status == 409

    async def test_what_is_not_there_is_not_replaced(self, server: Server) -> None:
        made = await server.api.create(LEASES, self._lease(server))
        await server.api.delete(LEASES, server.namespace, "l")
        with pytest.raises(ApiError) as refused:
            await server.api.replace(LEASES, made)
        assert refused.value.status in (404, 409)

    async def test_writes_are_counted_and_reads_are_not(self, server: Server) -> None:
        cluster = await self._cluster(server)
        await server.api.get(SERVICES, server.namespace, "s")
        await server.api.list(SERVICES, server.namespace, "a=1")
        assert server.api.writes == 0
        await server.api.apply(SERVICES, a_service(server))
        await server.api.apply_status(LLAMACLUSTERS, self._status(cluster, 1))
        await server.api.create(EVENTS, self._event(server))
        await server.api.delete(SERVICES, server.namespace, "s")
        assert server.api.writes == 4

    async def _cluster(self, server: Server) -> Manifest:
        server.put_cluster(manifest("x", server.namespace))
        cluster = await server.api.get(LLAMACLUSTERS, server.namespace, "x")
        assert cluster is not None
        return cluster

    def _status(self, cluster: Manifest, replicas: int) -> Manifest:
        metadata = {
            key: cluster["metadata"][key]
            for key in ("name", "namespace", "resourceVersion")
            if key in cluster["metadata"]
        }
        return {
            "apiVersion": cluster["apiVersion"],
            "kind": cluster["kind"],
            "metadata": metadata,
            "status": {"replicas": replicas},
        }

    def _lease(self, server: Server) -> Manifest:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "l", "namespace": server.namespace},
            "spec": {"holderIdentity": "a", "leaseDurationSeconds": 12},
        }

    def _event(self, server: Server) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": "x.", "namespace": server.namespace},
            "involvedObject": {"kind": "Service", "namespace": server.namespace, "name": "s"},
            "reason": "Ready",
            "message": "m",
            "type": "Normal",
            "reportingComponent": FIELD_MANAGER,
            "source": {"component": FIELD_MANAGER},
        }
