"""The certificates of RPC encryption, on an API server in memory."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest

from llamacluster.controller.kubeapi import CONFIGMAPS, LLAMACLUSTERS, SECRETS, SERVICES, ApiError
from tests.unit.controller.build import pod
from tests.unit.controller.world import World


@pytest.fixture
def world() -> World:
    made = World()
    made.creates(rpc={"encryption": True})
    made.pods(pod(0), pod(1), pod(2))
    return made


def secret(world: World) -> dict[str, str]:
    stored = world.stored(SECRETS, "x-rpc-tls")
    return {name: base64.b64decode(text).decode() for name, text in stored["data"].items()}


def authority(world: World) -> str:
    return str(world.stored(CONFIGMAPS, "x-rpc-ca")["data"]["ca.crt"])


async def test_certificates_are_made_once(world: World) -> None:
    await world.reconcile()
    assert secret(world)["ca.crt"] == authority(world)
    assert [await world.writes() for _ in range(3)] == [0, 0, 0]


async def test_without_encryption_none_are_made() -> None:
    world = World()
    world.creates()
    await world.reconcile()
    names = {
        name for plural, _, name in world.api.objects if plural in (SECRETS.name, CONFIGMAPS.name)
    }
    assert names == {"x-control"}


async def test_before_they_end_new_ones_are_made_that_overlap(world: World) -> None:
    await world.reconcile()
    first, before = authority(world), secret(world)
    world.now += timedelta(days=61)
    await world.reconcile()
    second, after = authority(world), secret(world)
    assert second != first
    assert after["ca.crt"] == second + first
    assert after["tls.crt"] != before["tls.crt"]
    assert await world.writes() == 0
    world.now += timedelta(days=61)
    await world.reconcile()
    assert secret(world)["ca.crt"] == authority(world) + second  # the first is forgotten


async def test_they_do_not_end_because_something_else_is_refused(world: World) -> None:
    await world.reconcile()
    before = authority(world)
    world.api.refusals[SERVICES.name] = ApiError(403, "exceeded quota: services.loadbalancers")
    balanced = {"server": {"service": {"type": "LoadBalancer"}}}
    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": balanced})
    world.now += timedelta(days=61)
    await world.reconcile()
    assert "exceeded quota" in world.condition().message
    assert authority(world) != before


async def test_a_deleted_secret_is_made_again_and_trusts_the_former_authority(
    world: World,
) -> None:
    await world.reconcile()
    first = authority(world)
    world.api.remove(SECRETS, "ns", "x-rpc-tls")
    await world.reconcile()
    assert secret(world)["ca.crt"] == authority(world) + first
    assert await world.writes() == 0


async def test_what_it_knows_being_lost_new_ones_are_made(world: World) -> None:
    await world.reconcile()
    before = secret(world)
    world.api.edit(CONFIGMAPS, "ns", "x-rpc-ca", {"data": {"ca.crt": "garbage"}})
    await world.reconcile()
    assert secret(world)["ca.crt"] == authority(world) != before["ca.crt"]
    assert await world.writes() == 0


async def test_an_operator_that_ends_between_its_writes_makes_them_once_more(
    world: World,
) -> None:
    world.api.refusals["configmaps"] = ApiError(503, "not now")
    with pytest.raises(ApiError):
        await world.reconcile()
    first = secret(world)
    del world.api.refusals["configmaps"]
    await world.reconcile()
    assert secret(world)["ca.crt"] == authority(world) != first["ca.crt"]


async def test_somebody_elses_secret_is_left_alone(world: World) -> None:
    theirs = {"metadata": {"name": "x-rpc-tls", "namespace": "ns"}, "data": {"theirs": "MQ=="}}
    world.api.put(SECRETS, theirs)
    await world.reconcile()
    assert world.condition().reason == "NameConflict"
    assert "Secret x-rpc-tls exists already" in world.condition().message
    assert world.stored(SECRETS, "x-rpc-tls")["data"] == {"theirs": "MQ=="}


async def test_an_operator_without_the_right_says_so(world: World) -> None:
    world.api.refusals["secrets"] = ApiError(403, "secrets is forbidden")
    await world.reconcile()
    assert world.condition().reason == "Rejected"
    assert "x-rpc-tls: secrets is forbidden" in world.condition().message


async def test_the_operator_never_reads_a_secret(world: World) -> None:
    for _ in range(2):
        await world.reconcile()
    assert SECRETS.name not in world.api.reads
