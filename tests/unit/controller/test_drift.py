"""What is held against what was planned: 1000Mi of weights, 400Mi of context, 200Mi of compute."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacluster.agent.contract import messages
from llamacluster.api.plan import Plan
from llamacluster.controller.drift import drift, observed
from tests.build import MIB, a_plan
from tests.unit.controller import build

GOOD = 1500
MOST = 1900
"""The limit, which has room for what no plan tells."""
LEAST = int(0.9 * 1400) - 64


def says(*held: int, **more: Any) -> messages.LeaderStatus:
    """A leader whose workers hold this many MiB."""
    return build.leader_status(messages.Phase.Serving, held=[n * MIB for n in held], **more)


def seen(plan: Plan, *statuses: messages.LeaderStatus) -> tuple[list[str | None], str | None]:
    """What stands in the plan after a look, and the drift."""
    after = observed(plan, list(statuses))
    return [worker.observed for worker in after.per_worker], drift(after, list(statuses))


def test_the_most_of_any_group_is_kept() -> None:
    assert seen(a_plan(), says(1500, 1400), says(1450, 1450)) == (["1500Mi", "1450Mi"], None)


@pytest.mark.parametrize(
    ("held", "drifted"),
    [
        (GOOD, False),
        (LEAST, False),
        (MOST, False),
        (MOST + 1, True),
        (LEAST - 1, True),
        (0, True),
    ],
)
def test_a_worker_drifts_when_it_holds_much_more_or_much_less(held: int, drifted: bool) -> None:
    _, found = seen(a_plan(), says(GOOD, held))
    assert (found is not None) is drifted


def test_the_message_names_worker_and_both_amounts_and_what_to_do() -> None:
    _, more = seen(a_plan(), says(GOOD, 2000))
    assert more == (
        "worker 2 was planned to hold 1600Mi, and it holds 2000Mi: set "
        "workers.resources.limits.memory higher before it is killed for it, and please report it, "
        "with the name of the model"
    )
    _, less = seen(a_plan(), says(100, GOOD))
    assert less is not None
    assert less.startswith("worker 1 was planned to hold 1600Mi, and it holds 100Mi: less would be")


@pytest.mark.parametrize(
    ("placed", "drifted"),
    [
        ((1000, 400, 200), False),
        ((1150, 400, 200), False),
        ((1165, 400, 200), True),
        ((1000, 400, 20), True),
    ],
)
def test_a_worker_drifts_when_the_engine_put_another_amount_there(
    placed: tuple[int, int, int], drifted: bool
) -> None:
    rows = [(1000 * MIB, 400 * MIB, 200 * MIB), tuple(n * MIB for n in placed)]
    _, found = seen(a_plan(), says(GOOD, GOOD, placed=rows))
    assert (found is not None) is drifted
    assert found is None or "worker 2 was planned to hold 1600Mi, and the engine put there" in found


def test_a_small_amount_may_be_off_by_more_than_a_tenth() -> None:
    small = a_plan()
    worker = small.per_worker[0].model_copy(
        update={"weights": "10Mi", "context": "5Mi", "compute": "5Mi"}
    )
    plan = small.model_copy(update={"per_worker": [worker, worker]})
    row = (10 * MIB, 5 * MIB, 60 * MIB)
    assert seen(plan, says(80, 1, placed=[row, row]))[1] is None


@pytest.mark.parametrize(
    ("held", "kept"),
    [
        (1500, "1500Mi"),
        (1516, "1500Mi"),
        (1575, "1500Mi"),
        (1576, "1576Mi"),
        (1425, "1500Mi"),
        (1424, "1424Mi"),
    ],
)
def test_a_small_change_is_not_worth_a_write(held: int, kept: str) -> None:
    before = observed(a_plan(), [says(1500, GOOD)])
    assert seen(before, says(held, GOOD))[0][0] == kept


@given(st.lists(st.integers(0, 1 << 50), min_size=1, max_size=5))
def test_it_comes_to_rest(held: list[int]) -> None:
    statuses = [build.leader_status(held=[count, count], leader_held=count) for count in held]
    first = observed(a_plan(), statuses)
    assert observed(first, statuses) == first


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": [{"attached": True}, {"attached": True}]},
        {"workers": [{"attached": True, "memory": {"residentBytes": 1 << 40}}]},
        {"workers": [{"memory": None}, {"memory": "much"}]},
        {"workers": [{"memory": {"residentBytes": -5}}, {"memory": {"residentBytes": 10**40}}]},
        {"workers": [{"memory": {"residentBytes": "5"}}, {"memory": {}}]},
        {"placement": None},
        {"placement": [1, "row"]},
        {"placement": [{"modelBytes": 1 << 40}, {}]},
        {"placement": [{"modelBytes": -1, "contextBytes": 0, "computeBytes": 0}] * 2},
        {"memory": 7},
    ],
)
def test_what_an_older_or_odd_agent_does_not_say_is_not_known(changes: dict[str, Any]) -> None:
    status: Any = {**build.leader_status(), "workers": [], **changes}
    assert seen(a_plan(), status) == ([None, None], None)


def test_what_was_seen_stays_while_nobody_says_anything_new() -> None:
    before = observed(a_plan(), [says(GOOD, GOOD, leader_held=90 * MIB)])
    assert observed(before, []) == before
    assert before.leader.observed == "90Mi"
