"""The LeaderWorkerSet: groups of one leader and its workers."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacluster.api.llamacluster import MAX_NAME_LENGTH
from llamacluster.resources.leaderpod import leader_pod
from llamacluster.resources.leaderworkerset import (
    keep_running,
    leader_worker_set,
    running_image,
    running_plan,
    runs_this_spec,
    workers_of,
)
from llamacluster.resources.metadata import (
    PLAN_LABEL,
    SPEC_HASH_ANNOTATION,
    group_set_name,
    labels,
    service_name,
)
from llamacluster.resources.workerpod import worker_pod
from tests.build import IMAGE, UID, a_plan, llama_cluster

PLAN = a_plan()
names = st.from_regex(rf"[a-z]([-a-z0-9]{{0,{MAX_NAME_LENGTH - 2}}}[a-z0-9])?", fullmatch=True)


def test_a_group_is_a_leader_and_its_workers() -> None:
    cluster, plan = llama_cluster(replicas=3), a_plan(3, 2, 2, 2)
    spec = leader_worker_set(cluster, IMAGE, plan)["spec"]
    assert spec["replicas"] == 3
    template = spec["leaderWorkerTemplate"]
    assert template["size"] == 5
    assert template["leaderTemplate"] == leader_pod(cluster, IMAGE, plan)
    assert template["workerTemplate"] == worker_pod(cluster, IMAGE, plan)


def test_a_restarted_container_does_not_take_its_group_with_it() -> None:
    spec = leader_worker_set(llama_cluster(), IMAGE, PLAN)["spec"]
    assert spec["leaderWorkerTemplate"]["restartPolicy"] == "None"


def test_workers_do_not_wait_for_a_leader_that_waits_for_them() -> None:
    assert (
        leader_worker_set(llama_cluster(), IMAGE, PLAN)["spec"]["startupPolicy"] == "LeaderCreated"
    )


def test_it_is_owned_by_the_cluster_and_goes_with_it() -> None:
    metadata = leader_worker_set(llama_cluster(), IMAGE, PLAN)["metadata"]
    assert metadata["namespace"] == "ns"
    assert metadata["labels"] == {**labels(llama_cluster()), PLAN_LABEL: PLAN.inputs_hash}
    [owner] = metadata["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("LlamaCluster", "x", UID)
    assert owner["controller"] is True


@pytest.mark.parametrize(
    ("wanted", "unavailable", "surge"),
    [
        ({}, 1, 0),
        ({"maxUnavailable": 3}, 3, 0),
        ({"maxSurge": 1}, 0, 1),
        ({"maxSurge": 1, "maxUnavailable": 1}, 1, 1),
    ],
)
def test_a_group_that_is_added_for_a_rollout_is_there_so_that_none_goes_before(
    wanted: dict[str, int], unavailable: int, surge: int
) -> None:
    made = leader_worker_set(llama_cluster(rollout=wanted), IMAGE, PLAN)
    assert made["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"] == {
        "maxUnavailable": unavailable,
        "maxSurge": surge,
    }


@given(names)
def test_every_name_is_valid_and_none_is_used_twice(name: str) -> None:
    cluster = llama_cluster(name)
    assert len(group_set_name(cluster)) <= 45
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", group_set_name(cluster))
    # LeaderWorkerSet makes a headless Service of its own name.
    assert service_name(cluster) != group_set_name(cluster)


def test_storage_is_a_claim_for_each_pod_that_goes_with_the_cluster() -> None:
    storage = {"size": "40Gi", "storageClassName": "fast", "accessModes": ["ReadWriteOncePod"]}
    cluster = llama_cluster(model={"uri": "http://h/m.gguf", "storage": storage})
    template = leader_worker_set(cluster, IMAGE, PLAN)["spec"]["leaderWorkerTemplate"]
    assert template["volumeClaimTemplates"] == [
        {
            "metadata": {"name": "model", "labels": labels(cluster)},
            "spec": {
                "accessModes": ["ReadWriteOncePod"],
                "resources": {"requests": {"storage": "40Gi"}},
                "storageClassName": "fast",
            },
        }
    ]
    assert template["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"


def test_the_clusters_default_storage_class_is_left_to_the_cluster() -> None:
    model = {"uri": "http://h/m.gguf", "storage": {"size": "40Gi"}}
    template = leader_worker_set(llama_cluster(model=model), IMAGE, PLAN)["spec"][
        "leaderWorkerTemplate"
    ]
    [claim] = template["volumeClaimTemplates"]
    assert "storageClassName" not in claim["spec"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_without_storage_there_is_no_claim() -> None:
    template = leader_worker_set(llama_cluster(), IMAGE, PLAN)["spec"]["leaderWorkerTemplate"]
    assert template.keys().isdisjoint(
        {"volumeClaimTemplates", "persistentVolumeClaimRetentionPolicy"}
    )


@given(st.integers(0, 50), st.integers(0, 50))
def test_scaling_does_not_change_the_template_and_so_rolls_nothing(one: int, other: int) -> None:
    first = leader_worker_set(llama_cluster(replicas=one), IMAGE, PLAN)["spec"]
    second = leader_worker_set(llama_cluster(replicas=other), IMAGE, PLAN)["spec"]
    assert first["leaderWorkerTemplate"] == second["leaderWorkerTemplate"]


@pytest.mark.parametrize(
    ("fields", "other_pods"),
    [
        ({"replicas": 2}, False),
        ({"rollout": {"maxSurge": 1, "progressDeadlineSeconds": 60}}, False),
        ({"server": {"service": {"type": "NodePort"}}}, False),
        ({"inference": {"contextSize": 4096}}, False),  # the default, said aloud
        ({"inference": {"contextSize": 64}}, True),
        ({"server": {"port": 9000}}, True),
        ({"image": "localhost/mine:1"}, True),
        ({"leader": {"threads": 3}}, True),
    ],
)
def test_only_a_change_of_the_pods_asks_for_other_pods(
    fields: dict[str, Any], other_pods: bool
) -> None:
    def spec_hash(**spec: Any) -> str:
        group_set = leader_worker_set(llama_cluster(**spec), IMAGE, PLAN)
        hashed: str = group_set["metadata"]["annotations"][SPEC_HASH_ANNOTATION]
        return hashed

    assert (spec_hash(**fields) != spec_hash()) is other_pods


def test_a_newer_operator_finds_the_same_spec() -> None:
    # These stand on the objects of running groups. Should one change here, for example by another
    # default, an upgrade of the operator would restart the groups.
    hashes = [
        leader_worker_set(cluster, IMAGE, PLAN)["metadata"]["annotations"][SPEC_HASH_ANNOTATION]
        for cluster in (llama_cluster(), llama_cluster(inference={"contextSize": 64}, image="i"))
    ]
    assert hashes == ["6c1b82fa4c7f6ca1", "a7bc146eeb5fac83"]


def test_somebody_elses_edit_of_the_pods_is_not_kept() -> None:
    wanted = leader_worker_set(llama_cluster(), IMAGE, PLAN)
    edited = copy.deepcopy(wanted)
    edited["spec"]["leaderWorkerTemplate"]["size"] = 9
    assert keep_running(wanted, edited) == wanted


def test_what_runs_is_read_from_it() -> None:
    live = leader_worker_set(llama_cluster(), IMAGE, a_plan(3, 3, 2))
    template = live["spec"]["leaderWorkerTemplate"]
    template["leaderTemplate"]["spec"]["containers"].insert(0, {"name": "theirs", "image": "i"})
    assert (running_image(live), running_plan(live), workers_of(live)) == (IMAGE, "hash", 3)
    assert runs_this_spec(llama_cluster(replicas=7), live)
    assert not runs_this_spec(llama_cluster(inference={"contextSize": 64}), live)


def test_nothing_runs_without_it() -> None:
    assert (running_plan(None), workers_of(None)) == (None, 0)
    assert not runs_this_spec(llama_cluster(), None)


def test_another_plan_of_the_same_spec_restarts_nothing() -> None:
    live = leader_worker_set(llama_cluster(), IMAGE, PLAN)
    wanted = leader_worker_set(llama_cluster(), IMAGE, a_plan(3, 3, 2, inputs_hash="other"))
    kept = keep_running(wanted, live)
    assert kept["spec"] == live["spec"]
    assert running_plan(kept) == PLAN.inputs_hash
