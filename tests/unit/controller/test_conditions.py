"""Ready, Progressing and Degraded: when each is true, and what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacluster.api.reasons import ClusterReason
from llamacluster.api.status import Condition, ConditionStatus, GroupPhase, GroupStatus
from llamacluster.controller.conditions import (
    Rollout,
    Verdict,
    degraded,
    delayed,
    progressing,
    ready,
    refused,
    verdicts,
    with_history,
)
from tests.unit.controller.build import (
    DOES_NOT_FIT,
    EARLIER,
    NOW,
    PLANNED,
    PLANNING,
    group_status,
)

DONE = Rollout(wanted=2, updated=2, observed=True)
ONE = Rollout(wanted=1, updated=1, observed=True)


def loading(index: int) -> GroupStatus:
    return group_status(index, GroupPhase.LOADING, "Loading", "loading the model")


def failed(index: int) -> GroupStatus:
    return group_status(index, GroupPhase.WAITING, "OutOfMemory", "pod was killed", failing=True)


def stopping(index: int) -> GroupStatus:
    return group_status(index, GroupPhase.DRAINING, "Stopping", "pod is being deleted")


def unschedulable(index: int) -> GroupStatus:
    return group_status(index, GroupPhase.WAITING, "Unschedulable", "no node for pod")


@pytest.mark.parametrize(
    ("case", "groups", "rollout", "status", "reason", "message"),
    [
        (
            "all groups answer",
            *([group_status(0), group_status(1)], DONE),
            *(True, "Ready", "2 groups answering requests"),
        ),
        (
            "the only group answers",
            *([group_status(0)], Rollout(1, 1, observed=True)),
            *(True, "Ready", "1 group answering requests"),
        ),
        (
            "the first group that does not answer says why",
            *([group_status(0), loading(1)], DONE),
            *(False, "Loading", "group 1: loading the model"),
        ),
        (
            "a single group is not named",
            *([loading(0)], Rollout(1, 1, observed=True)),
            *(False, "Loading", "loading the model"),
        ),
        (
            "groups that do not exist yet",
            *([group_status(0)], DONE),
            *(False, "PodsPending", "1 groups do not exist yet"),
        ),
        (
            "a surplus group does not stand in for a failed one",
            *([failed(0), group_status(1)], Rollout(1, 1, observed=True)),
            *(False, "OutOfMemory", "pod was killed"),
        ),
        (
            "a surplus group that stops takes nothing from those that are wanted",
            *([group_status(0), stopping(1)], Rollout(1, 1, observed=True)),
            *(True, "Ready", "1 group answering requests"),
        ),
        (
            "groups of an older spec answer",
            *([group_status(0), group_status(1)], Rollout(2, 1, observed=True)),
            *(True, "RollingOut", "1 of 2 groups have the newest spec"),
        ),
        (
            "LeaderWorkerSet has not seen the newest spec",
            *([group_status(0), group_status(1)], Rollout(2, 2, observed=False)),
            *(True, "RollingOut", "of 2 groups"),
        ),
        (
            "a further group stands in during a rollout",
            *([loading(0), group_status(1)], Rollout(1, 0, observed=True)),
            *(True, "RollingOut", "1 group answering requests; 0 of 1 groups have"),
        ),
        (
            "the only group is replaced",
            *([loading(0)], Rollout(1, 0, observed=True)),
            *(False, "Loading", "loading the model"),
        ),
        (
            "nothing is wanted",
            *([], Rollout(0, 0, observed=True)),
            *(False, "ScaledToZero", "replicas is 0"),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_ready(
    case: str,
    groups: list[GroupStatus],
    rollout: Rollout,
    status: bool,
    reason: str,
    message: str,
) -> None:
    verdict = ready(groups, rollout, PLANNED)
    assert (verdict.status, verdict.reason) == (status, reason)
    assert message in verdict.message


@pytest.mark.parametrize(
    ("case", "groups", "rollout", "status", "reason"),
    [
        ("nothing moves", [group_status(0), group_status(1)], DONE, False, "AsExpected"),
        ("a group loads", [group_status(0), loading(1)], DONE, True, "Loading"),
        ("a failed group gets nowhere", [failed(0), group_status(1)], DONE, False, "AsExpected"),
        ("groups are made", [group_status(0)], DONE, True, "PodsPending"),
        ("a group is replaced", [loading(0)], Rollout(1, 0, observed=True), True, "RollingOut"),
        ("a surplus group goes", [group_status(0), stopping(1)], ONE, True, "Stopping"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)  # fmt: skip
def test_progressing(
    case: str, groups: list[GroupStatus], rollout: Rollout, status: bool, reason: str
) -> None:
    verdict = progressing(groups, rollout, PLANNED)
    assert (verdict.status, verdict.reason) == (status, reason)


@pytest.mark.parametrize(
    ("case", "groups", "status", "reason"),
    [
        ("all is well", [group_status(0), loading(1)], False, "AsExpected"),
        ("a group failed", [group_status(0), failed(1)], True, "OutOfMemory"),
        ("a pod fits nowhere", [unschedulable(0)], True, "Unschedulable"),
        ("a failure comes before that", [unschedulable(0), failed(1)], True, "OutOfMemory"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_degraded(case: str, groups: list[GroupStatus], status: bool, reason: str) -> None:
    verdict = degraded(groups, DONE, PLANNED, None)
    assert (verdict.status, verdict.reason) == (status, reason)


def test_a_rollout_that_is_stuck_is_said_by_all_three() -> None:
    # Whatever the failing group says at this moment: it tries again and again.
    stuck = Rollout(2, 1, observed=True, stuck="group 1 does not get on")
    for groups, serves in (
        ([group_status(0), loading(1)], False),
        ([group_status(0), group_status(1), loading(2)], True),
    ):
        found = verdicts(groups, stuck, PLANNED, None)
        assert [(v.type, v.status, v.reason) for v in found[:3]] == [
            ("Ready", serves, "RolloutStuck"),
            ("Progressing", False, "RolloutStuck"),
            ("Degraded", True, "RolloutStuck"),
        ]
        assert found[0].message == "group 1 does not get on"


def test_a_new_spec_that_fails_alone_says_its_own_reason() -> None:
    found = verdicts([failed(0)], Rollout(1, 1, observed=False), PLANNED, None)
    assert [(v.type, v.status, v.reason) for v in found[:3]] == [
        ("Ready", False, "OutOfMemory"),
        ("Progressing", False, "AsExpected"),
        ("Degraded", True, "OutOfMemory"),
    ]


def test_what_is_refused_is_degraded_and_gets_nowhere() -> None:
    found = refused(ClusterReason.NameConflict, "Service x exists already")
    assert [(v.type, v.status) for v in found] == [
        ("Ready", False),
        ("Progressing", False),
        ("Degraded", True),
    ]
    assert {v.message for v in found} == {"Service x exists already"}


def test_what_passes_by_itself_is_progressing_and_not_degraded() -> None:
    found = delayed(ClusterReason.PredecessorRemains, "still being removed")
    assert [(v.type, v.status) for v in found] == [
        ("Ready", False),
        ("Progressing", True),
        ("Degraded", False),
    ]


group_statuses = st.lists(
    st.sampled_from([group_status, loading, failed, stopping, unschedulable]), max_size=5
).map(lambda makers: [make(index) for index, make in enumerate(makers)])
rollouts = st.builds(Rollout, st.integers(0, 4), st.integers(0, 4), observed=st.booleans())


plans = st.sampled_from([PLANNED, PLANNING, DOES_NOT_FIT])


@given(group_statuses, rollouts, plans, st.sampled_from([None, "worker 1 holds more"]))
def test_every_condition_says_a_reason_and_a_message(
    groups: list[GroupStatus], rollout: Rollout, planned: Verdict, drift: str | None
) -> None:
    found = verdicts(groups, rollout, planned, drift)
    assert [verdict.type for verdict in found] == ["Ready", "Progressing", "Degraded", "Planned"]
    assert all(verdict.reason and verdict.message for verdict in found)


@given(group_statuses, rollouts, plans)
def test_ready_means_that_as_many_groups_answer_as_are_wanted(
    groups: list[GroupStatus], rollout: Rollout, planned: Verdict
) -> None:
    verdict = ready(groups, rollout, planned)
    answering = {g.index for g in groups if g.phase is GroupPhase.SERVING}
    whole = rollout.wanted > 0 and set(range(rollout.wanted)) <= answering
    newest = planned is PLANNED and rollout.complete
    enough = whole if rollout.complete else 0 < rollout.wanted <= len(answering)
    assert verdict.status == enough
    assert (verdict.reason == "Ready") == (whole and newest)


SERVING = [group_status(0), group_status(1)]


def test_a_plan_on_its_way_is_progress_and_nothing_to_worry_about() -> None:
    found = verdicts(SERVING, DONE, PLANNING, None)
    assert [(v.type, v.status, v.reason) for v in found] == [
        ("Ready", True, "Planning"),
        ("Progressing", True, "Planning"),
        ("Degraded", False, "AsExpected"),
        ("Planned", None, "Planning"),
    ]


def test_a_model_that_does_not_fit_is_said_by_every_condition() -> None:
    found = verdicts(SERVING, DONE, DOES_NOT_FIT, None)
    assert {verdict.reason for verdict in found} == {"DoesNotFit"}
    assert all(DOES_NOT_FIT.message in verdict.message for verdict in found)
    assert [v.status for v in found] == [True, False, True, False]


@pytest.mark.parametrize(
    ("groups", "planned", "drift", "reason"),
    [
        ([failed(0)], DOES_NOT_FIT, "drift", "OutOfMemory"),
        ([unschedulable(0)], DOES_NOT_FIT, "drift", "DoesNotFit"),
        ([unschedulable(0)], PLANNED, "drift", "Unschedulable"),
        (SERVING, PLANNED, "drift", "PlanDrift"),
        (SERVING, PLANNING, "drift", "PlanDrift"),
    ],
)
def test_degraded_tells_the_worst_first(
    groups: list[GroupStatus], planned: Verdict, drift: str, reason: str
) -> None:
    verdict = degraded(groups, DONE, planned, drift)
    assert (verdict.status, verdict.reason) == (True, reason)


def condition(status: ConditionStatus, reason: str = "Loading") -> Condition:
    return Condition(
        type="Ready",
        status=status,
        observed_generation=1,
        last_transition_time=EARLIER,
        reason=reason,
        message="",
    )


def test_the_transition_time_moves_with_the_status_alone() -> None:
    verdict = Verdict("Ready", False, "Probing", "making a token")
    [kept] = with_history([verdict], [condition(ConditionStatus.FALSE)], 2, NOW)
    [moved] = with_history([verdict], [condition(ConditionStatus.TRUE)], 2, NOW)
    [new] = with_history([verdict], [], 2, NOW)
    assert kept.last_transition_time == EARLIER
    assert moved.last_transition_time == new.last_transition_time == NOW
    assert (kept.reason, kept.observed_generation) == ("Probing", 2)


def test_what_nothing_was_found_of_stays() -> None:
    planned = condition(ConditionStatus.TRUE).model_copy(update={"type": "Planned"})
    found = with_history(refused("Rejected", "m"), [planned], 2, NOW)
    assert [c.type for c in found] == ["Ready", "Progressing", "Degraded", "Planned"]
    assert found[-1] == planned


def test_what_is_not_known_yet_is_unknown() -> None:
    [condition] = with_history([PLANNING], [], 1, NOW)
    assert condition.status is ConditionStatus.UNKNOWN
