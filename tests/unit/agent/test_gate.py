"""What the gate tells HAProxy, and how it lets the last client go."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from threading import Thread

import pytest

from llamacluster.agent.contract import GateOptions
from llamacluster.agent.drain import Drain
from llamacluster.agent.gate import Gate, configuration
from llamacluster.agent.log import Log
from llamacluster.planning.bodies import max_body_bytes
from tests.unit.agent.fakes import FakeChild, FakeLauncher, FastClock

OPTIONS = GateOptions(parallel=4, context_size=4096)


def test_the_engine_gets_as_many_requests_as_it_has_slots() -> None:
    text = configuration(OPTIONS)
    assert "server engine 127.0.0.1:18080 maxconn 4 check" in text
    assert "if { be_conn gt 36 }" in text  # 8 more for each slot wait
    assert "if { be_conn gt 5 }" in configuration(GateOptions(4, 4096, queue=1))
    assert "timeout queue 7s" in configuration(GateOptions(4, 4096, queue_seconds=7))


def test_it_listens_where_the_spec_says() -> None:
    assert "bind 0.0.0.0:9000 " in configuration(GateOptions(1, 4096, server_port=9000))


def test_a_body_is_bounded_by_the_context() -> None:
    assert max_body_bytes(4096) == 1 << 20
    assert max_body_bytes(131_072) == 8 << 20
    assert max_body_bytes(16 << 20) == 64 << 20
    assert "req.hdr_val(content-length) gt 8388608 }" in configuration(GateOptions(1, 131_072))


def test_each_refusal_has_the_shape_of_openais_errors() -> None:
    bodies = re.findall(r"content-type application/json string '(.*?)'", configuration(OPTIONS))
    errors = [json.loads(body)["error"] for body in bodies if "status" not in json.loads(body)]
    assert len(errors) == 13
    for error in errors:
        assert error.keys() == {"message", "type", "param", "code"}


def test_who_is_turned_away_for_now_is_told_when_to_come_back() -> None:
    for line in configuration(OPTIONS).splitlines():
        if "status 429 content-type" in line or "status 503 content-type" in line:
            assert re.search(r"' hdr Retry-After \d+( if .*)?$", line)


@pytest.mark.parametrize("path", ["/metrics", "/slots", "/props", "/tools", "/lora-adapters"])
def test_inner_paths_are_not_among_the_open_ones(path: str) -> None:
    assert path not in configuration(OPTIONS).split()


class Running:
    """A gate whose HAProxy is a fake that ends at SIGUSR1 if it has no clients."""

    def __init__(self, folder: Path) -> None:
        self.launcher = FakeLauncher()
        self.clock = FastClock()
        self.folder = folder
        self.requests = 0
        self.clients = 0
        self.signals: list[int] = []
        self.launcher.begin = self._begin
        self.gate = Gate(
            OPTIONS,
            "haproxy",
            folder,
            lambda: self.requests,
            Drain(300, self.clock),
            self.launcher,
            self.clock,
            Log("gate", StringIO()),
        )
        self.thread = Thread(target=self.gate.run)
        self.thread.start()
        until(lambda: self.launcher.started)

    def _begin(self, child: FakeChild) -> None:
        def send(signum: signal.Signals) -> None:
            self.signals.append(signum)
            if signum != signal.SIGUSR1 or not self.clients:
                child.end(0)

        child.send = send  # type: ignore[method-assign]

    def until_ended(self) -> None:
        self.thread.join(20)
        assert not self.thread.is_alive()


def until(look: object) -> None:
    deadline = time.monotonic() + 20
    while not look():  # type: ignore[operator]
        assert time.monotonic() < deadline


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    it = Running(tmp_path)
    yield it
    it.gate.stop()
    it.gate.stop()
    it.until_ended()
    assert it.launcher.last.exit_code() is not None


def test_haproxy_runs_with_the_configuration(running: Running) -> None:
    argv, _ = running.launcher.started[0]
    assert argv == ["haproxy", "-db", "-f", str(running.folder / "haproxy.cfg")]
    assert (running.folder / "haproxy.cfg").read_text() == configuration(OPTIONS)


def test_an_haproxy_that_ends_is_started_again(running: Running) -> None:
    running.launcher.last.end(137)
    until(lambda: len(running.launcher.started) == 2)


def test_without_clients_it_ends_when_no_new_ones_can_come(running: Running) -> None:
    began = running.clock.monotonic()
    running.gate.stop()
    running.until_ended()
    assert running.signals == [signal.SIGUSR1]
    assert 1.5 <= running.clock.monotonic() - began < 4


def test_running_requests_finish(running: Running) -> None:
    running.clients = running.requests = 1
    running.gate.stop()
    began = running.clock.monotonic()
    until(lambda: running.clock.monotonic() > began + 60)
    assert running.signals == [signal.SIGUSR1]
    running.requests = 0  # and its client keeps the connection
    running.until_ended()
    assert running.signals == [signal.SIGUSR1, signal.SIGTERM]


def test_the_end_of_the_grace_cuts_off_what_runs(running: Running) -> None:
    running.clients = running.requests = 1
    began = running.clock.monotonic()
    running.gate.stop()
    running.until_ended()
    assert 290 < running.clock.monotonic() - began < 300


def test_told_twice_it_cuts_off_at_once(running: Running) -> None:
    running.clients = running.requests = 1
    began = running.clock.monotonic()
    running.gate.stop()
    running.gate.stop()
    running.until_ended()
    assert running.clock.monotonic() - began < 4
