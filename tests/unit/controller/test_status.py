"""The status as a whole, and the event that goes with it."""

from __future__ import annotations

import pytest

from llamacluster.api.types import GroupPhase, LlamaCluster, LlamaClusterStatus
from llamacluster.controller.conditions import Rollout, Verdict, refused
from llamacluster.controller.events import MAX_MESSAGE, transition_event
from llamacluster.controller.observation import Group, Observation
from llamacluster.controller.status import (
    new_status,
    refused_status,
    rollout,
    status_manifest,
    unsettled,
)
from tests.build import IMAGE, Manifest, llama_cluster
from tests.unit.controller import build
from tests.unit.controller.build import NOW, pod


def seen(*groups: Group, group_set: Manifest | None = None) -> Observation:
    return Observation(group_set, {group.index: group for group in groups})


def ready_group(index: int = 0) -> Group:
    return build.group(pod(0, group=index, ready=True), index=index)


def test_groups_that_do_not_exist_yet_are_in_the_status() -> None:
    status = new_status(llama_cluster(replicas=2), seen(ready_group()), IMAGE, NOW)
    assert [(g.index, g.phase) for g in status.groups] == [
        (0, GroupPhase.READY),
        (1, GroupPhase.PENDING),
    ]
    assert (status.replicas, status.ready_replicas) == (1, 1)


def test_groups_that_are_still_there_after_a_scale_down_are_in_the_status() -> None:
    status = new_status(llama_cluster(replicas=1), seen(ready_group(), ready_group(1)), IMAGE, NOW)
    assert [g.index for g in status.groups] == [0, 1]


def test_the_selector_is_the_leaders_for_autoscalers() -> None:
    status = new_status(llama_cluster(), seen(), IMAGE, NOW)
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
    ],
)
def test_the_models_file_is_shown_without_where_it_comes_from(uri: str, file: str) -> None:
    status = new_status(llama_cluster(model={"uri": uri}), seen(), IMAGE, NOW)
    assert status.model_file == file


def test_the_engines_version_is_kept_while_no_agent_answers() -> None:
    first = build.group(pod(0), status=build.leader_status())
    status = new_status(llama_cluster(), seen(first), IMAGE, NOW)
    later = llama_cluster(status=status.model_dump(mode="json", by_alias=True, exclude_none=True))
    again = new_status(later, seen(build.group(pod(0))), IMAGE, NOW)
    assert again.engine is not None
    assert again.engine.version == "b9000"


@pytest.mark.parametrize(
    ("group_set", "expected"),
    [
        (None, Rollout(2, 0, observed=False)),
        ({"metadata": {"generation": 1}}, Rollout(2, 0, observed=False)),
        (
            {
                "metadata": {"generation": 3},
                "status": {"observedGeneration": 2, "updatedReplicas": 2},
            },
            Rollout(2, 0, observed=False),
        ),
        (
            {
                "metadata": {"generation": 3},
                "status": {"observedGeneration": 3, "updatedReplicas": 3},
            },
            Rollout(2, 2, observed=True),
        ),
    ],
    ids=["no LeaderWorkerSet", "no status", "a status of an older spec", "more groups than wanted"],
)
def test_rollout(group_set: Manifest | None, expected: Rollout) -> None:
    assert rollout(llama_cluster(replicas=2), group_set) == expected


def test_what_was_seen_before_stays_when_nothing_can_be_applied() -> None:
    cluster = llama_cluster(generation=2)
    before = new_status(cluster, seen(ready_group()), IMAGE, NOW)
    after = refused_status(cluster.metadata, before, refused("NameConflict", "m"), NOW)
    assert after.groups == before.groups
    assert after.observed_generation == 2
    assert {c.reason for c in after.conditions} == {"NameConflict"}


def test_the_status_is_applied_to_the_version_that_was_read_and_says_nothing_empty() -> None:
    cluster = LlamaCluster.model_validate(
        {
            "metadata": {"name": "x", "namespace": "ns", "resourceVersion": "77"},
            "spec": {"model": {"uri": "http://h/m.gguf"}, "workers": {"count": 1}},
        }
    )
    status = new_status(cluster, seen(), IMAGE, NOW)
    manifest = status_manifest(cluster.metadata, status)
    assert manifest["metadata"] == {"name": "x", "namespace": "ns", "resourceVersion": "77"}
    assert manifest["status"]["engine"] == {"image": IMAGE}
    assert LlamaClusterStatus.model_validate(manifest["status"]) == status


def test_only_ready_groups_are_settled() -> None:
    assert not unsettled([])
    assert not unsettled([build.group_status()])
    assert unsettled([build.group_status(), build.group_status(1, GroupPhase.FAILED)])


def status_of(*verdicts: Verdict) -> LlamaClusterStatus:
    return refused_status(llama_cluster().metadata, LlamaClusterStatus(), list(verdicts), NOW)


def ready_is(status: bool, reason: str, message: str = "m") -> LlamaClusterStatus:
    return status_of(Verdict("Ready", status, reason, message))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (LlamaClusterStatus(), ready_is(False, "PodsPending"), ("Normal", "PodsPending")),
        (ready_is(False, "Loading"), ready_is(True, "Ready"), ("Normal", "Ready")),
        (ready_is(True, "Ready"), ready_is(False, "WorkerLost"), ("Warning", "WorkerLost")),
        (ready_is(False, "Loading"), ready_is(False, "Probing"), ("Normal", "Probing")),
        (ready_is(False, "Loading"), status_of(*refused("Rejected", "m")), ("Warning", "Rejected")),
        (ready_is(False, "Loading", "1 %"), ready_is(False, "Loading", "2 %"), None),
        (ready_is(True, "Ready"), LlamaClusterStatus(), None),
        (
            ready_is(True, "Ready").model_copy(update={"observed_generation": 0}),
            ready_is(False, "RollingOut"),
            ("Normal", "RollingOut"),
        ),
    ],
)
def test_an_event_tells_of_a_transition(
    before: LlamaClusterStatus, after: LlamaClusterStatus, expected: tuple[str, str] | None
) -> None:
    event = transition_event(llama_cluster().metadata, before, after, NOW)
    assert (event and (event["type"], event["reason"])) == expected


def test_an_event_speaks_of_the_cluster_and_is_not_too_long() -> None:
    after = ready_is(False, "Unschedulable", "m" * 5000)
    event = transition_event(llama_cluster().metadata, LlamaClusterStatus(), after, NOW)
    assert event is not None
    assert event["involvedObject"]["uid"] == llama_cluster().metadata.uid
    assert len(event["message"]) == MAX_MESSAGE
