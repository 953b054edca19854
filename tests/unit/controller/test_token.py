"""The agents' token is made when pods come to need it, and never read."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from llamacluster.controller.kubeapi import (
    LEADERWORKERSETS,
    LLAMACLUSTERS,
    SECRETS,
    ApiError,
)
from tests.build import Manifest
from tests.unit.controller.build import EARLIER, pod, waiting
from tests.unit.controller.world import World


@pytest.fixture
def world() -> World:
    return World()


def token(world: World) -> str:
    made: str = world.stored(SECRETS, "x-control")["stringData"]["token"]
    return made


def starting() -> Manifest:
    """A pod that the kubelet has had for long, and starts no container of."""
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": EARLIER}
    state = waiting("ContainerCreating")
    stuck = pod(1, phase="Pending", state=state, conditions=[placed])
    stuck["spec"] = {"volumes": [{"name": "control", "secret": {"secretName": "x-control"}}]}
    return stuck


async def test_it_is_made_before_the_pods_and_goes_with_its_owner(world: World) -> None:
    world.creates()
    with capture_logs() as lines:
        await world.reconcile()
    made = [plural for plural, *_ in world.api.objects]
    assert made.index("secrets") < made.index("leaderworkersets")
    assert len(token(world)) >= 43
    [owner] = world.stored(SECRETS, "x-control")["metadata"]["ownerReferences"]
    assert owner["controller"] is True
    elsewhere = {key: value for key, value in world.api.objects.items() if key[0] != "secrets"}
    assert token(world) not in json.dumps([*elsewhere.values()]) + repr(lines)


async def test_each_llamacluster_has_its_own(world: World) -> None:
    world.creates()
    await world.reconcile()
    other = World()
    other.creates()
    await other.reconcile()
    assert token(world) != token(other)


async def test_it_is_never_read_and_made_once(world: World) -> None:
    world.creates()
    await world.reconcile()
    before = token(world)
    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": {"replicas": 2}})
    await world.reconcile()
    assert token(world) == before
    assert await world.writes() == 0
    assert "secrets" not in world.api.reads


async def test_one_that_is_there_is_left_as_it_is(world: World) -> None:
    world.api.refusals[SECRETS.name] = ApiError(409, 'secrets "x-control" already exists')
    world.creates()
    await world.reconcile()
    assert world.stored(LEADERWORKERSETS, "x-group")


async def test_a_pod_that_waits_for_a_deleted_one_gets_a_new_one(world: World) -> None:
    world.creates()
    await world.reconcile()
    before = token(world)
    world.api.remove(SECRETS, "ns", "x-control")
    world.pods(pod(0, ready=True), starting(), pod(2))
    await world.reconcile()
    assert token(world) != before


async def test_a_pod_that_has_just_got_its_node_is_not_waited_on(world: World) -> None:
    world.creates()
    await world.reconcile()
    world.api.remove(SECRETS, "ns", "x-control")
    fresh = starting()
    fresh["status"]["conditions"][-1]["lastTransitionTime"] = "2026-11-22T12:00:00Z"
    world.pods(fresh)
    await world.reconcile()
    assert not [plural for plural, *_ in world.api.objects if plural == "secrets"]
    world.now += timedelta(seconds=20)
    await world.reconcile()
    assert token(world)


async def test_groups_of_an_operator_without_tokens_run_on_without(world: World) -> None:
    """Their templates are kept until the spec changes; then there is a token first."""
    world.creates()
    await world.reconcile()
    group_set = world.stored(LEADERWORKERSETS, "x-group")
    annotations = group_set["metadata"]["annotations"]
    old = json.loads(annotations["llamacluster.dev/template"])
    for role in ("leaderTemplate", "workerTemplate"):
        spec = old[role]["spec"]
        spec["volumes"] = [v for v in spec["volumes"] if v["name"] != "control"]
        for container in spec["containers"]:
            mounts = container["volumeMounts"]
            container["volumeMounts"] = [m for m in mounts if m["name"] != "control"]
            container["args"] = [a for a in container["args"] if "token" not in a]
    annotations["llamacluster.dev/template"] = json.dumps(old, separators=(",", ":"))
    group_set["spec"]["leaderWorkerTemplate"] = old
    world.api.remove(SECRETS, "ns", "x-control")

    await world.reconcile()
    kept = world.stored(LEADERWORKERSETS, "x-group")["spec"]["leaderWorkerTemplate"]
    assert kept == old
    assert not [plural for plural, *_ in world.api.objects if plural == "secrets"]

    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": {"leader": {"threads": 3}}})
    await world.reconcile()
    new = world.stored(LEADERWORKERSETS, "x-group")["spec"]["leaderWorkerTemplate"]
    assert "control" in {v["name"] for v in new["workerTemplate"]["spec"]["volumes"]}
    assert token(world)
