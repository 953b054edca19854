"""The operator needs each right that the chart gives it. That it needs no other, each test of a
reconcile sees (world.py), and the end-to-end tests under the API server's own eyes."""

from __future__ import annotations

from datetime import timedelta

from llamacluster.controller.kubeapi import LLAMACLUSTERS, NODES
from llamacluster.controller.operator import PARTS, Options, settings
from tests.build import IMAGE, plan_answer
from tests.unit.controller.test_lostnodes import leader_with, node, on_node
from tests.unit.controller.world import World
from tests.unit.rights import IN_ALL_NAMESPACES, IN_NAMESPACES, OF_NODES, each


async def test_the_operator_needs_each_of_its_rights() -> None:
    world = World()
    world.creates_unplanned(rpc={"encryption": True})
    await world.reconcile()
    world.planner(plan_answer())
    await world.reconcile()
    world.rolled_out()
    # Another plan, whose Job takes the place of the former, and no policies any more.
    changed = {"inference": {"contextSize": 8192}, "networkPolicy": {"enabled": False}}
    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": changed})
    await world.reconcile()
    # A node is lost, with the pod of a worker and that of a leader that has a claim.
    world.api.put(NODES, node())
    world.pods(leader_with("c"), on_node(1, deleted=100))
    world.now += timedelta(hours=1)
    await world.reconcile()

    watched = {(kind.group, kind.name): {"list", "watch"} for kind in (LLAMACLUSTERS, *PARTS)}
    assert settings(Options(IMAGE)).scanning.disabled is False  # it watches CRDs
    needed = world.api.used | each(watched, IN_ALL_NAMESPACES)
    assert needed == each(IN_NAMESPACES, IN_ALL_NAMESPACES, OF_NODES)
