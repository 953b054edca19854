"""Whether the network enforces NetworkPolicies is tried seldom, and said once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from llamacluster.controller.agents import in_words
from llamacluster.controller.isolation import FOLLOWED_SECONDS
from llamacluster.controller.kubeapi import LLAMACLUSTERS, NETWORKPOLICIES
from llamacluster.controller.status import SETTLED_SECONDS
from tests.unit.controller.build import NOW, leader_status, pod
from tests.unit.controller.world import World


@pytest.fixture
async def world() -> World:
    """A LlamaCluster whose group has been Ready for long."""
    world = World()
    world.creates()
    await world.reconcile()
    world.rolled_out()
    world.pods(pod(0, ready=True), pod(1, ready=True), pod(2, ready=True))
    world.agents.statuses["x-group-0"] = leader_status()
    return world


def isolated(world: World) -> tuple[str, str]:
    found = world.condition("Isolated")
    return found.status.value, found.reason


@pytest.mark.parametrize(
    ("reached", "said"),
    [
        (False, ("True", "PoliciesEnforced")),
        (True, ("False", "PoliciesNotEnforced")),
        (None, ("Unknown", "PoliciesUnproven")),
    ],
)
async def test_what_came_of_the_try_is_said(
    world: World, reached: bool | None, said: tuple[str, str]
) -> None:
    assert isolated(world) == ("Unknown", "PoliciesUnproven")
    world.agents.reached = reached
    await world.reconcile()
    assert world.agents.tried == ["x-group-0-1"]
    assert isolated(world) == said
    assert await world.writes() == 0
    assert (("Warning", "PoliciesNotEnforced") in world.events()) is (reached is True)


async def test_nothing_is_tried_at_a_group_that_just_became_ready(world: World) -> None:
    fresh = pod(1, ready=True)
    fresh["status"]["conditions"][0]["lastTransitionTime"] = NOW
    world.pods(fresh, pod(2))
    await world.reconcile()
    assert world.agents.tried == []
    world.now += timedelta(seconds=FOLLOWED_SECONDS)
    await world.reconcile()
    assert world.agents.tried == ["x-group-0-1"]


async def test_a_worker_that_is_ready_later_than_its_leader_is_tried_too(world: World) -> None:
    fresh = pod(1, ready=True)
    later = world.now + timedelta(seconds=1)
    fresh["status"]["conditions"][0]["lastTransitionTime"] = in_words(later)
    world.pods(fresh, pod(2))
    await world.reconcile()
    world.now += timedelta(seconds=SETTLED_SECONDS)
    assert await world.reconcile() == FOLLOWED_SECONDS
    assert world.agents.tried == []
    world.now += timedelta(seconds=FOLLOWED_SECONDS)
    await world.reconcile()
    assert world.agents.tried == ["x-group-0-1"]


async def test_a_worker_that_is_slow_to_answer_is_tried_again(world: World) -> None:
    world.agents.reached = TimeoutError()
    await world.reconcile()
    world.now += timedelta(seconds=SETTLED_SECONDS)
    assert await world.reconcile() == FOLLOWED_SECONDS
    assert isolated(world) == ("Unknown", "PoliciesUnproven")
    world.agents.reached = False
    assert await world.reconcile() is None
    assert isolated(world) == ("True", "PoliciesEnforced")


async def test_the_network_has_time_to_follow_new_policies(world: World) -> None:
    await world.reconcile()
    assert isolated(world) == ("True", "PoliciesEnforced")
    world.agents.tried.clear()
    world.now += timedelta(hours=1)
    world.api.remove(NETWORKPOLICIES, "ns", "x-workers")
    world.agents.reached = True
    assert await world.reconcile() == FOLLOWED_SECONDS
    assert world.agents.tried == []
    assert isolated(world) == ("True", "PoliciesEnforced")
    assert await world.reconcile() is None
    assert isolated(world) == ("False", "PoliciesNotEnforced")


async def test_what_was_found_stays_while_a_group_comes_back(world: World) -> None:
    world.agents.reached = True
    await world.reconcile()
    world.pods(pod(0))
    world.agents.reached = False
    await world.reconcile()
    assert isolated(world) == ("False", "PoliciesNotEnforced")


async def test_disabled_policies_are_not_tried(world: World) -> None:
    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": {"networkPolicy": {"enabled": False}}})
    await world.reconcile()
    assert world.agents.tried == []
    assert isolated(world) == ("False", "PoliciesDisabled")
