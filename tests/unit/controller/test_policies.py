"""NetworkPolicies are there before the pods, and as many as there are groups."""

from __future__ import annotations

import pytest

from llamacluster.controller.kubeapi import (
    LLAMACLUSTERS,
    NETWORKPOLICIES,
    PODS,
    SERVICES,
    ApiError,
)
from tests.build import Manifest
from tests.unit.controller.build import pod
from tests.unit.controller.world import World

FOR_ALL = {"x-workers", "x-leader", "x-leader-egress", "x-plan"}


def policies(world: World) -> set[str]:
    return {name for plural, _, name in world.api.objects if plural == NETWORKPOLICIES.name}


@pytest.fixture
def world() -> World:
    return World()


async def test_the_pods_are_closed_before_there_is_any(world: World) -> None:
    world.creates_unplanned(replicas=2, rollout={"maxSurge": 1})
    await world.reconcile()
    assert policies(world) == FOR_ALL | {"x-workers-0", "x-workers-1", "x-workers-2"}
    made = [plural for plural, *_ in world.api.objects]
    assert made.index("networkpolicies") < made.index("jobs")
    peers = world.stored(NETWORKPOLICIES, "x-leader")["spec"]["ingress"][1]["from"]
    assert peers[0]["podSelector"] == {"matchLabels": {"app": "operator"}}


async def test_a_group_on_its_way_out_keeps_its_policy_as_long_as_it_has_a_pod(
    world: World,
) -> None:
    world.creates(replicas=2)
    await world.reconcile()
    world.pods(pod(0), pod(1), pod(2), pod(2, group=1))
    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": {"replicas": 1}})
    await world.reconcile()
    assert policies(world) == FOR_ALL | {"x-workers-0", "x-workers-1"}
    world.api.remove(PODS, "ns", "x-group-1-2")
    await world.reconcile()
    assert policies(world) == FOR_ALL | {"x-workers-0"}
    assert await world.writes() == 0


async def test_disabled_there_is_none_and_the_status_warns(world: World) -> None:
    world.creates()
    await world.reconcile()
    world.pods(pod(0), pod(1), pod(2))
    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": {"networkPolicy": {"enabled": False}}})
    await world.reconcile()
    assert policies(world) == set()
    found = world.condition("Isolated")
    assert (found.status, found.reason) == ("False", "PoliciesDisabled")
    assert await world.writes() == 0


async def test_a_persons_own_policy_is_left_alone(world: World) -> None:
    theirs = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": "more",
            "namespace": "ns",
            "labels": {"llamacluster.dev/cluster": "x"},
        },
    }
    world.api.put(NETWORKPOLICIES, theirs)
    world.creates()
    await world.reconcile()
    assert "more" in policies(world)


async def test_a_foreign_policy_of_our_name_is_not_taken_over(world: World) -> None:
    theirs = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "x-leader", "namespace": "ns"},
    }
    world.api.put(NETWORKPOLICIES, theirs)
    world.creates()
    await world.reconcile()
    assert "spec" not in world.stored(NETWORKPOLICIES, "x-leader")
    assert world.condition().reason == "NameConflict"


async def test_an_edit_is_taken_back_and_a_removed_one_comes_again(world: World) -> None:
    world.creates()
    await world.reconcile()
    opened: Manifest = {"spec": {"ingress": [{}]}}
    world.api.edit(NETWORKPOLICIES, "ns", "x-workers", opened)
    world.api.remove(NETWORKPOLICIES, "ns", "x-leader")
    assert await world.writes() == 2
    assert world.stored(NETWORKPOLICIES, "x-workers")["spec"]["ingress"] == []
    assert policies(world) == FOR_ALL | {"x-workers-0"}


async def test_an_operator_without_the_right_says_so_and_starts_no_pod(world: World) -> None:
    world.api.refusals[NETWORKPOLICIES.name] = ApiError(403, "networkpolicies is forbidden")
    world.creates()
    await world.reconcile()
    assert world.condition().reason == "Rejected"
    assert not [plural for plural, *_ in world.api.objects if plural == "leaderworkersets"]


async def test_a_service_that_is_refused_holds_up_no_policy(world: World) -> None:
    world.creates()
    await world.reconcile()
    world.api.refusals[SERVICES.name] = ApiError(403, "exceeded quota: services.loadbalancers")
    world.api.remove(NETWORKPOLICIES, "ns", "x-workers")
    friends = {"podSelector": {"matchLabels": {"team": "a"}}}
    changes = {
        "server": {"service": {"type": "LoadBalancer"}},
        "networkPolicy": {"from": [friends]},
    }
    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": changes})
    await world.reconcile()
    assert "exceeded quota" in world.condition().message
    assert policies(world) == FOR_ALL | {"x-workers-0"}
    let_in = world.stored(NETWORKPOLICIES, "x-leader")["spec"]["ingress"][0]["from"]
    assert let_in == [friends]
