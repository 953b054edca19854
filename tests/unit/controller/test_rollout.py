"""How far a rollout is, and whether it gets on."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.status import GroupPhase, GroupStatus
from llamacluster.controller.conditions import Rollout
from llamacluster.controller.observation import Observation
from llamacluster.controller.rollout import rollout
from tests.build import Manifest, llama_cluster
from tests.unit.controller.build import NOW, group, group_status, pod

LIMIT = 60
READY = group_status()
FAILED = group_status(1, GroupPhase.WAITING, "ChecksumMismatch", "another file", failing=True)
FORMING = group_status(1, GroupPhase.ATTACHING, "Attaching", "attaching 2 workers")


def ago(seconds: float) -> str:
    then = datetime.fromisoformat(NOW) - timedelta(seconds=seconds)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")


def seen(
    updated: int, *, groups: int = 2, under_way: bool = False, age: float = LIMIT, behind: int = 0
) -> Observation:
    """A LeaderWorkerSet with so many updated replicas, and its groups, made `age` seconds ago."""
    condition = {"type": "UpdateInProgress", "status": "True" if under_way else "False"}
    group_set: Manifest = {
        "metadata": {"generation": 3},
        "status": {
            "observedGeneration": 3 - behind,
            "updatedReplicas": updated,
            "conditions": [condition],
        },
    }
    found = {}
    for index in range(groups):
        leader = pod(0, group=index)
        leader["metadata"]["creationTimestamp"] = ago(age)
        found[index] = group(leader, index=index)
    return Observation(group_set, found)


def cluster(
    replicas: int = 2, *, reason: str = "RollingOut", since: float = LIMIT, generation: int = 1
) -> LlamaCluster:
    """Has been Progressing for this reason since so many seconds."""
    progressing = {
        "type": "Progressing",
        "status": "True" if reason == "RollingOut" else "False",
        "observedGeneration": 1,
        "lastTransitionTime": ago(since),
        "reason": reason,
        "message": "as it was said",
    }
    return llama_cluster(
        replicas=replicas,
        rollout={"progressDeadlineSeconds": LIMIT},
        status={"conditions": [progressing]},
        generation=generation,
    )


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        (Observation(None, {}), Rollout(2, 0, observed=False)),
        (seen(2, behind=1), Rollout(2, 0, observed=False)),
        (seen(2), Rollout(2, 2, observed=True)),
        (seen(3, groups=3), Rollout(2, 2, observed=True)),
        (seen(1, under_way=True), Rollout(2, 1, observed=True)),
        (seen(1, groups=3, under_way=True), Rollout(2, 0, observed=True)),
        (seen(2, groups=3, under_way=True), Rollout(2, 1, observed=True)),
        (seen(0, groups=0), Rollout(2, 0, observed=True)),
    ],
    ids=[
        *("no LeaderWorkerSet", "a status of an older spec", "done", "done, one more still there"),
        *("under way", "one more is made", "one more is there, and one", "nothing yet"),
    ],
)
def test_groups_that_are_there_for_the_rollout_only_do_not_count(
    observation: Observation, expected: Rollout
) -> None:
    assert rollout(llama_cluster(replicas=2), observation, [], NOW) == expected


def stuck(of: LlamaCluster, observation: Observation, *groups: GroupStatus) -> str | None:
    return rollout(of, observation, list(groups), NOW).stuck


def test_a_group_that_fails_for_too_long_is_named_with_its_reason() -> None:
    message = stuck(cluster(), seen(1), READY, FAILED)
    assert message is not None
    assert message.startswith("1 of 2 groups have the newest spec; group 1 does not get on: ")
    assert "ChecksumMismatch: another file" in message


def test_so_is_one_that_fits_nowhere() -> None:
    nowhere = group_status(1, GroupPhase.WAITING, "Unschedulable", "no node")
    assert "no node" in (stuck(cluster(), seen(1), READY, nowhere) or "")


@pytest.mark.parametrize(
    ("of", "observation", "group"),
    [
        (cluster(), seen(2), FAILED),
        (cluster(), seen(1, age=LIMIT - 1), FAILED),
        (cluster(since=LIMIT - 1), seen(1), FAILED),
        (cluster(reason="AsExpected"), seen(1), FAILED),
        (cluster(), seen(1), FORMING),
        (cluster(reason="RolloutStuck"), seen(1), READY),
        (cluster(reason="RolloutStuck"), seen(1, age=1), FORMING),
        (cluster(reason="RolloutStuck", generation=2), seen(1), FAILED),
        (llama_cluster(replicas=2), seen(1), FAILED),
    ],
    ids=[
        *("all groups have it", "a new group", "a new rollout", "the rollout begins"),
        *("a slow load", "it heals", "made anew", "another spec", "nothing said yet"),
    ],
)
def test_a_rollout_is_not_stuck_when(
    of: LlamaCluster, observation: Observation, group: GroupStatus
) -> None:
    assert stuck(of, observation, READY, group) is None


def test_another_try_of_the_group_is_no_progress() -> None:
    assert stuck(cluster(reason="RolloutStuck"), seen(1), READY, FORMING) == "as it was said"
