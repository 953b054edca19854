"""What the planner's pod says, whatever runs in it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacluster.controller.planner import (
    MAX_ANSWER,
    answered,
    parsed_failure,
    parsed_plan,
    without_pod,
)
from tests.build import MIB, Manifest, a_plan, llama_cluster, plan_answer
from tests.unit.controller.build import EARLIER, NOW, plan_pod, terminated, waiting


def said(*pods: Manifest, **spec: Any) -> tuple[bool | None, str, str]:
    """The condition Planned that these pods lead to."""
    verdict = answered(llama_cluster(**spec), "hash", pods).verdict
    return verdict.status, verdict.reason, verdict.message


def ended(answer: object, exit_code: int = 0, reason: str = "Completed") -> Manifest:
    """A planner's pod that ended with this answer."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return plan_pod(state=terminated(reason, exit_code, text))


def test_a_plan_is_kept_as_it_was_said() -> None:
    assert parsed_plan(json.dumps(plan_answer(5, 4)), "hash", 2) == a_plan(5, 4)
    assert said(ended(plan_answer())) == (True, "Planned", "8 layers over 2 workers")


def test_bytes_are_rounded_up() -> None:
    answer = plan_answer(memory=13420 * MIB + 1)
    plan = parsed_plan(json.dumps(answer), "hash", None)
    assert plan is not None
    assert plan.worker_memory == "13421Mi"


def test_a_plan_that_does_not_fit_is_an_answer() -> None:
    assert said(ended(plan_answer(fits=False))) == (False, "DoesNotFit", "500Mi too little")
    nothing = {**plan_answer(fits=False), "perWorker": []}
    assert said(ended(nothing))[1] == "DoesNotFit"


def without(field: str) -> Manifest:
    return {key: value for key, value in plan_answer().items() if key != field}


@pytest.mark.parametrize(
    "answer",
    [
        *("", "killed", "null", "[]", "{}", "[" * 4000, "\ud800", '{"fits": true}'),
        *("9" * 4000, "{" + '"a":{' * 1000, json.dumps(plan_answer())[:-40]),
        *(without(field) for field in plan_answer() if field != "engine"),
        {**plan_answer(), "fits": "yes"},
        {**plan_answer(), "method": "Guess"},
        {**plan_answer(), "perWorker": []},
        {**plan_answer(), "perWorker": plan_answer()["perWorker"][:1]},
        {**plan_answer(), "perWorker": plan_answer()["perWorker"] * 8},
        {**plan_answer(), "workerMemoryBytes": 0},
        {**plan_answer(), "workerMemoryBytes": -1},
        {**plan_answer(), "workerMemoryBytes": 1.5},
        {**plan_answer(), "workerMemoryBytes": 10**30},
        {**plan_answer(), "leaderMemoryBytes": True},
        {**plan_answer(), "leader": None},
        {**plan_answer(), "message": 1},
        {**plan_answer(), "advice": "more"},
        {**plan_answer(), "message": "m" * MAX_ANSWER},
        plan_answer(3, 3, 3),
        plan_answer(9),
    ],
    ids=lambda answer: str(answer)[:20],
)  # fmt: skip
def test_what_is_no_plan_for_this_spec_is_said_to_be_none(answer: object) -> None:
    status, reason, message = said(ended(answer))
    assert (status, reason) == (False, "PlanFailed")
    assert "does image localhost/engine:1 have the agent of this operator's version?" in message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(plan_answer())), json_values)
def test_any_value_anywhere_is_a_plan_or_none(field: str, value: object) -> None:
    words = json.dumps({**plan_answer(), field: value})
    plan = parsed_plan(words, "hash", None)
    assert plan is None or plan.inputs_hash == "hash"
    assert parsed_failure(words) is None


def test_what_a_newer_planner_says_beyond_the_contract_does_not_matter() -> None:
    words = json.dumps({**plan_answer(), "newer": {"field": 1}})
    assert parsed_plan(words, "hash", None) == a_plan()


def test_advice_without_end_is_cut() -> None:
    plan = parsed_plan(json.dumps({**plan_answer(), "advice": ["a"] * 500}), "hash", None)
    assert plan is not None
    assert len(plan.advice) == 16


def test_a_failure_is_told_in_the_planners_words_while_it_is_tried_again() -> None:
    answer = json.dumps({"reason": "ModelDownloadFailed", "message": "no route"})
    end = terminated("Error", 1, answer)
    expected = (False, "ModelDownloadFailed", "no route")
    assert said(plan_pod(state=end)) == expected
    assert said(plan_pod(state=waiting("CrashLoopBackOff"), last_state=end)) == expected
    assert said(plan_pod(last_state=end)) == expected


@pytest.mark.parametrize(
    "answer",
    [
        {"reason": "Two words", "message": "m"},
        {"reason": "", "message": "m"},
        {"reason": "R" * 200, "message": "m"},
        {"reason": "ModelNotFound"},
        {"reason": "ModelNotFound", "message": "m" * MAX_ANSWER},
        {"reason": 3, "message": "m"},
    ],
)
def test_a_reason_that_is_none_is_the_end_of_the_container(answer: Manifest) -> None:
    assert said(ended(answer, exit_code=1, reason="Error"))[:2] == (False, "ContainerFailed")


def unschedulable() -> Manifest:
    words = {"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes"}
    return plan_pod(conditions=[words], phase="Pending", containerStatuses=[])


USAGE = "usage: llamacluster-agent\nllamacluster-agent: error: invalid choice: 'plan'"


@pytest.mark.parametrize(
    ("pod", "status", "reason", "message"),
    [
        (unschedulable(), False, "Unschedulable", "0/3 nodes"),
        (
            plan_pod(phase="Failed", reason="Evicted", message="disk", containerStatuses=[]),
            *(False, "Evicted", "disk"),
        ),
        (plan_pod(state=waiting("ErrImagePull")), False, "ImagePullFailed", "cannot pull image"),
        (
            plan_pod(state=waiting("CreateContainerError", "no such user")),
            *(False, "ContainerFailed", "no such user"),
        ),
        (
            ended("", 137, "OOMKilled"),
            *(False, "OutOfMemory", "was killed at its memory limit of 1Gi: report it"),
        ),
        (
            ended(USAGE, 2, "Error"),
            *(False, "ContainerFailed", "ended with exit code 2: llamacluster-agent: error: inv"),
        ),
        (
            plan_pod(last_state=terminated("Error", 2, USAGE)),
            *(False, "ContainerFailed", "ended with exit code 2"),
        ),
        (plan_pod(phase="Pending", containerStatuses=[]), None, "Planning", "to start"),
        (plan_pod(), None, "Planning", "reads the model's header"),
    ],
)
def test_what_keeps_the_planner_is_said(
    pod: Manifest, status: bool | None, reason: str, message: str
) -> None:
    found = said(pod)
    assert found[:2] == (status, reason)
    assert message in found[2]


@pytest.mark.parametrize(
    ("job", "refused"),
    [
        ({}, False),  # its controller has not seen it yet, or it is suspended
        ({"startTime": "2026-11-22T11:59:01Z"}, False),
        ({"startTime": "2026-11-22T11:59:00Z"}, True),
        ({"startTime": EARLIER, "active": 0}, True),
        ({"startTime": EARLIER, "active": 1}, False),  # its pod is on its way
        ({"startTime": EARLIER, "failed": 1}, False),  # its pod went with a node
    ],
)
def test_a_job_whose_pod_nobody_makes_is_waited_for_a_minute(
    job: Manifest, *, refused: bool
) -> None:
    made = {"metadata": {"name": "x-plan-hash"}, "status": job}
    verdict = without_pod(made, datetime.fromisoformat(NOW)).verdict
    if refused:
        assert (verdict.status, verdict.reason) == (False, "PodsMissing")
    else:
        assert (verdict.status, verdict.reason) == (None, "Planning")
    assert "`kubectl describe job x-plan-hash` says why" in verdict.message


def test_the_newest_pod_counts() -> None:
    lost = plan_pod(phase="Failed", reason="Evicted", containerStatuses=[], created=EARLIER)
    plan = plan_pod(state=terminated("Completed", 0, json.dumps(plan_answer())), created=NOW)
    assert said(lost, plan)[1] == said(plan, lost)[1] == "Planned"


def test_a_pod_of_which_nothing_is_known_yet_is_waited_for() -> None:
    assert said({"metadata": {"name": "p"}})[1] == "Planning"
