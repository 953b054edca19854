"""How much longer it takes, at the pace so far."""

from __future__ import annotations

from threading import Event

from llamacluster.agent.progress import Pace
from tests.unit.agent.fakes import FastClock


def test_a_pace_is_known_after_a_moment() -> None:
    clock = FastClock()
    pace = Pace(clock)
    assert pace.at(0, 1000) == {"bytes": 0, "total": 1000, "secondsLeft": None}
    clock.wait(Event(), 1)
    assert pace.at(100, 1000)["secondsLeft"] is None
    clock.wait(Event(), 9)
    assert pace.at(250, 1000)["secondsLeft"] == 30


def test_what_was_there_before_is_no_pace() -> None:
    clock = FastClock()
    pace = Pace(clock)
    pace.at(500, 1000)
    clock.wait(Event(), 10)
    assert pace.at(600, 1000)["secondsLeft"] == 40
    assert pace.at(600, None)["secondsLeft"] is None


def test_what_begins_anew_has_a_new_pace() -> None:
    clock = FastClock()
    pace = Pace(clock)
    pace.at(500, 1000)
    clock.wait(Event(), 10)
    assert pace.at(0, 1000)["secondsLeft"] is None
    clock.wait(Event(), 10)
    assert pace.at(500, 1000)["secondsLeft"] == 10
