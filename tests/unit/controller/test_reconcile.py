"""The life of a LlamaCluster, on an API server in memory."""

from __future__ import annotations

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from llamacluster.agent.contract import messages
from llamacluster.api.status import EngineStatus
from llamacluster.controller.kubeapi import (
    EVENTS,
    LEADERWORKERSETS,
    LLAMACLUSTERS,
    PODDISRUPTIONBUDGETS,
    SERVICES,
    ApiError,
)
from llamacluster.controller.objects import LEADERWORKERSET_TOO_OLD, Refused
from llamacluster.controller.reconcile import REFUSED_SECONDS
from llamacluster.controller.status import LATER_SECONDS, SETTLED_SECONDS, SOON_SECONDS
from tests.build import IMAGE, plan_answer
from tests.unit.controller.build import leader_status, pod
from tests.unit.controller.world import World


@pytest.fixture
def world() -> World:
    return World()


async def test_the_objects_are_made_and_the_status_says_what_is_missing(world: World) -> None:
    world.creates()
    assert await world.reconcile() == SOON_SECONDS
    assert world.stored(SERVICES)["metadata"]["name"] == "x"
    template = world.stored(LEADERWORKERSETS, "x-group")["spec"]["leaderWorkerTemplate"]
    assert template["leaderTemplate"]["spec"]["containers"][0]["image"] == IMAGE
    assert (world.condition().status, world.condition().reason) == ("False", "PodsPending")
    assert world.status().endpoint == "http://x.ns.svc:8080/v1"
    assert world.status().model_file == "m.gguf"


async def test_nothing_is_written_while_nothing_changes(world: World) -> None:
    world.creates()
    await world.reconcile()
    assert [await world.writes() for _ in range(3)] == [0, 0, 0]


async def test_a_group_becomes_ready_and_is_left_alone(world: World) -> None:
    world.creates()
    await world.reconcile()
    world.rolled_out()
    world.pods(pod(0), pod(1), pod(2))
    world.agents.statuses["x-group-0"] = leader_status(messages.Phase.Loading, "Loading", "…", 2)
    assert await world.reconcile() == SOON_SECONDS
    assert world.condition().reason == "Loading"

    world.pods(pod(0, ready=True))
    assert await world.reconcile() == SETTLED_SECONDS
    world.now += timedelta(seconds=SETTLED_SECONDS)
    assert await world.reconcile() is None
    status = world.status()
    assert world.condition().status == "True"
    assert (status.replicas, status.ready_replicas) == (1, 1)
    assert status.groups[0].workers_attached == 2
    assert status.engine is not None
    assert status.engine.version == "b9000"
    assert await world.writes() == 0


async def test_an_agent_that_had_no_time_to_answer_is_asked_again(world: World) -> None:
    world.creates()
    await world.reconcile()
    world.rolled_out()
    world.pods(pod(0, ready=True), pod(1), pod(2))
    await world.reconcile()
    world.now += timedelta(seconds=SETTLED_SECONDS)
    assert await world.reconcile() == LATER_SECONDS
    assert engine_version(world) is None
    world.agents.statuses["x-group-0"] = leader_status()
    assert await world.reconcile() is None
    assert engine_version(world) == "b9000"


def engine_version(world: World) -> str | None:
    engine = world.status().engine
    assert engine is not None
    return engine.version


async def test_each_transition_is_an_event_and_a_loss_is_a_warning(world: World) -> None:
    await world.serves()
    world.pods(pod(0))
    world.agents.statuses["x-group-0"] = leader_status()
    await world.reconcile()
    assert world.events() == [
        ("Normal", "Planned"),
        ("Normal", "PodsPending"),
        ("Normal", "Ready"),
        ("Warning", "WaitingForWorkers"),
    ]


async def test_a_new_message_alone_is_a_status_and_no_event(world: World) -> None:
    world.creates()
    await world.reconcile()
    world.rolled_out()
    world.pods(pod(0), pod(1), pod(2))
    for message in ("1 of 40 GB", "2 of 40 GB"):
        world.agents.statuses["x-group-0"] = leader_status(
            messages.Phase.Waiting, "Downloading", message
        )
        await world.reconcile()
    assert world.condition().message == "2 of 40 GB"
    assert [reason for _, reason in world.events()] == ["Planned", "PodsPending", "Downloading"]


async def test_it_looks_often_at_first_and_seldom_after_a_while(world: World) -> None:
    world.creates()
    world.pods(*(pod(index, phase="Pending") for index in range(3)))
    waits = []
    for _ in range(4):
        waits.append(await world.reconcile())
        world.now += timedelta(seconds=60)
    assert waits == [SOON_SECONDS, 6.0, 12.0, LATER_SECONDS]


async def test_a_quota_that_lets_some_pods_in_is_told_after_a_minute(world: World) -> None:
    world.creates()
    await world.reconcile()
    world.pods(pod(0), pod(1))
    world.agents.statuses["x-group-0"] = leader_status()
    for _ in range(2):
        await world.reconcile()
        assert world.condition("Degraded").status == "False"
        assert world.condition().reason == "WaitingForWorkers"
        world.now += timedelta(seconds=30)
    await world.reconcile()
    degraded = world.condition("Degraded")
    assert (degraded.status, degraded.reason) == ("True", "PodsMissing")
    assert "no pod x-group-0-2: `kubectl describe statefulset x-group-0`" in degraded.message
    assert world.events()[-1] == ("Warning", "PodsMissing")
    await world.reconcile()  # the budget follows
    assert await world.writes() == 0

    world.pods(pod(2))
    await world.reconcile()
    assert world.condition("Degraded").status == "False"


@pytest.mark.parametrize("removed", [False, True], ids=["being deleted", "gone"])
async def test_a_deleted_cluster_is_left_to_the_garbage_collector(
    world: World, removed: bool
) -> None:
    world.creates()
    await world.reconcile()
    if removed:
        world.api.remove(LLAMACLUSTERS, "ns", "x")
    else:
        world.stored(LLAMACLUSTERS)["metadata"]["deletionTimestamp"] = "2026-11-22T12:00:00Z"
    world.api.remove(SERVICES, "ns", "x")
    assert await world.reconcile() is None
    assert await world.writes() == 0


async def test_a_newer_operator_restarts_nothing_until_the_spec_changes(world: World) -> None:
    def images() -> set[str]:
        template = world.stored(LEADERWORKERSETS, "x-group")["spec"]["leaderWorkerTemplate"]
        pods = (template["leaderTemplate"], template["workerTemplate"])
        return {pod["spec"]["containers"][0]["image"] for pod in pods}

    async def reconcile_with(image: str) -> None:
        world.image = image
        await world.reconcile()

    world.image = "engine:1"
    world.creates()
    await reconcile_with("engine:1")
    await reconcile_with("engine:2")
    assert images() == {"engine:1"}
    assert world.status().engine == EngineStatus(image="engine:1")
    writes = world.api.writes
    await reconcile_with("engine:2")
    assert world.api.writes == writes

    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": {"replicas": 2}})
    await reconcile_with("engine:2")
    assert world.stored(LEADERWORKERSETS, "x-group")["spec"]["replicas"] == 2
    assert images() == {"engine:1"}

    theirs = {"spec": {"leaderWorkerTemplate": {"size": 9}}}
    world.api.edit(LEADERWORKERSETS, "ns", "x-group", theirs)
    await reconcile_with("engine:2")
    template = world.stored(LEADERWORKERSETS, "x-group")["spec"]["leaderWorkerTemplate"]
    assert template["size"] == 3
    assert images() == {"engine:1"}

    assert world.jobs() == []
    world.api.edit(LLAMACLUSTERS, "ns", "x", {"spec": {"inference": {"contextSize": 64}}})
    await reconcile_with("engine:2")
    assert images() == {"engine:1"}
    world.planner(plan_answer())
    await reconcile_with("engine:2")
    assert images() == {"engine:2"}


async def test_an_object_that_is_gone_is_made_again(world: World) -> None:
    world.creates()
    await world.reconcile()
    world.api.remove(LEADERWORKERSETS, "ns", "x-group")
    assert await world.writes() == 2  # with a new token: its Secret may be gone as well


async def test_an_edit_of_ours_is_taken_back_and_others_stay(world: World) -> None:
    world.creates()
    await world.reconcile()
    theirs = {"metadata": {"labels": {"theirs": "1"}}}
    world.api.edit(LEADERWORKERSETS, "ns", "x-group", {**theirs, "spec": {"replicas": 7}})
    with capture_logs() as lines:
        assert await world.writes() == 1
    group_set = world.stored(LEADERWORKERSETS, "x-group")
    assert group_set["spec"]["replicas"] == 1
    assert group_set["metadata"]["labels"]["theirs"] == "1"
    assert lines == [
        {
            "event": "taking an edit back",
            "object": "LeaderWorkerSet/x-group",
            "because": ".spec.replicas is 7 instead of 1",
            "log_level": "info",
        }
    ]


async def test_a_foreign_disruption_budget_is_not_touched_and_said(world: World) -> None:
    theirs = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "x", "namespace": "ns"},
        "spec": {"maxUnavailable": 1},
    }
    world.api.put(PODDISRUPTIONBUDGETS, theirs)
    world.creates()
    await world.reconcile()
    assert world.stored(PODDISRUPTIONBUDGETS)["spec"] == theirs["spec"]
    assert world.condition().reason == "PodsPending"
    found = world.condition("Degraded")
    assert found.reason == "NameConflict"
    assert "delete it, or give the LlamaCluster another name" in found.message


async def test_a_foreign_service_is_not_touched_and_said_until_it_is_gone(world: World) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x", "namespace": "ns"},
        "spec": {"selector": {"app": "theirs"}},
    }
    world.api.put(SERVICES, theirs)
    world.creates()
    assert await world.reconcile() == LATER_SECONDS
    assert world.stored(SERVICES)["spec"] == theirs["spec"]
    assert world.condition().reason == world.condition("Degraded").reason == "NameConflict"
    assert world.events() == [("Warning", "NameConflict")]
    assert await world.writes() == 0
    world.now += timedelta(hours=1)
    assert await world.reconcile() == REFUSED_SECONDS

    world.api.remove(SERVICES, "ns", "x")
    await world.reconcile()
    assert world.condition().reason == "PodsPending"
    assert world.condition("Degraded").status == "False"


async def test_objects_of_a_predecessor_are_waited_for(world: World) -> None:
    world.creates()
    await world.reconcile()
    world.creates(uid="22222222-2222-2222-2222-222222222222")
    assert await world.reconcile() == SOON_SECONDS
    assert world.condition().reason == "PredecessorRemains"
    assert world.condition("Progressing").status == "True"
    assert await world.writes() == 0


async def test_a_missing_leaderworkerset_is_said_and_heals_when_it_is_installed(
    world: World,
) -> None:
    world.api.unknown.add(LEADERWORKERSETS.name)
    world.creates()
    assert await world.reconcile() == LATER_SECONDS
    assert world.condition().reason == "LeaderWorkerSetMissing"
    assert "install LeaderWorkerSet" in world.condition().message
    world.api.unknown.clear()
    await world.reconcile()
    assert world.condition().reason == "PodsPending"


async def test_a_leaderworkerset_that_is_too_old_is_said(world: World) -> None:
    def refuse() -> None:
        raise Refused(*LEADERWORKERSET_TOO_OLD)

    world.creates()
    world.require = refuse
    assert await world.reconcile() == LATER_SECONDS
    assert world.condition().reason == "LeaderWorkerSetTooOld"
    assert "upgrade it" in world.condition().message
    world.require = lambda: None
    await world.reconcile()
    assert world.condition().reason == "PodsPending"


@pytest.mark.parametrize(
    "error",
    [
        ApiError(422, "Service is invalid: no"),
        ApiError(403, "services is forbidden"),
        ApiError(400, "bad request"),
        ApiError(500, 'Internal error: failed calling webhook "m.lws": connection refused'),
        ApiError(500, 'admission webhook "policy" denied the request: no rules yet'),
        ApiError(500, "failed to create typed patch object: field not declared in schema"),
    ],
)
async def test_what_the_api_server_refuses_is_said_in_its_words(
    world: World, error: ApiError
) -> None:
    world.api.refusals[SERVICES.name] = error
    world.creates()
    assert await world.reconcile() == LATER_SECONDS
    assert world.condition().reason == "Rejected"
    assert world.condition().message == f"the API server refused Service x: {error.message}"


@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_what_may_pass_is_left_to_the_queues_backoff(world: World, status: int) -> None:
    world.api.refusals[SERVICES.name] = ApiError(status, "try again")
    world.creates()
    with pytest.raises(ApiError):
        await world.reconcile()


async def test_an_event_is_sent_only_after_its_status_was_written(world: World) -> None:
    world.api.refusals["llamaclusters/status"] = ApiError(409, "modified")
    world.creates()
    with pytest.raises(ApiError):
        await world.reconcile()
    assert world.events() == []


async def test_an_event_that_is_refused_is_not_worth_a_failure(world: World) -> None:
    world.api.refusals[EVENTS.name] = ApiError(403, "forbidden")
    world.creates()
    assert await world.reconcile() == SOON_SECONDS
    assert await world.writes() == 0


async def test_a_stored_spec_that_the_api_does_not_know_is_said(world: World) -> None:
    world.creates_unplanned(topology="Moebius")
    assert await world.reconcile() is None
    assert world.condition().reason == "InvalidSpec"
    assert "spec.topology" in world.condition().message
    assert (SERVICES.name, "ns", "x") not in world.api.objects
    assert world.jobs() == []
    assert await world.writes() == 0


@pytest.mark.parametrize("topology", ["Distributed", "Moebius"])
async def test_a_stored_status_that_the_api_does_not_know_is_made_anew(
    world: World, topology: str
) -> None:
    strange = {"groups": [{"index": 0, "phase": "Dancing", "reason": "r", "since": "s"}]}
    world.creates_unplanned(topology=topology, status=strange)
    await world.reconcile()
    assert world.condition().status == "False"


async def test_replicas_0_is_said(world: World) -> None:
    world.creates(replicas=0)
    await world.reconcile()
    world.rolled_out(0)
    assert await world.reconcile() is None
    assert (world.condition().status, world.condition().reason) == ("False", "ScaledToZero")
    assert world.condition("Progressing").status == "False"


async def test_an_image_of_the_spec_wins(world: World) -> None:
    world.creates(image="registry.example/mine:2")
    await world.reconcile()
    status = world.status()
    assert status.engine is not None
    assert status.engine.image == "registry.example/mine:2"


async def test_every_line_of_the_log_has_the_key(world: World) -> None:
    from structlog.contextvars import merge_contextvars

    world.creates()
    with capture_logs(processors=[merge_contextvars]) as lines:
        await world.reconcile()
    assert lines
    assert {line["key"] for line in lines} == {"ns/x"}
