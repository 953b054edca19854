"""A fault that strikes each try stays told while the next one is under way."""

from __future__ import annotations

from threading import Event

import pytest

from llamacluster.agent.contract.messages import Phase
from llamacluster.agent.status import GroupStatus
from llamacluster.planning.reasons import GroupError, Reason
from tests.unit.agent.fakes import BUILD, FastClock

KILLED = GroupError(Reason.EngineFailed, "the engine ended with 137")
BROKE_OFF = GroupError(Reason.ModelDownloadFailed, "broke off; it is resumed")
PHASES = {
    Reason.Starting: Phase.Waiting,
    Reason.Downloading: Phase.Waiting,
    Reason.Verifying: Phase.Waiting,
    Reason.WaitingForWorkers: Phase.Waiting,
    Reason.Attaching: Phase.Attaching,
    Reason.Loading: Phase.Loading,
    Reason.Probing: Phase.Verifying,
    Reason.Ready: Phase.Serving,
}


class Tries:
    """A group's tries, one after another."""

    def __init__(self) -> None:
        self.clock = FastClock()
        self.status = GroupStatus("x-0", BUILD, 1, None, self.clock)

    def comes_to(self, step: Reason) -> None:
        """The next try comes to this step by all those before it."""
        self.status.begin_try()
        for reason, phase in PHASES.items():
            self.status.enter(phase, reason, "")
            if reason is step:
                return

    def fails_at(self, step: Reason, error: GroupError = KILLED) -> None:
        """One more try ends at this step."""
        self.comes_to(step)
        self.status.fail(error)

    @property
    def failed(self) -> int:
        """How many have failed, as it is told."""
        last = self.status.snapshot()["lastFailure"]
        return last["count"] if last else 0


@pytest.fixture
def tries() -> Tries:
    return Tries()


def test_a_load_that_is_killed_at_its_end_each_hour_is_told_all_the_time(tries: Tries) -> None:
    for hour in range(5):
        tries.comes_to(Reason.Loading)
        tries.clock.wait(Event(), 3600)
        assert tries.status.snapshot()["phase"] == Phase.Loading
        assert tries.failed == hour
        tries.status.fail(KILLED)
        tries.status.fail(KILLED)  # said at once, and again when the engine is gone
    assert tries.status.snapshot()["lastFailure"] == {
        "reason": "EngineFailed",
        "message": "the engine ended with 137",
        "count": 5,
    }


def test_who_serves_has_not_failed(tries: Tries) -> None:
    tries.fails_at(Reason.Loading)
    tries.fails_at(Reason.Loading)
    tries.comes_to(Reason.Ready)
    assert tries.failed == 0
    tries.status.fail(GroupError(Reason.WorkerLost, "lost x-0-1"))
    assert tries.failed == 0  # a loss, which may heal at once
    tries.fails_at(Reason.Loading)
    assert tries.failed == 1


def test_a_try_that_gets_further_is_a_new_beginning(tries: Tries) -> None:
    tries.fails_at(Reason.Attaching)
    tries.fails_at(Reason.Attaching)
    assert tries.failed == 2
    tries.comes_to(Reason.Loading)
    assert tries.failed == 0


def test_a_try_that_fails_earlier_than_others_is_none(tries: Tries) -> None:
    tries.fails_at(Reason.Loading)
    tries.fails_at(Reason.Attaching, GroupError(Reason.WorkerLost, "x-0-1 did not attach"))
    tries.comes_to(Reason.Loading)
    assert tries.failed == 2


def test_a_download_that_is_resumed_gets_on(tries: Tries) -> None:
    tries.fails_at(Reason.Starting, BROKE_OFF)
    tries.fails_at(Reason.Starting, BROKE_OFF)
    assert tries.failed == 2  # no server, no byte
    for _ in range(3):
        tries.fails_at(Reason.Downloading, BROKE_OFF)
        assert tries.failed == 1


def test_a_download_of_the_wrong_file_each_time_does_not(tries: Tries) -> None:
    for _ in range(2):
        tries.fails_at(Reason.Verifying, GroupError(Reason.ChecksumMismatch, "another file"))
    tries.comes_to(Reason.Downloading)
    assert tries.failed == 2


def test_a_worker_that_was_told_to_stop_is_no_failure(tries: Tries) -> None:
    for _ in range(3):  # of each node in turn, which takes longer than a load
        tries.fails_at(Reason.Loading, GroupError(Reason.WorkerLeaving, "x-0-1 is being stopped"))
    assert tries.failed == 0
