"""The status as a whole, and the event that goes with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from llamacluster.agent.contract.messages import Phase
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.status import GroupPhase, LlamaClusterStatus
from llamacluster.controller.conditions import Verdict, refused
from llamacluster.controller.events import MAX_MESSAGE, transition_events
from llamacluster.controller.observation import Group, Observation
from llamacluster.controller.planner import Found
from llamacluster.controller.status import (
    LATER_SECONDS,
    SETTLED_SECONDS,
    SOON_SECONDS,
    condition,
    new_status,
    next_look,
    refused_status,
    status_manifest,
)
from llamacluster.resources.leaderworkerset import leader_worker_set
from tests.build import IMAGE, MIB, Manifest, a_plan, llama_cluster
from tests.unit.controller import build
from tests.unit.controller.build import (
    DOES_NOT_FIT,
    EARLIER,
    NOW,
    PLANNED,
    PLANNING,
    UNPROVEN,
    pod,
)


def group_set(updated: int = 1) -> Manifest:
    """The LeaderWorkerSet of the plan, as far as it is rolled out."""
    made = leader_worker_set(llama_cluster(), IMAGE, a_plan())
    made["metadata"]["generation"] = 1
    made["status"] = {"observedGeneration": 1, "updatedReplicas": updated}
    return made


def seen(*groups: Group, rolled_out: bool = True) -> Observation:
    return Observation(group_set(int(rolled_out)), {group.index: group for group in groups})


def nothing_seen() -> Observation:
    return Observation(None, {})


def ready_group(index: int = 0) -> Group:
    return build.group(pod(0, group=index, ready=True), index=index)


def test_groups_that_do_not_exist_yet_are_in_the_status() -> None:
    status = new_status(
        llama_cluster(replicas=2), build.found(), seen(ready_group()), IMAGE, None, UNPROVEN, NOW
    )
    assert [(g.index, g.phase) for g in status.groups] == [
        (0, GroupPhase.SERVING),
        (1, GroupPhase.WAITING),
    ]
    assert (status.replicas, status.ready_replicas) == (1, 1)


def test_groups_that_are_still_there_after_a_scale_down_are_in_the_status() -> None:
    status = new_status(
        llama_cluster(replicas=1),
        build.found(),
        seen(ready_group(), ready_group(1)),
        IMAGE,
        None,
        UNPROVEN,
        NOW,
    )
    assert [g.index for g in status.groups] == [0, 1]


def test_the_selector_is_the_leaders_for_autoscalers() -> None:
    status = new_status(llama_cluster(), build.found(), seen(), IMAGE, None, UNPROVEN, NOW)
    assert status.selector == (
        "app.kubernetes.io/component=leader,"
        "leaderworkerset.sigs.k8s.io/worker-index=0,"
        "llamacluster.dev/cluster=x"
    )


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("https://h/a/m.gguf?download=true", "m.gguf"),
        ("pvc://claim/a/m.gguf", "m.gguf"),
        ("file:///models/m.gguf", "m.gguf"),
        ("https://h/" + "m" * 35 + ".gguf", "m" * 35 + ".gguf"),
        (
            "https://h/Mistral-Small-3.2-24B-Instruct-2506-UD-Q4_K_XL.gguf",
            "Mistral-Small-3.2-24B-In…UD-Q4_K_XL.gguf",
        ),
    ],
)
def test_the_models_file_is_shown_without_where_it_comes_from(uri: str, file: str) -> None:
    status = new_status(
        llama_cluster(model={"uri": uri}), build.found(), seen(), IMAGE, None, UNPROVEN, NOW
    )
    assert status.model_file == file


def test_the_engines_version_is_kept_while_no_agent_answers() -> None:
    first = build.group(pod(0), status=build.leader_status())
    status = new_status(llama_cluster(), build.found(), seen(first), IMAGE, None, UNPROVEN, NOW)
    later = llama_cluster(status=status.model_dump(mode="json", by_alias=True, exclude_none=True))
    again = new_status(later, build.found(), seen(build.group(pod(0))), IMAGE, None, UNPROVEN, NOW)
    assert again.engine is not None
    assert again.engine.version == "b9000"


def test_what_was_seen_before_stays_when_nothing_can_be_applied() -> None:
    cluster = llama_cluster(generation=2)
    before = new_status(cluster, build.found(), seen(ready_group()), IMAGE, None, UNPROVEN, NOW)
    after = refused_status(cluster.metadata, before, refused("NameConflict", "m"), NOW)
    assert after.groups == before.groups
    assert after.observed_generation == 2
    assert [c.reason for c in after.conditions] == [
        *["NameConflict"] * 4,
        "Planned",
        "PoliciesUnproven",
    ]
    assert after.plan == before.plan


def test_the_status_is_applied_to_the_version_that_was_read_and_says_nothing_empty() -> None:
    cluster = LlamaCluster.model_validate(
        {
            "metadata": {"name": "x", "namespace": "ns", "resourceVersion": "77"},
            "spec": {"model": {"uri": "http://h/m.gguf"}, "workers": {"count": 1}},
        }
    )
    status = new_status(cluster, build.found(), seen(), IMAGE, None, UNPROVEN, NOW)
    manifest = status_manifest(cluster.metadata, status)
    assert manifest["metadata"] == {"name": "x", "namespace": "ns", "resourceVersion": "77"}
    assert manifest["status"]["engine"] == {"image": IMAGE}
    assert LlamaClusterStatus.model_validate(manifest["status"]) == status


def test_before_the_first_plan_there_are_no_groups_to_tell_of() -> None:
    planning = Found(PLANNING)
    status = new_status(
        llama_cluster(replicas=2), planning, nothing_seen(), "engine:1", None, UNPROVEN, NOW
    )
    assert (status.groups, status.replicas, status.plan) == ([], 0, None)
    assert status.engine is not None
    assert status.engine.image == "engine:1"


def test_groups_are_told_of_while_the_newest_spec_has_no_plan() -> None:
    before = llama_cluster(status={"plan": a_plan().model_dump(mode="json", by_alias=True)})
    status = new_status(
        before, Found(PLANNING), seen(ready_group()), "engine:2", None, UNPROVEN, NOW
    )
    assert [g.phase for g in status.groups] == [GroupPhase.SERVING]
    assert status.plan == a_plan()
    assert status.engine is not None
    assert status.engine.image == IMAGE
    assert {c.type: c.reason for c in status.conditions}["Ready"] == "Planning"


def ready_and_held(*held: int, index: int = 0, **says: Any) -> Group:
    """A Ready group whose workers hold this many MiB."""
    status = build.leader_status(Phase.Serving, "Ready", held=[n * MIB for n in held], **says)
    return build.group(pod(0, group=index, ready=True), index=index, status=status)


def long_ready(**status: Any) -> LlamaCluster:
    """A LlamaCluster whose two groups have been Ready for long."""
    groups = [build.group_status(index, since=EARLIER) for index in range(2)]
    stored = [group.model_dump(mode="json", by_alias=True) for group in groups]
    return llama_cluster(status={**status, "groups": stored})


def degraded(status: LlamaClusterStatus) -> str:
    return next(c.reason for c in status.conditions if c.type == "Degraded")


def test_what_the_engines_hold_stands_beside_the_plan() -> None:
    groups = [ready_and_held(1500, 1550, leader_held=90 * MIB), ready_and_held(1600, 1540, index=1)]
    status = new_status(long_ready(), build.found(), seen(*groups), IMAGE, None, UNPROVEN, NOW)
    assert status.plan is not None
    assert [worker.observed for worker in status.plan.per_worker] == ["1600Mi", "1550Mi"]
    assert status.plan.leader.observed == "90Mi"
    assert degraded(status) == "AsExpected"


HELD = ready_and_held(3000, 1500)


@pytest.mark.parametrize(
    ("cluster", "observation", "measured"),
    [
        (long_ready(), seen(HELD), True),
        (long_ready(), seen(HELD, rolled_out=False), False),
        (long_ready(), Observation(group_set(), {0: build.group(pod(0, ready=True))}), False),
        (long_ready(), Observation(group_set(), {0: replace(HELD, leader=pod(0))}), False),
        (long_ready(), nothing_seen(), False),
        (llama_cluster(), seen(HELD), False),
    ],
    ids=["all have the plan", "a rollout", "no answer", "not Ready", "no group", "Ready just now"],
)
def test_only_loaded_groups_of_this_very_plan_are_measured(
    cluster: LlamaCluster, observation: Observation, measured: bool
) -> None:
    status = new_status(cluster, build.found(), observation, IMAGE, None, UNPROVEN, NOW)
    assert (degraded(status) == "PlanDrift") is measured


def test_a_drift_is_not_over_because_an_agent_does_not_answer() -> None:
    drifted = new_status(long_ready(), build.found(), seen(HELD), IMAGE, None, UNPROVEN, NOW)
    stored = drifted.model_dump(mode="json", by_alias=True)
    cluster = long_ready(conditions=stored["conditions"], plan=stored["plan"])
    plan = build.found(drifted.plan)
    again = new_status(cluster, plan, seen(ready_group()), IMAGE, None, UNPROVEN, NOW)
    assert condition(again, "Degraded") == condition(drifted, "Degraded")
    healed = new_status(cluster, plan, seen(ready_and_held(1500, 1500)), IMAGE, None, UNPROVEN, NOW)
    assert degraded(healed) == "AsExpected"


def looks(groups: list[Any], *verdicts: Verdict, after: float = 0) -> float | None:
    """The wait for the next look at these groups, `after` seconds after they came to be so."""
    status = status_of(*(verdicts or (PLANNED,))).model_copy(update={"groups": groups})
    return next_look(status, datetime.fromisoformat(NOW) + timedelta(seconds=after))


def test_what_is_on_its_way_is_looked_at_often_at_first_and_seldom_later() -> None:
    loading = [build.group_status(), build.group_status(1, GroupPhase.LOADING, since=NOW)]
    assert looks(loading) == SOON_SECONDS
    assert looks(loading, after=60) == 6
    assert looks(loading, after=3600) == LATER_SECONDS
    assert looks([], PLANNING) == SOON_SECONDS
    assert looks([], PLANNING, after=3600) == LATER_SECONDS
    assert looks([], Verdict("Planned", False, "ModelNotFound", "m"), after=60) == 6


def test_a_group_that_became_ready_is_looked_at_once_more_when_it_has_loaded() -> None:
    ready = [build.group_status(since=NOW)]
    assert looks(ready) == SETTLED_SECONDS
    assert looks(ready, after=10) == SETTLED_SECONDS - 10
    assert looks(ready, after=SETTLED_SECONDS - 0.1) == SOON_SECONDS
    assert looks(ready, after=SETTLED_SECONDS) is None


def test_what_only_a_person_can_change_is_not_looked_at() -> None:
    assert looks([]) is None
    assert looks([], DOES_NOT_FIT) is None


def status_of(*verdicts: Verdict, plan: str | None = None) -> LlamaClusterStatus:
    before = LlamaClusterStatus(plan=a_plan(inputs_hash=plan) if plan else None)
    return refused_status(llama_cluster().metadata, before, list(verdicts), NOW)


def ready_is(status: bool, reason: str, message: str = "m") -> LlamaClusterStatus:
    return status_of(Verdict("Ready", status, reason, message))


IS_READY = Verdict("Ready", True, "Ready", "m")
WAITS = Verdict("Ready", False, "PodsPending", "m")
DRIFTS = Verdict("Degraded", True, "PlanDrift", "worker 1 holds more")
FAILS = Verdict("Ready", False, "DoesNotFit", "m")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (LlamaClusterStatus(), ready_is(False, "PodsPending"), ["Normal PodsPending"]),
        (ready_is(False, "Loading"), ready_is(True, "Ready"), ["Normal Ready"]),
        (ready_is(True, "Ready"), ready_is(False, "WorkerLost"), ["Warning WorkerLost"]),
        (ready_is(False, "Loading"), ready_is(False, "Probing"), ["Normal Probing"]),
        (ready_is(False, "Loading"), status_of(*refused("Rejected", "m")), ["Warning Rejected"]),
        (ready_is(False, "Loading", "1 %"), ready_is(False, "Loading", "2 %"), []),
        (ready_is(True, "Ready"), LlamaClusterStatus(), []),
        (
            ready_is(True, "Ready").model_copy(update={"observed_generation": 0}),
            ready_is(False, "RollingOut"),
            ["Normal RollingOut"],
        ),
        (
            status_of(Verdict("Ready", False, "Planning", "m"), PLANNING),
            status_of(WAITS, PLANNED, plan="1"),
            ["Normal Planned", "Normal PodsPending"],
        ),
        (status_of(IS_READY, PLANNED, plan="1"), status_of(IS_READY, PLANNED, plan="1"), []),
        (
            status_of(IS_READY, PLANNED, plan="1"),
            status_of(IS_READY, PLANNED, plan="2"),
            ["Normal Planned"],
        ),
        (
            status_of(WAITS, PLANNING),
            status_of(FAILS, DOES_NOT_FIT, Verdict("Degraded", True, "DoesNotFit", "m"), plan="1"),
            ["Warning DoesNotFit"],
        ),
        (
            status_of(IS_READY, PLANNED, plan="1"),
            status_of(IS_READY, DRIFTS, PLANNED, plan="1"),
            ["Warning PlanDrift"],
        ),
        (
            status_of(WAITS, PLANNED, plan="1"),
            status_of(IS_READY, DRIFTS, PLANNED, plan="1"),
            ["Normal Ready", "Warning PlanDrift"],
        ),
        (status_of(IS_READY, DRIFTS), status_of(IS_READY, DRIFTS), []),
    ],
)
def test_events_tell_of_a_transition(
    before: LlamaClusterStatus, after: LlamaClusterStatus, expected: list[str]
) -> None:
    events = transition_events(llama_cluster().metadata, before, after, NOW)
    assert [f"{event['type']} {event['reason']}" for event in events] == expected


def test_an_event_speaks_of_the_cluster_and_is_not_too_long() -> None:
    after = ready_is(False, "Unschedulable", "m" * 5000)
    [event] = transition_events(llama_cluster().metadata, LlamaClusterStatus(), after, NOW)
    assert event["involvedObject"]["uid"] == llama_cluster().metadata.uid
    assert len(event["message"]) == MAX_MESSAGE
