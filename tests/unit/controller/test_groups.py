"""Each state of the pods and each word of the agent leads to the right phase and reason."""

from __future__ import annotations

import pytest

from llamacluster.agent.contract.messages import LastFailure, Phase, Progress
from llamacluster.api.status import GroupPhase, GroupStatus
from llamacluster.controller import groups
from llamacluster.controller.conditions import Rollout, verdicts
from llamacluster.controller.observation import Group, sorted_into_groups
from tests.unit.controller import build
from tests.unit.controller.build import EARLIER, NOW, pod, terminated, waiting

LEADER, WORKERS = pod(0), (pod(1), pod(2))
RUNNING = (LEADER, *WORKERS)
LOADING = build.leader_status(Phase.Loading, "Loading", "loading the model", attached=2)


@pytest.mark.parametrize(
    ("case", "group", "phase", "reason", "message"),
    [
        (
            "a ready leader is a ready group",
            build.group(pod(0, ready=True), *WORKERS),
            *(GroupPhase.SERVING, "Ready", "2 workers attached, answers requests"),
        ),
        (
            "a leader that is being deleted is stopping, however ready it says it is",
            build.group(pod(0, ready=True, deleting=True), *WORKERS, status=LOADING),
            *(GroupPhase.DRAINING, "Stopping", "pod x-group-0 is being deleted"),
        ),
        (
            "an evicted pod",
            build.group(
                LEADER,
                pod(1, phase="Failed", reason="Evicted", message="The node was low on memory."),
            ),
            *(GroupPhase.WAITING, "Evicted"),
            "pod x-group-0-1 failed: Evicted: The node was low on memory.",
        ),
        (
            "a pod that a node refused without a word",
            build.group(LEADER, pod(1, phase="Failed", reason="OutOfcpu")),
            *(GroupPhase.WAITING, "Evicted", "pod x-group-0-1 failed: OutOfcpu"),
        ),
        (
            "a worker that fits nowhere, in the scheduler's words",
            build.group(LEADER, pod(1), build.unschedulable_pod(2), status=LOADING),
            *(GroupPhase.WAITING, "Unschedulable"),
            "no node for pod x-group-0-2: 0/3 nodes: too little memory",
        ),
        *(
            (
                f"an image that cannot be pulled: {reason}",
                build.group(pod(0, phase="Pending", state=waiting(reason, "back-off 10s"))),
                *(GroupPhase.WAITING, "ImagePullFailed"),
                "pod x-group-0 cannot pull image localhost/engine:1: "
                "check spec.image and spec.imagePullSecrets",
            )
            for reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName")
        ),
        (
            "a container that cannot be made",
            build.group(
                pod(0, phase="Pending", state=waiting("CreateContainerConfigError", "no claim"))
            ),
            *(GroupPhase.WAITING, "ContainerFailed"),
            "pod x-group-0: CreateContainerConfigError: no claim",
        ),
        (
            "a container killed at its memory limit, started again",
            build.group(LEADER, pod(1, last_state=terminated("OOMKilled", 137)), status=LOADING),
            *(GroupPhase.WAITING, "OutOfMemory"),
            "pod x-group-0-1 was killed at its memory limit: raise resources.limits.memory, "
            "add workers, or use a smaller context",
        ),
        (
            "a container just killed at its memory limit",
            build.group(LEADER, pod(1, state=terminated("OOMKilled", 137))),
            *(GroupPhase.WAITING, "OutOfMemory", "pod x-group-0-1 was killed"),
        ),
        (
            "a container that ends again and again, with its last words",
            build.group(
                pod(
                    0,
                    state=waiting("CrashLoopBackOff", "back-off 40s"),
                    last_state=terminated("Error", 2, "usage: ...\nunknown flag --foo\n"),
                )
            ),
            *(GroupPhase.WAITING, "ContainerFailed"),
            "container leader of pod x-group-0 ended with exit code 2: unknown flag --foo",
        ),
        (
            "a container that ended without a word",
            build.group(LEADER, pod(1, state=terminated("Error", 1))),
            *(GroupPhase.WAITING, "ContainerFailed"),
            "container worker of pod x-group-0-1 ended with exit code 1",
        ),
        (
            "what the agent says, when nothing is wrong with the pods",
            build.group(*RUNNING, status=LOADING),
            *(GroupPhase.LOADING, "Loading", "loading the model"),
        ),
        (
            "what the agent says of a worker that is being deleted and so has ended",
            build.group(
                LEADER,
                pod(1, deleting=True, state=terminated("Completed", 0)),
                pod(2),
                status=build.leader_status(Phase.Failed, "WorkerLost", "x-group-0-1 is gone"),
            ),
            *(GroupPhase.WAITING, "WorkerLost", "x-group-0-1 is gone"),
        ),
        (
            "what the agent says of a worker that was killed for memory once and runs again",
            build.group(
                LEADER,
                pod(1, ready=True, last_state=terminated("OOMKilled", 137)),
                pod(2),
                status=LOADING,
            ),
            *(GroupPhase.LOADING, "Loading", "loading the model"),
        ),
        (
            "no pod at all",
            build.group(),
            *(GroupPhase.WAITING, "PodsPending", "the leader pod does not exist yet"),
        ),
        (
            "a leader without workers",
            build.group(LEADER),
            *(GroupPhase.WAITING, "PodsPending", "2 of 2 worker pods do not exist yet"),
        ),
        (
            "pods that start",
            build.group(LEADER, pod(1, phase="Pending"), pod(2, phase="Pending")),
            *(GroupPhase.WAITING, "PodsPending", "x-group-0-1, x-group-0-2 not running yet"),
        ),
        (
            "an agent that does not answer",
            build.group(*RUNNING),
            *(GroupPhase.WAITING, "AgentUnreachable", "does not answer the operator"),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_groups_state(
    case: str, group: Group, phase: GroupPhase, reason: str, message: str
) -> None:
    found = groups.group_status(group, None, NOW)
    assert (found.phase, found.reason) == (phase, reason)
    assert message in found.message


# Each of these speaks whatever the ones after it would say.
FINDINGS = {
    "Stopping": pod(0, deleting=True),
    "Ready": pod(0, ready=True),
    "Evicted": pod(1, phase="Failed", reason="Evicted"),
    "Unschedulable": build.unschedulable_pod(2),
    "ImagePullFailed": pod(3, state=waiting("ImagePullBackOff")),
    "ContainerFailed": pod(4, state=terminated("Error", 1)),
}


@pytest.mark.parametrize("first", range(len(FINDINGS)))
def test_what_kubernetes_says_comes_in_this_order_and_before_the_agent(first: int) -> None:
    reasons, pods = list(FINDINGS)[first:], list(FINDINGS.values())[first:]
    if first > 1:
        pods.append(LEADER)
    group = build.group(*reversed(pods), size=4, status=LOADING)
    assert groups.group_status(group, None, NOW).reason == reasons[0]


@pytest.mark.parametrize(
    "phase", [phase for phase in Phase if phase not in (Phase.Serving, Phase.Failed)]
)
def test_every_phase_of_the_agent_is_a_phase_of_the_group(phase: Phase) -> None:
    group = build.group(*RUNNING, status=build.leader_status(phase))
    assert groups.group_status(group, None, NOW).phase.value == phase.value


def test_a_try_that_failed_waits_for_the_next_and_is_told_to_fail() -> None:
    group = build.group(*RUNNING, status=build.leader_status(Phase.Failed, "EngineBadFlag"))
    found = groups.group_status(group, None, NOW)
    assert (found.phase, found.reason, found.failing) == (
        GroupPhase.WAITING,
        "EngineBadFlag",
        True,
    )


def loads_after(count: int, progress: Progress | None = None) -> GroupStatus:
    """What is said of a group that loads after so many tries were killed at the end of the load."""
    failure: LastFailure = {"reason": "EngineFailed", "message": "killed (137)", "count": count}
    agent = build.leader_status(
        Phase.Loading, "Loading", "loading 9 bytes", failure=failure, progress=progress
    )
    return groups.group_status(build.group(*RUNNING, status=agent), None, NOW)


def test_a_group_whose_tries_fail_again_and_again_fails_while_it_tries() -> None:
    found = loads_after(3, {"bytes": 35, "total": 100, "secondsLeft": None})
    assert (found.phase, found.reason, found.failing) == (GroupPhase.LOADING, "EngineFailed", True)
    assert found.progress
    assert found.progress.percent == 35
    assert found.message == (
        "killed (137); 3 tries in a row have failed; now: loading 9 bytes (35 %)"
    )
    [ready, progressing, degraded, _] = verdicts(
        [found], Rollout(wanted=1, updated=1, observed=True), build.PLANNED, None
    )
    assert (degraded.status, degraded.reason, degraded.message) == (
        True,
        "EngineFailed",
        found.message,
    )
    assert (ready.status, progressing.status) == (False, False)


def test_one_failure_may_heal_by_the_next_try() -> None:
    found = loads_after(1)
    assert (found.reason, found.message, found.failing) == ("Loading", "loading 9 bytes", False)


def test_a_failure_tells_how_often_it_comes() -> None:
    failure: LastFailure = {"reason": "EngineFailed", "message": "killed (137)", "count": 2}
    agent = build.leader_status(Phase.Failed, "EngineFailed", "killed (137)", failure=failure)
    found = groups.group_status(build.group(*RUNNING, status=agent), None, NOW)
    assert found.message == "killed (137); 2 tries in a row have failed"


def test_a_group_that_stops_has_no_next_try() -> None:
    failure: LastFailure = {"reason": "EngineFailed", "message": "killed (137)", "count": 2}
    agent = build.leader_status(Phase.Draining, "Stopping", "told to stop", failure=failure)
    found = groups.group_status(build.group(*RUNNING, status=agent), None, NOW)
    assert (found.reason, found.failing) == ("Stopping", False)


def test_an_agent_that_does_not_tell_of_failures_is_believed() -> None:
    older = build.leader_status(Phase.Loading, "Loading", "loading 9 bytes")
    del older["lastFailure"]  # type: ignore[misc]
    found = groups.group_status(build.group(*RUNNING, status=older), None, NOW)
    assert (found.reason, found.failing) == ("Loading", False)


A_MINUTE_AGO = "2026-11-22T11:59:00Z"


def without_pods_since(
    since: str | None, group: Group, leader: str | None = "x-group-0"
) -> GroupStatus:
    """What is said of a group of which pods have been missing for so long, as the status said."""
    before = build.group_status(0, GroupPhase.WAITING, "WaitingForWorkers", "missing")
    before = before.model_copy(update={"pods_missing_since": since})
    return groups.group_status(group, before, NOW, leader=leader)


MISSING = build.leader_status(Phase.Waiting, "WaitingForWorkers", "2 of 4 workers missing")


@pytest.mark.parametrize(
    ("case", "group", "message"),
    [
        (
            "workers beyond a quota, whatever the agent says",
            build.group(*RUNNING, size=4, status=MISSING),
            "Kubernetes makes no pod x-group-0-3 and 1 more: "
            "`kubectl describe statefulset x-group-0` says why",
        ),
        (
            "a leader that is refused",
            build.group(),
            "Kubernetes makes no pod x-group-0: `kubectl describe statefulset x-group` says why",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_pod_that_kubernetes_does_not_make_for_a_minute(
    case: str, group: Group, message: str
) -> None:
    first = without_pods_since(None, group)
    assert first.pods_missing_since == NOW
    assert not first.failing
    found = without_pods_since(A_MINUTE_AGO, group)
    assert (found.reason, found.failing, found.message) == ("PodsMissing", True, message)
    assert found.pods_missing_since == A_MINUTE_AGO


@pytest.mark.parametrize(
    ("case", "group", "leader"),
    [
        ("all pods are there", build.group(*RUNNING), "x-group-0"),
        ("it goes, and its workers first", build.group(pod(0, deleting=True)), "x-group-0"),
        ("it went, and its workers follow", build.group(pod(1), pod(2)), None),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_group_that_misses_no_pod(case: str, group: Group, leader: str | None) -> None:
    found = without_pods_since(A_MINUTE_AGO, group, leader)
    assert found.pods_missing_since is None
    assert found.reason != "PodsMissing"


def test_what_the_scheduler_says_of_other_pods_comes_before_those_that_are_not_made() -> None:
    group = build.group(LEADER, build.unschedulable_pod(1), status=MISSING)
    assert without_pods_since(A_MINUTE_AGO, group).reason == "Unschedulable"


def test_a_group_that_has_served_recovers_whatever_it_waits_for() -> None:
    """Until it serves again; and it tells how long that took the last time."""
    said = groups.group_status(build.group(pod(0, ready=True)), None, NOW)
    took: list[str] = []
    for _ in range(2):
        for agent, message in (
            (build.leader_status(Phase.Failed, "WorkerLost", "lost"), "lost"),
            (build.leader_status(Phase.Waiting, "WaitingForWorkers", "missing"), "missing"),
            (LOADING, "loading the model"),
        ):
            said = groups.group_status(build.group(*RUNNING, status=agent), said, NOW)
            assert said.phase is GroupPhase.RECOVERING
            assert said.reason == agent["reason"]
            assert said.message.startswith(message)
        took.append(said.message)
        said = groups.group_status(build.group(pod(0, ready=True)), said, NOW)
        assert said.phase is GroupPhase.SERVING
    assert took == ["loading the model", "loading the model; the last recovery took 0 s"]


def test_a_group_whose_worker_leaves_drains_before_it_recovers() -> None:
    serving = groups.group_status(build.group(pod(0, ready=True)), None, NOW)
    draining = build.leader_status(Phase.Draining, "WorkerLeaving", "2 running requests finish")
    said = groups.group_status(build.group(*RUNNING, status=draining), serving, NOW)
    assert said.phase is GroupPhase.DRAINING
    said = groups.group_status(build.group(*RUNNING, status=LOADING), said, NOW)
    assert said.phase is GroupPhase.RECOVERING


def test_a_leader_that_the_service_does_not_have_yet_is_not_ready() -> None:
    group = build.group(*RUNNING, status=build.leader_status(Phase.Serving))
    found = groups.group_status(group, None, NOW)
    assert (found.phase, found.reason) == (GroupPhase.VERIFYING, "Probing")
    assert "x-group-0 is not in the Service yet" in found.message


def test_since_is_when_the_reason_changed_not_the_message() -> None:
    group = build.group(*RUNNING, status=LOADING)
    same = build.group_status(0, GroupPhase.LOADING, "Loading", "12 %")
    other = build.group_status(0, GroupPhase.LOADING, "Probing", "")
    assert groups.group_status(group, same, NOW).since == EARLIER
    assert groups.group_status(group, other, NOW).since == NOW


def test_attached_workers_are_counted_as_the_agent_says() -> None:
    status = build.leader_status(attached=1)
    assert (
        groups.group_status(build.group(*RUNNING, status=status), None, NOW).workers_attached == 1
    )
    assert groups.group_status(build.group(*RUNNING), None, NOW).workers_attached == 0


def test_pods_are_sorted_into_groups_by_leaderworkersets_labels() -> None:
    stranger = pod(0)
    stranger["metadata"]["labels"] = {"app": "debug"}
    unlabelled: dict[str, object] = {"metadata": {"name": "y"}}
    pods = [pod(2, group=1), pod(0, group=0), stranger, pod(1, group=1), unlabelled]
    first, second = sorted_into_groups(pods, 2)
    assert (first.index, first.leader, first.workers) == (0, pods[1], {})
    assert (second.index, second.leader) == (1, None)
    assert second.pods == [pods[3], pods[0]]


def test_a_group_of_a_former_size_is_known_by_its_pods() -> None:
    older, newer = sorted_into_groups([pod(0, size=5), pod(1, size=5), pod(0, group=1)], 2)
    assert (older.size, newer.size) == (5, 2)


def test_the_planners_pod_belongs_to_no_group() -> None:
    assert sorted_into_groups([build.plan_pod()], 2) == []
