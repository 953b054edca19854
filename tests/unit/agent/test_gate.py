"""What the gate tells HAProxy, and how it lets the last client go."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from threading import Thread

import pytest

from llamacluster.agent.access import Access
from llamacluster.agent.contract.options import GateOptions
from llamacluster.agent.drain import LINGER_SECONDS, Drain
from llamacluster.agent.gate import Gate, configuration
from llamacluster.agent.haproxy import Runtime
from llamacluster.agent.log import Log
from llamacluster.agent.slowbodies import SlowBodies
from llamacluster.planning.bodies import max_body_bytes
from tests.unit.agent.fakes import FakeChild, FakeLauncher, FastClock
from tests.unit.agent.realtime import PATIENCE_SECONDS, until

OPTIONS = GateOptions(parallel=4, context_size=4096)


def test_the_engine_gets_as_many_requests_as_it_has_slots() -> None:
    text = configuration(OPTIONS)
    assert "server engine 127.0.0.1:18080 maxconn 4 check" in text
    assert "if { be_conn gt 36 }" in text  # 8 more for each slot wait
    assert "if { be_conn gt 5 }" in configuration(GateOptions(4, 4096, queue=1))
    assert "timeout queue 7s" in configuration(GateOptions(4, 4096, queue_seconds=7))


def test_it_listens_where_the_spec_says() -> None:
    assert "bind 0.0.0.0:9000 " in configuration(GateOptions(1, 4096, server_port=9000))


def test_its_runtime_api_is_within_reach_of_its_own_container_alone(tmp_path: Path) -> None:
    """At every level it takes new keys."""
    places = re.findall(r"stats socket (.*)", configuration(OPTIONS, tmp_path))
    assert places == [f"{tmp_path}/haproxy.sock mode 600 level admin"]


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


GUARDED = GateOptions(4, 4096, api_keys_secret="k", tls_secret="t")  # noqa: S106 - names


def test_without_secrets_it_asks_for_no_key_and_speaks_plain_http() -> None:
    text = configuration(OPTIONS)
    assert " ssl " not in text
    assert "known_key" not in text


def test_a_key_is_asked_for_before_anything_but_the_health_is_told() -> None:
    lines = [line.strip() for line in configuration(GUARDED).splitlines()]
    answers = [line for line in lines if line.startswith("http-request return")]
    assert [" if health reads" in line for line in answers[:3]] == [True, True, False]
    assert answers[2].startswith("http-request return status 401 ")
    assert answers[2].endswith(" unless known_key or preflight")
    assert "acl known_key var(txn.key) -m str -f /gate/keys" in lines


@pytest.mark.parametrize("options", [OPTIONS, GUARDED])
def test_the_engine_gets_no_key(options: GateOptions) -> None:
    text = configuration(options)
    for header in ("authorization", "x-api-key"):
        assert f"http-request del-header {header}\n" in text


def test_old_tls_is_refused() -> None:
    text = configuration(GUARDED)
    assert "proto h1 tcp-ut 60s ssl crt /gate/tls.pem alpn http/1.1\n" in text
    assert "ssl-default-bind-options ssl-min-ver TLSv1.2\n" in text


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
        log = Log("gate", StringIO())
        self.gate = Gate(
            OPTIONS,
            "haproxy",
            folder,
            Access(
                OPTIONS,
                folder / "api-keys",
                folder / "tls",
                folder,
                folder / "gate.json",
                Runtime(folder / "haproxy.sock"),
                self.clock,
                log,
            ),
            SlowBodies(Runtime(folder / "haproxy.sock"), self.clock, log),
            lambda: self.requests,
            Drain(300, self.clock),
            self.launcher,
            self.clock,
            log,
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
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive()


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
    assert (running.folder / "haproxy.cfg").read_text() == configuration(OPTIONS, running.folder)


def test_an_haproxy_that_ends_is_started_again(running: Running) -> None:
    running.launcher.last.end(137)
    until(lambda: len(running.launcher.started) == 2)


def test_without_clients_it_ends_when_no_new_ones_can_come(running: Running) -> None:
    with running.clock.held():
        began = running.clock.monotonic()
        running.gate.stop()
    running.until_ended()
    assert running.signals == [signal.SIGUSR1]
    assert LINGER_SECONDS <= running.clock.monotonic() - began < LINGER_SECONDS + 2.5


def test_running_requests_finish(running: Running) -> None:
    running.clients = running.requests = 1
    with running.clock.held() as move_on:
        running.gate.stop()
        move_on(60)
        assert running.signals == [signal.SIGUSR1]
        running.requests = 0  # and its client keeps the connection
    running.until_ended()
    assert running.signals == [signal.SIGUSR1, signal.SIGTERM]


def test_the_end_of_the_grace_cuts_off_what_runs(running: Running) -> None:
    running.clients = running.requests = 1
    with running.clock.held():
        began = running.clock.monotonic()
        running.gate.stop()
    running.until_ended()
    assert 290 < running.clock.monotonic() - began < 300


def test_told_twice_it_cuts_off_at_once(running: Running) -> None:
    running.clients = running.requests = 1
    with running.clock.held():
        began = running.clock.monotonic()
        running.gate.stop()
        running.gate.stop()
    running.until_ended()
    assert running.clock.monotonic() - began < 4
