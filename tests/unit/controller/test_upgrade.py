"""A newer operator restarts nothing until it is asked to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llamacluster.api.status import UpgradeStatus
from llamacluster.controller.kubeapi import JOBS, LEADERWORKERSETS, LLAMACLUSTERS
from llamacluster.controller.upgrade import differences
from llamacluster.resources import pod
from llamacluster.resources.metadata import UPGRADE_ANNOTATION
from tests.build import IMAGE, Manifest, plan_answer
from tests.unit.controller.world import World

NEWER = "localhost/engine:2"


@pytest.fixture
async def world() -> World:
    """A LlamaCluster that runs, and a newer operator since."""
    made = World()
    made.creates()
    await made.reconcile()
    made.rolled_out()
    await made.reconcile()
    assert made.status().upgrade is None
    made.image = NEWER
    return made


def template(world: World) -> Manifest:
    found: Manifest = world.stored(LEADERWORKERSETS, "x-group")["spec"]["leaderWorkerTemplate"]
    return found


def image(world: World) -> str:
    found: str = template(world)["leaderTemplate"]["spec"]["containers"][0]["image"]
    return found


def offered(world: World) -> UpgradeStatus:
    found = world.status().upgrade
    assert found is not None
    return found


async def ask(world: World, wanted: str | None) -> None:
    await world.api.annotate(LEADERWORKERSETS, "ns", "x-group", {UPGRADE_ANNOTATION: wanted})


async def test_it_is_told_of_and_not_applied(world: World) -> None:
    await world.reconcile()
    upgrade = offered(world)
    assert (upgrade.image, upgrade.requested) == (NEWER, False)
    change = f"leaderTemplate.spec.containers[leader].image: {IMAGE} -> {NEWER}"
    assert change in upgrade.changes
    assert image(world) == IMAGE
    assert await world.writes() == 0


async def test_other_templates_of_the_same_image_are_an_upgrade_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.image = IMAGE
    monkeypatch.setattr(pod, "AGENT_UID", 10002)
    before = template(world)
    await world.reconcile()
    path = "workerTemplate.spec.securityContext.runAsUser"
    assert f"{path}: 10001 -> 10002" in offered(world).changes
    assert template(world) == before
    await ask(world, offered(world).id)
    await world.reconcile()
    assert template(world)["workerTemplate"]["spec"]["securityContext"]["runAsUser"] == 10002
    assert world.status().upgrade is None
    assert await world.writes() == 0


async def test_what_is_asked_for_is_planned_and_rolled_out_once(world: World) -> None:
    await world.reconcile()
    await ask(world, offered(world).id)
    await world.reconcile()
    assert world.condition("Planned").reason == "Planning"
    assert offered(world).requested
    assert image(world) == IMAGE
    world.planner(plan_answer())
    await world.reconcile()
    assert image(world) == NEWER
    assert world.status().upgrade is None
    assert world.condition("Progressing").reason == "RollingOut"
    world.rolled_out()
    await world.reconcile()
    assert await world.writes() == 0

    world.image = "localhost/engine:3"
    await world.reconcile()
    assert not offered(world).requested, "an old request is not for a later upgrade"
    assert image(world) == NEWER


async def test_an_upgrade_that_does_not_fit_changes_nothing_and_can_be_taken_back(
    world: World,
) -> None:
    await world.reconcile()
    await ask(world, offered(world).id)
    await world.reconcile()
    world.planner(plan_answer(fits=False))
    await world.reconcile()
    assert world.condition("Planned").reason == "DoesNotFit"
    assert image(world) == IMAGE
    assert offered(world).requested
    assert [await world.writes() for _ in range(2)] == [0, 0]

    await ask(world, None)
    await world.reconcile()
    world.planner(plan_answer())
    await world.reconcile()
    assert world.condition("Planned").status == "True"
    assert image(world) == IMAGE
    assert not offered(world).requested


async def test_a_request_for_another_upgrade_is_not_honoured(world: World) -> None:
    await ask(world, "0123456789abcdef")
    await world.reconcile()
    assert not offered(world).requested
    assert [name for name in world.api.objects if name[0] == JOBS.name] == []


async def test_a_changed_spec_brings_the_upgrade_with_it(world: World) -> None:
    await world.reconcile()
    spec = {"spec": {"leader": {"threads": 3}}}
    world.api.edit(LLAMACLUSTERS, "ns", "x", spec)
    await world.reconcile()
    assert world.status().upgrade is None


def lines(before: Any, after: Any) -> list[str]:
    found: Iterator[str] = differences(before, after)
    return list(found)


def test_differences_are_told_by_name_and_as_they_stand_in_the_manifest() -> None:
    before = {"args": ["a", "--x=1"], "c": [{"name": "l", "image": "i:1"}], "same": 1}
    after = {"args": ["a", "--x=2"], "c": [{"name": "l", "image": "i:2"}], "same": 1, "new": True}
    assert lines(before, after) == [
        "args: without --x=1",
        "args: with --x=2",
        "c[l].image: i:1 -> i:2",
        "new: nothing -> true",
    ]
    assert lines(before, before) == []
