"""HAProxy's process: when it is started again."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from threading import Event

import pytest

from llamacluster.agent.haproxy import STABLE_SECONDS, HAProxy
from llamacluster.agent.log import Log
from tests.unit.agent.fakes import FakeLauncher, FastClock


@pytest.fixture
def clock() -> FastClock:
    return FastClock()


@pytest.fixture
def haproxy(tmp_path: Path, clock: FastClock) -> HAProxy:
    log = Log("gate", StringIO())
    return HAProxy("haproxy", tmp_path / "haproxy.cfg", "global\n", FakeLauncher(), clock, log)


def test_one_that_ends_again_and_again_is_waited_for_ever_longer(haproxy: HAProxy) -> None:
    waits = []
    for _ in range(12):
        haproxy.start(lambda: None)
        waits.append(haproxy.ended(1))
    assert waits[0] <= 0.1 < waits[3] < waits[5]
    assert 7.5 <= waits[-1] <= 10


def test_one_that_has_run_for_long_is_started_again_at_once(
    haproxy: HAProxy, clock: FastClock
) -> None:
    for _ in range(12):
        haproxy.start(lambda: None)
        haproxy.ended(1)
    haproxy.start(lambda: None)
    clock.wait(Event(), STABLE_SECONDS + 1)
    assert haproxy.ended(1) <= 0.1
