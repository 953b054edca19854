"""What kstatus (Flux, kapp, `kubectl` plug-ins) and Argo CD make of the statuses that we write."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from llamacluster.agent.contract import messages
from llamacluster.api.crd import custom_resource_definition
from llamacluster.controller.conditions import KSTATUS
from llamacluster.controller.kubeapi import LLAMACLUSTERS, SERVICES
from tests.build import Manifest, plan_answer
from tests.kind.host import REPOSITORY
from tests.unit.controller.build import leader_status, pod
from tests.unit.controller.world import World


def kstatus(stored: Manifest) -> str:
    """The rules for types that kstatus does not know: sigs.k8s.io/cli-utils v0.37.2,
    pkg/kstatus/status, Compute."""
    if stored["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = stored.get("status", {})
    observed = status.get("observedGeneration")
    if observed is not None and observed != stored["metadata"]["generation"]:
        return "InProgress"
    conditions = status.get("conditions", [])
    for condition in conditions:
        if (condition["type"], condition["status"]) == ("Reconciling", "True"):
            return "InProgress"
        if (condition["type"], condition["status"]) == ("Stalled", "True"):
            return "Failed"
    for condition in conditions:
        if condition["type"] == "Ready":
            return "Current" if condition["status"] == "True" else "InProgress"
    return "Current"


@pytest.fixture
def world() -> World:
    return World()


def judged(world: World) -> str:
    return kstatus(world.stored(LLAMACLUSTERS))


def changes(world: World, **spec: Any) -> None:
    here = world.stored(LLAMACLUSTERS)
    here["spec"] |= spec
    here["metadata"]["generation"] += 1


async def test_a_cluster_that_no_operator_has_seen_is_in_progress(world: World) -> None:
    world.creates_unplanned()
    [version] = custom_resource_definition()["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]["properties"]["status"]
    world.stored(LLAMACLUSTERS)["status"] = dict(schema["default"])  # as the API server does
    assert judged(world) == "InProgress"


async def test_the_way_to_ready_is_in_progress_and_ready_is_current(world: World) -> None:
    world.creates_unplanned()
    await world.reconcile()
    assert judged(world) == "InProgress"
    world.planner(plan_answer(5, 4))
    await world.reconcile()
    assert judged(world) == "InProgress"
    world.rolled_out()
    world.pods(pod(0), pod(1), pod(2))
    world.agents.statuses["x-group-0"] = leader_status(messages.Phase.Loading, "Loading", "…", 2)
    await world.reconcile()
    assert judged(world) == "InProgress"
    world.pods(pod(0, ready=True))
    await world.reconcile()
    assert judged(world) == "Current"


async def test_a_change_is_in_progress_until_the_last_group_has_it(world: World) -> None:
    await world.serves()
    changes(world, inference={"parallel": 2})
    assert judged(world) == "InProgress"  # the operator has not seen it
    await world.reconcile()
    assert judged(world) == "InProgress"  # it is planned
    world.planner(plan_answer(5, 4))
    await world.reconcile()
    # It is rolled out, and the group still answers.
    assert world.condition().status == "True"
    assert judged(world) == "InProgress"
    world.rolled_out()
    await world.reconcile()
    assert judged(world) == "Current"


async def test_a_lost_worker_is_in_progress(world: World) -> None:
    await world.serves()
    world.pods(pod(0))
    world.agents.statuses["x-group-0"] = leader_status()
    await world.reconcile()
    assert judged(world) == "InProgress"


async def test_what_needs_a_person_has_failed_until_it_is_there(world: World) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "ns", "name": "x"},
        "spec": {},
    }
    world.creates()
    world.api.put(SERVICES, theirs)
    await world.reconcile()
    assert world.condition().reason == "NameConflict"
    assert judged(world) == "Failed"
    world.api.remove(SERVICES, "ns", "x")
    await world.reconcile()
    assert judged(world) == "InProgress"


@pytest.mark.parametrize("serves", [False, True], ids=["at first", "while it serves"])
async def test_a_model_that_does_not_fit_has_failed(world: World, serves: bool) -> None:
    if serves:
        await world.serves()
        changes(world, inference={"parallel": 2})
    else:
        world.creates_unplanned()
    await world.reconcile()
    world.planner(plan_answer(fits=False))
    await world.reconcile()
    assert judged(world) == "Failed"


async def test_a_deleted_cluster_is_terminating(world: World) -> None:
    await world.serves()
    world.stored(LLAMACLUSTERS)["metadata"]["deletionTimestamp"] = "2026-11-22T12:00:00Z"
    assert judged(world) == "Terminating"


async def test_a_cluster_that_serves_has_no_condition_of_kstatus(world: World) -> None:
    await world.serves()
    types = {condition.type for condition in world.status().conditions}
    assert types == {"Ready", "Progressing", "Degraded", "Planned", "Isolated"}
    assert types.isdisjoint(KSTATUS)


def test_the_health_check_for_argo_cd_knows_our_conditions_alone() -> None:
    """The script itself is short, and no Lua is at hand in the tests."""
    text = (REPOSITORY / "docs" / "gitops.md").read_text()
    [block] = re.findall(r"```yaml\n(apiVersion: v1\nkind: ConfigMap.*?)```", text, re.DOTALL)
    script = yaml.safe_load(block)["data"][
        "resource.customizations.health.llamacluster.dev_LlamaCluster"
    ]
    assert set(re.findall(r"is\.(\w+)", script)) == {"Ready", "Reconciling", "Degraded"}
    assert "observedGeneration ~= obj.metadata.generation" in script
