"""Progress is told in steps: each is a write of the status."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from llamacluster.agent.contract.messages import Phase, Progress
from llamacluster.api.status import GroupPhase, GroupProgress, GroupStatus
from llamacluster.controller.groups import group_status
from llamacluster.controller.progress import progress_told
from tests.unit.controller import build
from tests.unit.controller.build import NOW, pod


def at(seconds: float) -> str:
    then = datetime.fromisoformat(NOW) + timedelta(seconds=seconds)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")


def said(
    done: int, previous: GroupStatus | None = None, now: str = NOW, left: float | None = None
) -> GroupStatus:
    progress: Progress = {"bytes": done, "total": 1000, "secondsLeft": left}
    status = build.leader_status(Phase.Loading, "Loading", "loading", progress=progress)
    return group_status(build.group(pod(0), pod(1), pod(2), status=status), previous, now)


def test_a_load_tells_percent_and_when_it_ends() -> None:
    status = said(437, left=90)
    assert status.phase is GroupPhase.LOADING
    assert status.progress == GroupProgress(percent=40, eta="2026-11-22T12:01:30Z")
    assert status.message == "loading (40 %, until about 12:01 UTC)"


def test_a_load_of_an_hour_is_at_most_22_writes() -> None:
    """However often it is looked at, and however the pace changes."""
    written, status = 0, None
    for second in range(0, 3600, 2):
        left = None if second < 10 else (3600 - second) * (0.5 + second % 7)
        now = said(second * 1000 // 3600, status, at(second), left)
        written += now != status
        status = now
    assert written <= 22


def test_what_takes_no_time_has_no_progress() -> None:
    progress: Progress = {"bytes": 5, "total": 10, "secondsLeft": None}
    status = build.leader_status(Phase.Verifying, "Probing", "a token", progress=progress)
    assert group_status(build.group(pod(0), status=status), None, NOW).progress is None


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {"bytes": 1},
        {"bytes": 1, "total": None},
        {"bytes": 0, "total": 0},
        {"bytes": 11, "total": 10},
        {"bytes": -1, "total": 10},
        {"bytes": 1.5, "total": 10},
    ],
)
def test_an_odd_answer_is_no_progress(answer: Any) -> None:
    assert progress_told(answer, NOW) is None


@pytest.mark.parametrize("left", [None, "soon", -1, float("nan"), float("inf"), 1e300])
def test_an_odd_end_is_none(left: Any) -> None:
    told = progress_told({"bytes": 5, "total": 10, "secondsLeft": left}, NOW)
    assert told == GroupProgress(percent=50)
