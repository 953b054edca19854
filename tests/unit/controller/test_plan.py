"""How a LlamaCluster comes by its plan, on an API server in memory."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from llamacluster.controller.conditions import KSTATUS
from llamacluster.controller.kubeapi import (
    JOBS,
    LEADERWORKERSETS,
    LLAMACLUSTERS,
    SERVICES,
    ApiError,
)
from llamacluster.controller.status import LATER_SECONDS, SOON_SECONDS
from tests.build import MIB, Manifest, plan_answer, stored
from tests.unit.controller.build import (
    leader_status,
    plan_pod,
    pod,
    terminated,
    unschedulable_pod,
    waiting,
)
from tests.unit.controller.world import World

LONGER = {"spec": {"inference": {"contextSize": 64}}}


@pytest.fixture
def world() -> World:
    return World()


def said(world: World) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    return {
        c.type: (c.status.value, c.reason)
        for c in world.status().conditions
        # test_isolation.py and test_kstatus.py have the others
        if c.type not in ("Isolated", *KSTATUS)
    }


def group_set(world: World) -> Manifest | None:
    return world.api.objects.get((LEADERWORKERSETS.name, "ns", "x-group"))


async def test_no_pod_starts_before_there_is_a_plan(world: World) -> None:
    world.creates_unplanned()
    assert await world.reconcile() == SOON_SECONDS
    assert world.job()["metadata"]["ownerReferences"][0]["name"] == "x"
    assert group_set(world) is None
    assert said(world) == {
        "Ready": ("False", "Planning"),
        "Progressing": ("True", "Planning"),
        "Degraded": ("False", "AsExpected"),
        "Planned": ("Unknown", "Planning"),
    }
    assert world.events() == [("Normal", "Planning")]
    assert world.status().groups == []
    assert await world.writes() == 1  # the message: the Job has no pod yet
    assert await world.writes() == 0


async def test_the_service_is_there_from_the_first(world: World) -> None:
    world.creates_unplanned()
    await world.reconcile()
    assert world.stored(SERVICES)["metadata"]["name"] == "x"


async def test_the_plan_makes_the_group_and_stays_in_the_status(world: World) -> None:
    world.creates_unplanned(workers={"resources": {"limits": {"memory": "2Gi"}}})
    await world.reconcile()
    world.planner(plan_answer(4, 3, 2))
    await world.reconcile()
    made = group_set(world)
    assert made is not None
    template = made["spec"]["leaderWorkerTemplate"]
    assert template["size"] == 4
    assert "--layers=4,3,2" in template["leaderTemplate"]["spec"]["containers"][0]["args"]
    plan = world.status().plan
    assert plan is not None
    assert (plan.workers, plan.worker_memory, plan.fits) == (3, "2000Mi", True)
    assert said(world)["Planned"] == ("True", "Planned")
    assert world.condition("Planned").message == "8 layers over 3 workers"
    assert world.events()[1:] == [("Normal", "Planned"), ("Normal", "PodsPending")]


async def test_a_known_plan_costs_nothing(world: World) -> None:
    await world.serves()
    world.api.reads.clear()
    assert await world.writes() == 0
    assert world.api.reads == [
        "llamaclusters",
        "leaderworkersets",
        "pods",
        "networkpolicies",
        "services",
        "poddisruptionbudgets",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"replicas": 2},
        {"server": {"service": {"type": "NodePort"}}},
        {"inference": {"chatTemplate": "chatml"}},
        {"leader": {"metadata": {"labels": {"a": "b"}}}},
    ],
)
async def test_what_a_plan_does_not_depend_on_is_changed_without_a_new_one(
    world: World, changes: Manifest
) -> None:
    await world.serves()
    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": changes})
    await world.reconcile()
    assert world.jobs() == []
    assert said(world)["Planned"] == ("True", "Planned")


async def test_a_newer_operator_that_would_ask_otherwise_keeps_the_plan_of_what_runs(
    world: World,
) -> None:
    await world.serves()
    live = group_set(world)
    assert live is not None
    world.stored(LLAMACLUSTERS)["status"]["plan"]["inputsHash"] = "older"
    live["metadata"]["labels"]["llamacluster.dev/plan"] = "older"
    await world.reconcile()
    assert world.jobs() == []
    assert said(world)["Ready"] == ("True", "Ready")
    assert await world.writes() == 0


async def test_what_serves_goes_on_while_the_new_spec_is_planned(world: World) -> None:
    await world.serves()
    before = group_set(world)
    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": {"workers": {"count": 3}}})
    assert await world.reconcile() == SOON_SECONDS
    assert group_set(world) == before
    assert said(world) == {
        "Ready": ("True", "Planning"),
        "Progressing": ("True", "Planning"),
        "Degraded": ("False", "AsExpected"),
        "Planned": ("Unknown", "Planning"),
    }
    # And is still watched.
    world.pods(pod(0))
    world.agents.statuses["x-group-0"] = leader_status()
    await world.reconcile()
    [group] = world.status().groups
    assert group.reason == "WaitingForWorkers"

    world.planner(plan_answer(3, 3, 3))
    await world.reconcile()
    after = group_set(world)
    assert after is not None
    assert after["spec"]["leaderWorkerTemplate"]["size"] == 4


async def test_a_model_that_does_not_fit_starts_no_pod_and_is_not_planned_again(
    world: World,
) -> None:
    world.creates_unplanned()
    await world.reconcile()
    world.planner(plan_answer(fits=False))
    assert await world.reconcile() is None
    assert group_set(world) is None
    assert said(world) == {
        "Ready": ("False", "DoesNotFit"),
        "Progressing": ("False", "DoesNotFit"),
        "Degraded": ("True", "DoesNotFit"),
        "Planned": ("False", "DoesNotFit"),
    }
    assert world.condition().message == "500Mi too little"
    assert world.events() == [("Normal", "Planning"), ("Warning", "DoesNotFit")]
    world.api.remove(JOBS, "ns", world.jobs()[0])  # after an hour
    assert await world.writes() == 0
    assert world.jobs() == []


async def test_groups_that_wait_for_a_plan_are_not_said_to_be_refused(world: World) -> None:
    await world.serves()
    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": {"replicas": 2, **LONGER["spec"]}})
    for _ in range(3):
        await world.reconcile()
        world.now += timedelta(seconds=60)
    assert world.condition("Degraded").status == "False"


async def test_a_new_spec_that_does_not_fit_leaves_what_serves_alone(world: World) -> None:
    await world.serves()
    before = group_set(world)
    world.api.edit(LLAMACLUSTERS, "ns", "x", LONGER)
    await world.reconcile()
    world.planner(plan_answer(fits=False))
    await world.reconcile()
    assert group_set(world) == before
    assert said(world)["Ready"] == ("True", "DoesNotFit")
    assert [group.reason for group in world.status().groups] == ["Ready"]


async def test_a_spec_that_is_changed_and_changed_back_leaves_no_job_behind(world: World) -> None:
    await world.serves()
    world.api.edit(LLAMACLUSTERS, "ns", "x", LONGER)
    await world.reconcile()
    assert len(world.jobs()) == 1
    del world.stored(LLAMACLUSTERS)["spec"]["inference"]
    await world.reconcile()
    assert world.jobs() == []
    assert said(world)["Ready"] == ("True", "Ready")
    assert await world.writes() == 0


async def test_the_job_of_a_former_spec_goes_when_another_is_made(world: World) -> None:
    world.creates_unplanned()
    await world.reconcile()
    [first] = world.jobs()
    world.api.edit(LLAMACLUSTERS, "ns", "x", LONGER)
    await world.reconcile()
    [second] = world.jobs()
    assert first != second


async def test_an_answer_that_was_lost_with_its_pod_is_asked_for_again(world: World) -> None:
    world.creates_unplanned()
    await world.reconcile()
    before = world.job()["metadata"]["uid"]
    world.job()["status"] = {"completionTime": "2026-11-22T12:00:00Z"}
    await world.reconcile()
    await world.reconcile()
    assert world.job()["metadata"]["uid"] != before


async def test_pods_of_a_former_job_of_the_same_name_do_not_answer(world: World) -> None:
    world.creates_unplanned()
    world.pods(plan_pod(state=terminated("Completed", 0, "{}"), job_uid="former"))
    await world.reconcile()
    await world.reconcile()
    assert said(world)["Planned"] == ("Unknown", "Planning")


async def test_equal_clusters_of_a_namespace_share_a_plan(world: World) -> None:
    await world.serves()
    plan = world.stored(LLAMACLUSTERS)["status"]["plan"]
    plan["leader"]["observed"] = "7Mi"
    world.api.put(LLAMACLUSTERS, stored("y", uid="33333333-3333-3333-3333-333333333333"))
    await world.reconcile("y")
    assert world.jobs() == []
    shared = world.stored(LLAMACLUSTERS, "y")["status"]["plan"]
    assert "observed" not in shared["leader"]
    del plan["leader"]["observed"]
    assert shared == plan
    assert (LEADERWORKERSETS.name, "ns", "y-group") in world.api.objects


async def test_a_plan_that_cannot_be_read_is_not_shared(world: World) -> None:
    await world.serves()
    world.stored(LLAMACLUSTERS)["status"]["plan"]["workers"] = "many"
    world.api.put(LLAMACLUSTERS, stored("y", uid="33333333-3333-3333-3333-333333333333"))
    await world.reconcile("y")
    assert len(world.jobs()) == 1


FAILURE = {"reason": "ModelNotFound", "message": "http://models/m.gguf: 404"}


@pytest.mark.parametrize(
    ("planner", "reason", "message"),
    [
        (
            {"state": waiting("CrashLoopBackOff"), "last": FAILURE},
            *("ModelNotFound", "http://models/m.gguf: 404"),
        ),
        ({"last": FAILURE}, "ModelNotFound", "http://models/m.gguf: 404"),
        (
            {"state": waiting("ImagePullBackOff")},
            *("ImagePullFailed", "cannot pull image"),
        ),
    ],
    ids=["between two tries", "at the next try", "no image"],
)
async def test_why_there_is_no_plan_is_said_and_heals(
    world: World, planner: dict[str, Any], reason: str, message: str
) -> None:
    world.creates_unplanned()
    await world.reconcile()
    uid = world.job()["metadata"]["uid"]
    last = planner.get("last")
    world.pods(
        plan_pod(
            state=planner.get("state"),
            last_state=terminated("Error", 1, json.dumps(last)) if last else None,
            job_uid=uid,
        )
    )
    assert await world.reconcile() == SOON_SECONDS
    assert said(world) == {
        "Ready": ("False", reason),
        "Progressing": ("False", reason),
        "Degraded": ("True", reason),
        "Planned": ("False", reason),
    }
    assert message in world.condition("Planned").message
    assert world.events()[-1] == ("Warning", reason)
    assert await world.writes() == 0
    world.now += timedelta(hours=1)
    assert await world.reconcile() == LATER_SECONDS

    world.planner(plan_answer())
    await world.reconcile()
    assert said(world)["Planned"] == ("True", "Planned")


async def test_a_planner_that_fits_nowhere_is_told_in_the_schedulers_words(world: World) -> None:
    world.creates_unplanned()
    await world.reconcile()
    stuck = unschedulable_pod(message="0/3 nodes: volume is elsewhere")
    stuck["metadata"] = plan_pod(job_uid=world.job()["metadata"]["uid"])["metadata"]
    world.pods(stuck)
    await world.reconcile()
    assert said(world)["Planned"] == ("False", "Unschedulable")
    assert "volume is elsewhere" in world.condition("Planned").message


async def test_a_job_of_somebody_else_is_left_alone_and_said(world: World) -> None:
    world.creates_unplanned()
    await world.reconcile()
    job = world.job()
    world.api.remove(JOBS, "ns", job["metadata"]["name"])
    job["metadata"]["ownerReferences"] = []
    world.api.put(JOBS, job)
    await world.reconcile()
    assert said(world)["Ready"] == ("False", "NameConflict")


async def test_a_job_that_the_api_server_refuses_is_said(world: World) -> None:
    world.api.refusals[JOBS.name] = ApiError(403, "exceeded quota")
    world.creates_unplanned()
    assert await world.reconcile() == LATER_SECONDS
    assert said(world)["Ready"] == ("False", "Rejected")
    assert "exceeded quota" in world.condition().message


async def test_memory_of_the_planned_is_looked_at_when_the_group_has_loaded(world: World) -> None:
    await world.serves()
    world.agents.statuses["x-group-0"] = leader_status(held=[1500 * MIB, 2500 * MIB])
    world.now += timedelta(seconds=30)
    assert await world.reconcile() is None
    plan = world.status().plan
    assert plan is not None
    assert [worker.observed for worker in plan.per_worker] == ["1500Mi", "2500Mi"]
    assert said(world)["Ready"] == ("True", "Ready")
    assert said(world)["Degraded"] == ("True", "PlanDrift")
    assert "worker 2" in world.condition("Degraded").message
    assert world.events()[-1] == ("Warning", "PlanDrift")
    world.agents.statuses["x-group-0"] = leader_status(held=[1510 * MIB, 2490 * MIB])
    assert await world.writes() == 0
    world.agents.statuses["x-group-0"] = leader_status(held=[1500 * MIB, 1500 * MIB])
    await world.reconcile()
    assert said(world)["Degraded"] == ("False", "AsExpected")


async def test_a_status_that_was_lost_is_planned_anew_and_restarts_nothing(world: World) -> None:
    await world.serves()
    before = group_set(world)
    world.stored(LLAMACLUSTERS)["status"] = {}
    await world.reconcile()
    world.planner(plan_answer())
    await world.reconcile()
    after = group_set(world)
    assert before is not None
    assert after is not None
    assert after["spec"] == before["spec"]
    assert said(world)["Ready"] == ("True", "Ready")


async def test_scaling_waits_for_the_plan_of_a_spec_that_has_changed_too(world: World) -> None:
    await world.serves()
    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": {"replicas": 2, **LONGER["spec"]}})
    await world.reconcile()
    made = group_set(world)
    assert made is not None
    assert made["spec"]["replicas"] == 1
    world.planner(plan_answer())
    await world.reconcile()
    assert made["spec"]["replicas"] == 2
