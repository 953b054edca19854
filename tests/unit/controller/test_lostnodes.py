"""Pods on nodes that are lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llamacluster.controller.kubeapi import NODES, PERSISTENTVOLUMECLAIMS, PODS, ApiError
from llamacluster.controller.lostnodes import OVERDUE_SECONDS, Loss, judge
from tests.build import Manifest
from tests.unit.controller.build import leader_status, pod
from tests.unit.controller.world import World

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TOLERATED = 30


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def node(ready: str = "Unknown", seconds: float = 100, name: str = "n") -> Manifest:
    """A node whose readiness is so since `seconds` ago."""
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": ago(seconds)}
    return {
        "metadata": {"name": name, "namespace": ""},
        "status": {"conditions": [{"type": "DiskPressure", "status": "False"}, condition]},
    }


def on_node(
    worker: int = 1, *, deleted: float | None = None, name: str = "n", **fields: Any
) -> Manifest:
    """A pod on node `name`; `deleted`: its grace period ended so many seconds ago."""
    made = pod(worker, **fields)
    made["spec"] = {"nodeName": name}
    if deleted is not None:
        made["metadata"]["deletionTimestamp"] = ago(deleted)
    return made


@pytest.mark.parametrize(
    ("there", "deleted", "loss"),
    [
        (node("True"), 1000, None),
        (node("Unknown", TOLERATED - 1), 10, Loss.PERHAPS),
        (node("Unknown", TOLERATED), None, Loss.PERHAPS),
        (node("Unknown", TOLERATED + OVERDUE_SECONDS), None, Loss.KEPT),
        (node("Unknown", TOLERATED), -20, Loss.SURE),  # nobody there hears of a grace period
        (node("False", TOLERATED - 1), 10, Loss.PERHAPS),
        (node("False", TOLERATED), -20, Loss.PERHAPS),  # a kubelet there may be ending it
        (node("False", TOLERATED), 1, Loss.SURE),
        (None, None, Loss.SURE),
        ({"metadata": {}, "status": {"conditions": []}}, 1000, None),
    ],
    ids=[
        *("ready", "slow", "not yet deleted", "kept there", "unreachable"),
        *("not ready for a moment", "not ready, ends", "not ready", "gone", "just made"),
    ],
)
def test_a_pod_is_lost_when_its_node_is_away_for_long_enough(
    there: Manifest | None, deleted: float | None, loss: Loss | None
) -> None:
    found = judge(on_node(deleted=deleted), there, TOLERATED, NOW)
    assert (found.loss if found else None) is loss


@pytest.fixture
async def world() -> World:
    made = World(now=NOW)
    made.creates()
    await made.reconcile()
    made.rolled_out()
    return made


def there(world: World, name: str) -> bool:
    return (PODS.name, "ns", name) in world.api.objects


async def test_no_node_is_looked_at_while_all_is_well(world: World) -> None:
    world.pods(*(on_node(w, ready=True) for w in range(3)))
    world.api.reads.clear()
    await world.reconcile()
    world.pods(on_node(0))  # forms the group again, and says so
    world.agents.statuses["x-group-0"] = leader_status()
    await world.reconcile()
    assert NODES.name not in world.api.reads


async def test_a_worker_on_a_lost_node_is_deleted_for_good_with_an_event(world: World) -> None:
    world.pods(on_node(0), on_node(1, deleted=-20), on_node(2, name="m", ready=True))
    world.agents.statuses["x-group-0"] = leader_status()
    world.api.put(NODES, node("Unknown", 60))
    await world.reconcile()
    assert not there(world, "x-group-0-1")
    assert there(world, "x-group-0")
    assert there(world, "x-group-0-2")
    assert ("Warning", "NodeLost") in world.events()
    assert world.condition().reason == "NodeLost"
    assert f"node n is unreachable since {ago(60)}" in world.condition().message
    assert world.condition("Degraded").status == "False"


async def test_a_slow_node_is_given_its_time_and_told_of_once(world: World) -> None:
    world.pods(on_node(0, ready=False), on_node(1, deleted=5), on_node(2, ready=True))
    world.api.put(NODES, node("Unknown", 20))
    await world.reconcile()
    assert there(world, "x-group-0-1")
    assert "replaced if that lasts for 30 s" in world.condition().message
    world.now += timedelta(seconds=2)
    assert await world.writes() == 0
    world.now += timedelta(seconds=8)
    await world.reconcile()
    assert not there(world, "x-group-0-1")


async def test_a_pod_whose_own_tolerations_keep_it_there_waits_for_a_person(world: World) -> None:
    world.pods(on_node(0, ready=False), on_node(1, ready=False), on_node(2, ready=True))
    world.api.put(NODES, node("Unknown", 600))
    await world.reconcile()
    assert there(world, "x-group-0-1")
    assert "own tolerations keep it there: `kubectl delete pod" in world.condition().message
    assert world.condition("Degraded").status == "True"


async def test_the_time_is_the_users() -> None:
    world = World(now=NOW)
    world.creates(recovery={"lostNodeSeconds": 600})
    world.pods(on_node(0), on_node(1, deleted=5))
    world.api.put(NODES, node("Unknown", 599))
    await world.reconcile()
    assert there(world, "x-group-0-1")


def leader_with(*claims: str) -> Manifest:
    """A leader on the lost node that mounts these claims."""
    leader = on_node(0, deleted=5)
    volumes = [
        {"name": claim, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for claim in claims
    ]
    leader["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {}}, *volumes]
    return leader


def claim(name: str, *modes: str) -> Manifest:
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"accessModes": list(modes)}}


@pytest.mark.parametrize(
    ("claims", "replaced"),
    [
        ({}, True),
        ({"c": ["ReadWriteMany"]}, True),
        ({"c": ["ReadOnlyMany"]}, True),
        ({"c": ["ReadWriteOnce", "ReadOnlyMany"]}, True),
        ({"c": ["ReadWriteOnce"]}, False),
        ({"c": ["ReadWriteOncePod"]}, False),
        ({"c": ["ReadOnlyMany"], "d": ["ReadWriteMany"]}, True),
        ({"c": ["ReadOnlyMany"], "d": ["ReadWriteOnce"]}, False),
    ],
    ids=lambda value: str(value),
)
async def test_a_leader_is_replaced_unless_a_person_has_to_look_at_its_claim(
    world: World, claims: dict[str, list[str]], replaced: bool
) -> None:
    world.api.put(NODES, node())
    for name, modes in claims.items():
        world.api.put(PERSISTENTVOLUMECLAIMS, claim(name, *modes))
    leader = leader_with(*claims)
    world.pods(leader, on_node(1, name="m", ready=True), on_node(2, name="m", ready=True))
    await world.reconcile()
    assert there(world, "x-group-0") is not replaced
    assert (world.condition("Degraded").status == "True") is not replaced
    assert ("`kubectl delete pod x-group-0 -n ns --force`" in world.condition().message) is (
        not replaced
    )
    if not replaced:
        assert await world.writes() == 0


async def test_what_is_not_known_of_a_claim_a_person_has_to_find_out(world: World) -> None:
    world.api.put(NODES, node())
    world.pods(leader_with("c"), on_node(1, name="m", ready=True), on_node(2, name="m", ready=True))
    await world.reconcile()
    assert "claim c is one that a single node mounts (no mode)" in world.condition().message
    world.api.refusals["persistentvolumeclaims/get"] = ApiError(403, "forbidden")
    await world.reconcile()
    assert there(world, "x-group-0")
    assert "the operator may not read it" in world.condition().message


async def test_a_claim_is_read_only_when_its_leader_is_lost(world: World) -> None:
    world.api.put(NODES, node("Unknown", TOLERATED - 1))
    worker = leader_with("c")
    worker["metadata"] = on_node(1, deleted=5)["metadata"]
    world.pods(leader_with("c"), worker, on_node(2, name="m", ready=True))
    await world.reconcile()
    assert NODES.name in world.api.reads
    assert PERSISTENTVOLUMECLAIMS.name not in world.api.reads


async def test_pods_of_a_node_that_is_gone_do_not_wait_to_be_deleted(world: World) -> None:
    world.pods(on_node(0), on_node(1), on_node(2, ready=True))
    world.agents.statuses["x-group-0"] = leader_status()
    await world.reconcile()
    assert not there(world, "x-group-0-1")


async def test_without_the_right_to_see_nodes_a_person_is_asked(world: World) -> None:
    world.api.refusals["nodes/get"] = ApiError(403, "nodes is forbidden")
    world.pods(on_node(0), on_node(1, deleted=OVERDUE_SECONDS - 1), on_node(2, ready=True))
    world.agents.statuses["x-group-0"] = leader_status()
    await world.reconcile()
    assert world.condition().reason == "WaitingForWorkers"
    world.now += timedelta(seconds=1)
    await world.reconcile()
    assert there(world, "x-group-0-1")
    assert "no right to see whether node n is lost" in world.condition().message
    assert "`kubectl delete pod x-group-0-1 -n ns --force`" in world.condition().message
