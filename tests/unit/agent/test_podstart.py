"""When a pod began."""

from __future__ import annotations

from pathlib import Path
from threading import Event

from llamacluster.agent.podstart import pod_since
from tests.unit.agent.fakes import FastClock


def test_it_stays_from_one_container_to_the_next_of_the_pod(tmp_path: Path) -> None:
    clock, file = FastClock(), tmp_path / "since"
    first = pod_since(file, clock)
    assert first == clock.now().timestamp() * 1000
    clock.wait(Event(), 10)
    assert pod_since(file, clock) == first
    assert pod_since(tmp_path / "another", clock) == first + 10_000


def test_a_file_that_was_not_written_whole_is_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "since"
    file.write_text("")
    assert pod_since(file, FastClock()) == pod_since(file, FastClock()) > 0


def test_a_full_volume_keeps_no_leader_from_starting(tmp_path: Path) -> None:
    clock = FastClock()
    assert pod_since(tmp_path / "nowhere" / "since", clock) == clock.now().timestamp() * 1000
