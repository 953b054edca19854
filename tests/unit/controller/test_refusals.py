"""What the API server refuses is told, and keeps neither a group from healing nor its status from
being true."""

from __future__ import annotations

from datetime import timedelta

import pytest
from kubernetes.aio.dynamic import Resource

from llamacluster.api.status import GroupPhase
from llamacluster.controller.kubeapi import (
    LEADERWORKERSETS,
    LLAMACLUSTERS,
    NETWORKPOLICIES,
    PODDISRUPTIONBUDGETS,
    PODS,
    SECRETS,
    ApiError,
)
from llamacluster.controller.reconcile import REFUSED_SECONDS
from llamacluster.controller.status import LATER_SECONDS
from tests.unit.controller.build import leader_status
from tests.unit.controller.test_budget import NOW, group, member
from tests.unit.controller.test_token import starting
from tests.unit.controller.world import World

NO_WEBHOOK = ApiError(
    500, 'Internal error occurred: failed calling webhook "policy": connection refused'
)
QUOTA = ApiError(403, "exceeded quota: few")


@pytest.fixture
async def world() -> World:
    """Two groups that serve."""
    made = World(now=NOW)
    made.creates(replicas=2, rpc={"encryption": True})
    await made.reconcile()
    made.rolled_out(2)
    made.pods(*(p for index in (0, 1) for p in group(index).pods))
    made.agents.statuses |= {f"x-group-{index}": leader_status() for index in (0, 1)}
    await made.reconcile()
    assert made.condition().status == "True"
    return made


def lose_a_worker(world: World) -> None:
    """The node of a worker of group 0 is gone."""
    lost = member(1, 0, ready=False, deleting=True, since=60)
    lost["spec"] = {"nodeName": "gone"}
    world.pods(member(0, 0, ready=False, since=50), lost)


def there(world: World, pod: str) -> bool:
    return (PODS.name, "ns", pod) in world.api.objects


@pytest.mark.parametrize("error", [NO_WEBHOOK, QUOTA], ids=["no webhook", "quota"])
@pytest.mark.parametrize("kind", [PODDISRUPTIONBUDGETS, SECRETS], ids=lambda kind: kind.name)
async def test_a_group_heals_and_is_told_of_whatever_is_refused_beside_it(
    world: World, kind: Resource, error: ApiError
) -> None:
    world.api.refusals[kind.name] = error
    lose_a_worker(world)
    await world.reconcile()
    assert not there(world, "x-group-0-1")
    assert ("Warning", "NodeLost") in world.events()
    assert (world.condition().status, world.condition().reason) == ("False", "NodeLost")
    degraded = world.condition("Degraded")
    assert (degraded.status, degraded.reason) == ("True", "Rejected")
    assert degraded.message.startswith("the API server refused ")
    assert degraded.message.endswith(error.message)
    phases = [group.phase for group in world.status().groups]
    assert phases == [GroupPhase.RECOVERING, GroupPhase.SERVING]
    assert world.status().ready_replicas == 1

    world.pods(member(0, 0), member(1, 0))
    await world.reconcile()
    assert world.condition().status == "True"
    world.api.refusals.clear()
    world.now += timedelta(seconds=60)
    await world.reconcile()
    assert world.condition("Degraded").status == "False"
    assert await world.writes() == 0


async def test_groups_that_serve_stay_ready_while_certificates_are_not_to_be_had(
    world: World,
) -> None:
    world.api.refusals[SECRETS.name] = NO_WEBHOOK
    world.now += timedelta(hours=1)
    assert await world.reconcile() == LATER_SECONDS
    assert (world.condition().status, world.condition().reason) == ("True", "Ready")
    assert world.condition("Degraded").reason == "Rejected"
    assert world.events()[-1] == ("Warning", "Rejected")
    told = len(world.events())
    world.now += timedelta(hours=1)
    assert await world.reconcile() == REFUSED_SECONDS
    assert len(world.events()) == told


async def test_a_token_that_is_refused_keeps_nothing_else_from_being_done(world: World) -> None:
    world.api.refusals[SECRETS.name] = QUOTA
    world.pods(member(0, 0, ready=False, since=10), starting())
    await world.reconcile()
    assert world.stored(PODDISRUPTIONBUDGETS)["spec"]["maxUnavailable"] == 0
    assert world.condition("Degraded").reason == "Rejected"


async def test_a_policy_that_may_not_be_deleted_is_told(world: World) -> None:
    world.api.refusals[f"{NETWORKPOLICIES.name}/delete"] = QUOTA
    for pod in group(1).pods:
        world.api.remove(PODS, "ns", pod["metadata"]["name"])
    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": {"replicas": 1}})
    await world.reconcile()
    assert world.condition().status == "True"
    assert "NetworkPolicy x-workers-1" in world.condition("Degraded").message


async def test_a_group_heals_while_a_new_spec_is_refused_and_what_is_lost_is_told(
    world: World,
) -> None:
    world.api.refusals[LEADERWORKERSETS.name] = NO_WEBHOOK
    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": {"replicas": 3}})
    lose_a_worker(world)
    await world.reconcile()
    assert not there(world, "x-group-0-1")
    assert (world.condition().status, world.condition().reason) == ("False", "Rejected")
    assert world.status().groups[0].reason == "NodeLost"


async def test_a_lost_pod_that_may_not_be_deleted_is_told(world: World) -> None:
    world.api.refusals[f"{PODS.name}/delete"] = NO_WEBHOOK
    lose_a_worker(world)
    await world.reconcile()
    assert there(world, "x-group-0-1")
    assert world.events().count(("Warning", "NodeLost")) == 1  # not Ready, and none replaced
    assert world.condition().reason == "NodeLost"
    assert "Pod x-group-0-1" in world.condition("Degraded").message


async def test_the_first_certificates_are_waited_for() -> None:
    world = World()
    world.api.refusals[SECRETS.name] = NO_WEBHOOK
    world.creates(rpc={"encryption": True})
    await world.reconcile()
    assert world.condition().reason == "Rejected"
    assert (LEADERWORKERSETS.name, "ns", "x-group") not in world.api.objects


async def test_the_budget_of_a_predecessor_is_waited_for_without_a_word(world: World) -> None:
    budget = world.stored(PODDISRUPTIONBUDGETS)
    budget["metadata"]["ownerReferences"][0]["uid"] = "of the deleted one"
    await world.reconcile()
    assert world.condition().status == "True"
    assert world.condition("Degraded").status == "False"
