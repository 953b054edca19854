"""What a node drain may take: one whole group at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llamacluster.agent.contract.messages import LeaderStatus, Phase
from llamacluster.api.status import GroupStatus
from llamacluster.controller.budget import LONG_SECONDS, NEW_SECONDS, Budget, budget
from llamacluster.controller.kubeapi import PODDISRUPTIONBUDGETS
from llamacluster.controller.observation import Group, Observation
from llamacluster.planning.reasons import Reason
from tests.build import Manifest, llama_cluster
from tests.unit.controller import build
from tests.unit.controller.build import pod
from tests.unit.controller.world import World

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def member(worker: int, group: int, *, age: float = 3600, since: float = 0, **how: Any) -> Manifest:
    """A pod that is `age` seconds old, and Ready or not `since` so many seconds."""
    made = pod(worker, group=group, **{"ready": True, **how})
    made["metadata"]["creationTimestamp"] = ago(age)
    made["status"]["conditions"][0]["lastTransitionTime"] = ago(since or age)
    return made


def group(index: int, *changed: Manifest, missing: int = 0) -> Group:
    """A group of two workers that serves, but for the pods given."""
    by_worker = {int(p["metadata"]["name"].rpartition("-")[2]) for p in changed if is_worker(p)}
    others = [member(w, index) for w in (1, 2) if w not in by_worker and w != missing]
    leader = [] if any(not is_worker(p) for p in changed) else [member(0, index)]
    return build.group(*leader, *others, *changed, index=index)


def is_worker(one: Manifest) -> bool:
    return str(one["metadata"]["name"]).count("-") == 3


def of(*groups: Group, said: GroupStatus | None = None) -> Budget:
    there = Observation({"spec": {}}, {group.index: group for group in groups})
    told = [said.model_dump(mode="json", by_alias=True)] if said else []
    cluster = llama_cluster(replicas=len(groups), status={"groups": told})
    return budget(cluster, there, NOW)


def unready_for(
    seconds: float, *changed: Manifest, says: LeaderStatus | None = None, missing: int = 0
) -> Group:
    """Group 0, whose leader has not been Ready for so long, and what its agent says."""
    found = group(0, member(0, 0, ready=False, since=seconds), *changed, missing=missing)
    return replace(found, status=says)


def test_while_all_serve_one_pod_may_go() -> None:
    assert of(group(0), group(1)) == Budget(down=(), allowed=1, settling=False)


def test_all_of_a_group_that_is_down_may_go_and_nothing_of_the_others() -> None:
    unready = member(0, 1, ready=False, since=10)
    assert of(group(0), group(1, unready)) == Budget(down=(1,), allowed=0, settling=False)


def test_a_group_is_down_before_its_leader_has_noticed() -> None:
    expected = Budget(down=(0,), allowed=0, settling=True)
    assert of(group(0, member(1, 0, deleting=True)), group(1)) == expected
    assert of(group(0, missing=2), group(1)) == expected
    assert of(group(0, member(1, 0, age=NEW_SECONDS - 1)), group(1)) == expected
    assert of(group(0, member(1, 0, age=NEW_SECONDS)), group(1)).down == ()


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        (Phase.Waiting, Reason.WaitingForWorkers),
        (Phase.Failed, Reason.EngineFailed),
        (Phase.Failed, Reason.ModelNotFound),
        (Phase.Serving, Reason.Ready),  # which its gate lets nobody see
    ],
)
def test_a_group_that_gets_nowhere_does_not_hold_up_drains_for_ever(
    phase: Phase, reason: Reason
) -> None:
    def after(seconds: float) -> Budget:
        return of(unready_for(seconds, says=build.leader_status(phase, reason)), group(1))

    assert after(LONG_SECONDS - 1) == Budget(down=(0,), allowed=0, settling=False)
    # Two: Kubernetes misses the leader that the budget leaves out.
    assert after(LONG_SECONDS) == Budget(down=(0,), allowed=2, settling=False)


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        (Phase.Waiting, Reason.Downloading),
        (Phase.Waiting, Reason.Verifying),
        (Phase.Attaching, Reason.Attaching),
        (Phase.Loading, Reason.Loading),
        (Phase.Verifying, Reason.Probing),
    ],
)
def test_a_group_on_its_way_holds_up_drains_however_long_it_takes(
    phase: Phase, reason: Reason
) -> None:
    loading = unready_for(24 * 3600, says=build.leader_status(phase, reason))
    assert of(loading, group(1)) == Budget(down=(0,), allowed=0, settling=False)


def test_a_drain_that_takes_a_second_worker_of_a_group_that_loads_takes_no_other_group() -> None:
    long = 4 * LONG_SECONDS
    says = build.leader_status(Phase.Failed, Reason.WorkerLost)
    said = build.group_status(reason=Reason.Loading, since=ago(long))
    for then in (
        unready_for(long, member(1, 0, deleting=True), says=says),
        unready_for(long, missing=1, says=says),
        unready_for(long, member(1, 0, age=60), says=says),
    ):
        assert of(then, group(1), said=said).allowed == 0


def test_an_agent_that_does_not_answer_is_silent_from_when_the_status_says_so() -> None:
    def silent(reason: str, since: float, *, failing: bool = False) -> int:
        said = build.group_status(reason=reason, since=ago(since), failing=failing)
        return of(unready_for(4 * LONG_SECONDS), group(1), said=said).allowed

    assert silent("Loading", 2 * LONG_SECONDS) == 0
    assert silent("AgentUnreachable", LONG_SECONDS - 1) == 0
    assert silent("AgentUnreachable", LONG_SECONDS) == 2
    assert silent("ContainerFailed", 5, failing=True) == 2  # and before that in another way


@pytest.mark.parametrize("failing", [False, True])
def test_a_group_of_which_nothing_is_left_is_down(failing: bool) -> None:
    def after(seconds: float, reason: str = "PodsPending") -> Budget:
        said = build.group_status(1, reason=reason, since=ago(seconds), failing=failing)
        told = {"groups": [said.model_dump(mode="json", by_alias=True)]}
        cluster = llama_cluster(replicas=2, status=told)
        return budget(cluster, Observation({"spec": {}}, {0: group(0)}), NOW)

    assert after(10) == Budget(down=(1,), allowed=0, settling=False)
    assert after(LONG_SECONDS).allowed == 2
    assert after(LONG_SECONDS, "Ready").allowed == 0  # it has been until now


def test_a_group_that_goes_by_a_scale_down_is_not_missed() -> None:
    def after(seconds: float) -> Budget:
        leader = member(0, 1, ready=False, since=3600)
        leader["metadata"]["deletionTimestamp"] = ago(seconds)  # the end of its grace period
        said = build.group_status(1, reason="Stopping").model_dump(mode="json", by_alias=True)
        cluster = llama_cluster(replicas=1, status={"groups": [said]})
        there = Observation({"spec": {}}, {0: group(0), 1: group(1, leader)})
        return budget(cluster, there, NOW)

    assert after(-600).allowed == 0
    assert after(LONG_SECONDS) == Budget(down=(1,), allowed=1, settling=False)


def test_no_group_is_no_reason_to_hold_a_node() -> None:
    assert of().allowed == 1


async def test_the_budget_is_written_when_a_group_goes_down_and_when_it_is_back() -> None:
    def spec() -> Manifest:
        found: Manifest = world.stored(PODDISRUPTIONBUDGETS)["spec"]
        return found

    world = World(now=NOW)
    world.creates(replicas=2)
    await world.reconcile()
    world.rolled_out(2)
    world.pods(*(p for index in (0, 1) for p in group(index).pods))
    await world.reconcile()
    assert spec()["maxUnavailable"] == 1
    assert spec()["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    [component] = spec()["selector"]["matchExpressions"]
    assert component["values"] == ["leader", "worker"]
    assert await world.writes() == 0

    world.pods(member(1, 0, deleting=True))
    assert await world.reconcile() == NEW_SECONDS
    assert spec()["maxUnavailable"] == 0
    assert spec()["selector"]["matchExpressions"][1] == {
        "key": "leaderworkerset.sigs.k8s.io/group-index",
        "operator": "NotIn",
        "values": ["0"],
    }
    assert await world.writes() == 0
    world.pods(member(1, 0))
    await world.reconcile()
    assert spec()["maxUnavailable"] == 1
    assert await world.writes() == 0
