"""What is told of a group that was lost and came back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from llamacluster.api.status import (
    MAX_CAUSES,
    GroupPhase,
    GroupRecovery,
    GroupStatus,
    RecoveryCause,
    RestartCause,
)
from llamacluster.controller.recovery import container_restarts, recovery_told, with_recovery
from tests.unit.controller.build import NOW, group, group_status, pod, terminated

LOST = group_status(
    phase=GroupPhase.WAITING, reason="WorkerLost", message="lost x-group-0-1", failing=True
)
FORMING = group_status(phase=GroupPhase.ATTACHING, reason="Attaching", message="attaching")
READY = group_status()


def at(seconds: float) -> str:
    then = datetime.fromisoformat(NOW) + timedelta(seconds=seconds)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")


def after(*looks: tuple[float, GroupStatus], told: GroupRecovery | None = None) -> GroupStatus:
    """What is said after these looks at a group that was Ready; `told` by the agent at the last."""
    said = READY
    for number, (seconds, status) in enumerate(looks):
        word = told if number == len(looks) - 1 else None
        said = with_recovery(status, said, word, at(seconds), asked_for=False)
    return said


def by_agent(seconds: float, took: int = 3) -> GroupRecovery:
    return GroupRecovery(reason="WorkerLost", message="exact", at=at(seconds), seconds=took)


def test_while_it_recovers_it_says_from_what() -> None:
    said = after((10, LOST), (14, FORMING))
    assert said.lost is not None
    assert (said.lost.reason, said.lost.at) == ("WorkerLost", at(10))
    assert said.recoveries == 0


def test_when_it_is_back_it_says_how_long_it_took() -> None:
    said = after((10, LOST), (14, FORMING), (31, READY))
    assert said.lost is None
    assert said.recoveries == 1
    assert said.last_recovery == GroupRecovery(
        reason="WorkerLost", message="lost x-group-0-1", at=at(31), seconds=21
    )
    assert with_recovery(READY, said, None, at(60), asked_for=False) == said


def test_the_agent_is_exact_and_the_same_recovery_counts_once() -> None:
    said = after((10, LOST), (31, READY), told=by_agent(29, 20))
    assert (said.recoveries, said.last_recovery) == (1, by_agent(29, 20))
    again = with_recovery(READY, said, by_agent(29, 20), at(60), asked_for=False)
    assert again == said


def test_a_recovery_between_two_looks_is_told_by_the_agent() -> None:
    said = after((60, READY), told=by_agent(30))
    assert (said.recoveries, said.last_recovery) == (1, by_agent(30))
    said = with_recovery(READY, said, by_agent(90), at(91), asked_for=False)
    assert said.recoveries == 2


def test_an_old_recovery_of_the_agent_is_not_counted_for_a_newer_one() -> None:
    said = after((60, READY), told=by_agent(30))
    said = with_recovery(LOST, said, None, at(100), asked_for=False)
    said = with_recovery(READY, said, by_agent(30), at(110), asked_for=False)
    assert said.recoveries == 2
    assert said.last_recovery is not None
    assert said.last_recovery.seconds == 10


def test_the_first_start_and_what_was_asked_for_are_no_losses() -> None:
    assert with_recovery(FORMING, None, None, NOW, asked_for=False).lost is None
    assert with_recovery(READY, FORMING, None, NOW, asked_for=False).recoveries == 0
    assert with_recovery(LOST, READY, None, NOW, asked_for=True).lost is None


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"reason": "a", "message": "m", "at": "yesterday", "seconds": 1},
        {"reason": "a", "message": "m", "at": "2026-11-22T12:00:00", "seconds": 1},
        {"reason": "a", "message": "m", "at": NOW, "seconds": -1},
        {"reason": "a", "message": "m", "at": NOW, "seconds": float("nan")},
        {"reason": 1, "message": "m", "at": NOW, "seconds": 1},
        {"reason": "a", "message": "m", "at": "9999-12-31T23:59:59+00:00", "seconds": 1},
        {"reason": "a", "message": "m", "at": "9999-12-31T23:59:59-23:00", "seconds": 1},
        {"reason": "a", "message": "m", "at": at(86401), "seconds": 1},
        {"reason": "a", "message": "m", "at": at(-86401), "seconds": 1},
    ],
)
def test_an_odd_answer_is_no_recovery(answer: Any) -> None:
    assert recovery_told(answer, NOW) is None


@pytest.mark.parametrize("when", [NOW, "2026-W47-7T13:00:00+01:00", "20261122T120000.9Z"])
def test_the_time_of_a_recovery_is_written_in_our_own_way(when: str) -> None:
    told = recovery_told({"reason": "a", "message": "m", "at": when, "seconds": 1}, NOW)
    assert told is not None
    assert told.at == NOW


def test_a_time_beyond_all_times_in_the_status_does_no_harm() -> None:
    last = GroupRecovery(reason="a", at="9999-12-31T23:59:59Z", seconds=1)
    before = READY.model_copy(update={"last_recovery": last})
    said = with_recovery(READY, before, by_agent(1), at(2), asked_for=False)
    assert said.last_recovery == last


def test_recoveries_are_counted_by_what_the_group_was_lost_by() -> None:
    hung = LOST.model_copy(update={"reason": "EngineHung"})
    said = after((10, LOST), (20, READY), (30, hung), (40, READY), (50, LOST), (60, READY))
    assert said.recoveries == 3
    assert said.recovery_causes == [
        RecoveryCause(reason="WorkerLost", count=2, at=at(60)),
        RecoveryCause(reason="EngineHung", count=1, at=at(40)),
    ]
    for number in range(2 * MAX_CAUSES):
        other = LOST.model_copy(update={"reason": f"Other{number}"})
        said = with_recovery(other, said, None, at(100 + number), asked_for=False)
        said = with_recovery(READY, said, None, at(100 + number), asked_for=False)
    assert len(said.recovery_causes) == MAX_CAUSES
    assert said.recoveries == 3 + 2 * MAX_CAUSES


def test_restarts_are_counted_over_the_pods_with_their_causes() -> None:
    def ended(worker: int, count: int, reason: str, when: str) -> Any:
        state = terminated(reason, 137)
        state["terminated"]["finishedAt"] = when
        made = pod(worker, last_state=state)
        made["status"]["containerStatuses"][0]["restartCount"] = count
        return made

    found = group(pod(0), ended(1, 1, "Error", at(3)), ended(2, 2, "OOMKilled", at(5)))

    def cause(pod: str, count: int, reason: str, when: str) -> RestartCause:
        return RestartCause(
            pod=pod, container="worker", count=count, reason=reason, exit_code=137, at=when
        )

    assert container_restarts(found) == (
        3,
        [cause("x-group-0-2", 2, "OOMKilled", at(5)), cause("x-group-0-1", 1, "Error", at(3))],
    )
    assert container_restarts(group(pod(0), pod(1))) == (0, [])


def test_a_restart_of_which_kubernetes_has_forgotten_the_cause_counts() -> None:
    made = pod(1)
    made["status"]["containerStatuses"][0]["restartCount"] = 4
    cause = RestartCause(pod="x-group-0-1", container="worker", count=4)
    assert container_restarts(group(pod(0), made)) == (4, [cause])
