"""The tunnel: its configuration, its life, and its certificates. What HAProxy makes of them is in
tests/engine/test_tunnel.py."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from threading import Thread

import pytest

from llamacluster.agent.api import Api
from llamacluster.agent.certificates import Certificates, Turnover, read
from llamacluster.agent.contract.options import TunnelOptions, parse, tunnel_args
from llamacluster.agent.drain import Drain
from llamacluster.agent.haproxy import Runtime
from llamacluster.agent.log import Log
from llamacluster.agent.peers import PeerError, TunnelledPeers
from llamacluster.agent.tunnel import Tunnel, configuration
from llamacluster.planning.split import MAX_WORKERS
from tests.unit.agent.fakes import FakeLauncher, FastClock
from tests.unit.agent.realtime import PATIENCE_SECONDS, until

OLD = Certificates("old authority\n", "old leaf\n")
NEW = Certificates("new authority\nold authority\n", "new leaf\n")


@pytest.mark.parametrize("options", [TunnelOptions(), TunnelOptions(3, 7, "10.0.0.1", 9)])
def test_options_come_back_from_their_arguments(options: TunnelOptions) -> None:
    assert parse(tunnel_args(options)) == options


def test_a_worker_takes_nobody_without_a_certificate() -> None:
    text = configuration(TunnelOptions(), [])
    binds = [line.strip() for line in text.splitlines() if line.strip().startswith("bind")]
    assert [line.split()[1] for line in binds] == ["0.0.0.0:50052", "0.0.0.0:50051"]
    assert all(line.endswith("ca-file /rpc-tls/ca.crt verify required") for line in binds)
    assert "server rpc 127.0.0.1:18052\n" in text
    assert "check" not in text.split()  # the RPC server would take it for its leader


def test_a_leader_has_an_address_for_each_worker_and_checks_its_name() -> None:
    names = [f"x-0-{index}.x.ns" for index in range(1, MAX_WORKERS + 1)]
    text = configuration(TunnelOptions(MAX_WORKERS), names)
    for index, name in enumerate(names, 1):
        for port in (18051, 18052):
            assert f"bind 127.0.1.{index}:{port}\n" in text
        assert text.count(f"verify required verifyhost {name} sni str({name})") == 2


def test_haproxys_own_api_is_at_no_port(tmp_path: Path) -> None:
    for options, names in ((TunnelOptions(), []), (TunnelOptions(1), ["x-0-1.x.ns"])):
        text = configuration(options, names, tmp_path)
        sockets = [line.strip() for line in text.splitlines() if line.strip().startswith("stats")]
        assert sockets == [f"stats socket {tmp_path}/haproxy.sock mode 600 level admin"]


class TestTurnover:
    def test_a_new_authority_is_trusted_at_once_and_its_leaf_shown_later(self) -> None:
        turnover = Turnover(OLD, 300)
        assert turnover.wanted(OLD, 5) == OLD
        assert turnover.wanted(NEW, 10) == Certificates(NEW.authorities, OLD.leaf)
        assert turnover.wanted(NEW, 309) == Certificates(NEW.authorities, OLD.leaf)
        assert turnover.wanted(NEW, 310) == NEW

    def test_each_new_leaf_waits_its_own_time(self) -> None:
        newest = Certificates("newest\n", "newest leaf\n")
        turnover = Turnover(OLD, 300)
        turnover.wanted(NEW, 10)
        assert turnover.wanted(newest, 200).leaf == OLD.leaf
        assert turnover.wanted(newest, 400).leaf == OLD.leaf
        assert turnover.wanted(newest, 500) == newest


NAMES = ["x-0-1.x.ns", "x-0-2.x.ns"]


class FakeRuntime(Runtime):
    """An HAProxy that remembers what it is told. `tests/engine/test_tunnel.py` has the real one."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.asked: list[str] = []
        self.answer: str | None = None

    def _ask(self, command: str) -> str:
        self.asked.append(command)
        if self.answer == "down":
            raise ConnectionRefusedError("Connection refused")
        if self.answer is not None:
            return self.answer
        if command.startswith("set ssl"):
            return "Transaction created"
        return "Success!" if command.startswith("commit") else ""


class Running:
    """A leader's tunnel whose HAProxy is a fake that obeys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.launcher = FakeLauncher()
        self.clock = FastClock()
        self.agent_listens = True
        self.runtime = FakeRuntime()
        self.asked = self.runtime.asked
        self.addresses = {NAMES[0]: "10.0.0.1"}
        self.keep(OLD)
        self.tunnel = Tunnel(
            TunnelOptions(len(NAMES)),
            NAMES,
            "haproxy",
            folder,
            folder,
            lambda: self.agent_listens,
            self._address_of,
            self.runtime,
            Drain(300, self.clock),
            self.launcher,
            self.clock,
            Log("tunnel", StringIO()),
        )
        self.thread = Thread(target=self.tunnel.run)
        self.thread.start()
        until(lambda: self.launcher.started)

    def keep(self, certificates: Certificates) -> None:
        certificate, key = certificates.leaf, "key\n\n"
        for name, text in (
            ("tls.crt", certificate),
            ("tls.key", key),
            ("ca.crt", certificates.authorities),
        ):
            (self.folder / "new").write_text(text)
            (self.folder / "new").replace(self.folder / name)  # whole, as the kubelet does it

    def _address_of(self, name: str) -> str:
        if name not in self.addresses:
            raise PeerError("its name has no address yet")
        return self.addresses[name]

    def until_ended(self) -> None:
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    it = Running(tmp_path)
    yield it
    it.tunnel.stop()
    it.tunnel.stop()
    it.until_ended()
    assert it.launcher.last.exit_code() is not None


def test_what_is_read_has_no_empty_lines(running: Running) -> None:
    assert read(running.folder) == Certificates("old authority\n", "old leaf\nkey\n")


def test_an_haproxy_that_ends_is_started_again(running: Running) -> None:
    running.launcher.last.end(137)
    until(lambda: len(running.launcher.started) == 2)


def test_new_certificates_are_told_to_haproxy_one_after_the_other(running: Running) -> None:
    began = running.clock.monotonic()
    running.keep(NEW)
    until(lambda: "commit ssl cert /rpc-tls/tls.crt" in running.asked)
    assert running.asked == [
        "set ssl ca-file /rpc-tls/ca.crt <<\nnew authority\nold authority\n",
        "commit ssl ca-file /rpc-tls/ca.crt",
        "set ssl cert /rpc-tls/tls.crt <<\nnew leaf\nkey\n",
        "commit ssl cert /rpc-tls/tls.crt",
    ]
    assert running.clock.monotonic() - began >= 300
    assert len(running.launcher.started) == 1


@pytest.mark.parametrize("answer", ["down", "unable to load"])
def test_what_haproxy_does_not_take_is_told_again(running: Running, answer: str) -> None:
    running.runtime.answer = answer
    running.keep(NEW)
    until(lambda: len(running.asked) > 3)
    running.runtime.answer = None
    until(lambda: "commit ssl cert /rpc-tls/tls.crt" in running.asked)


def test_told_to_stop_it_ends_after_the_agent(running: Running) -> None:
    with running.clock.held() as move_on:
        running.tunnel.stop()
        move_on(60)
        assert running.thread.is_alive()
        running.agent_listens = False
    running.until_ended()


def test_the_end_of_the_grace_ends_it(running: Running) -> None:
    with running.clock.held():
        began = running.clock.monotonic()
        running.tunnel.stop()
    running.until_ended()
    assert 290 < running.clock.monotonic() - began < 300


@pytest.fixture
def served(running: Running) -> Iterator[Api]:
    api = Api("127.0.0.1", 0, running.tunnel.routes())
    yield api
    api.close()


@pytest.fixture
def peers(served: Api, monkeypatch: pytest.MonkeyPatch) -> TunnelledPeers:
    """The leader's agent, which asks the tunnel."""
    monkeypatch.setattr("llamacluster.agent.peers.TUNNEL_PORT", served.port)
    return TunnelledPeers()


def test_the_leaders_agent_has_it_lead_to_where_a_name_is(
    running: Running, peers: TunnelledPeers
) -> None:
    assert peers.address("x-0-1.x.ns") == "127.0.1.1"
    assert running.asked == [
        "set server rpc-1/worker addr 10.0.0.1; set server rpc-1/worker state ready;"
        " set server agent-1/worker addr 10.0.0.1; set server agent-1/worker state ready"
    ]


def test_why_it_does_not_lead_somewhere_is_said(running: Running, peers: TunnelledPeers) -> None:
    with pytest.raises(PeerError, match="its name has no address yet"):
        peers.address("x-0-2.x.ns")
    for answer, said in (("down", "Connection refused"), ("No such server.", "No such server")):
        running.runtime.answer = answer
        with pytest.raises(PeerError, match=f"the tunnel to it is not there: HAProxy: .*{said}"):
            peers.address("x-0-1.x.ns")


def post(api: Api, path: str, body: str = "") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=5)
    connection.request("POST", path, body)
    code = connection.getresponse().status
    connection.close()
    return code


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/lead", "/lead/", "/lead/0", "/lead/3", "/lead/-1", "/lead/01", "/lead/1/"),
        *("/lead/%31", "/lead/1%0a", "/lead/1;", "/lead/1;show%20info", "/lead/1/10.0.0.9"),
    ],
)
def test_other_requests_get_nothing_told_to_haproxy(
    running: Running, served: Api, path: str
) -> None:
    assert post(served, path, "expert-mode on; debug dev hex 0x1000 64") == 404
    assert running.asked == []


def test_nobody_says_the_address_to_lead_to(running: Running, served: Api) -> None:
    assert post(served, "/lead/1?address=10.0.0.9", "10.0.0.9; show info") == 200
    assert [word for word in running.asked[0].split() if word.startswith("10.")] == [
        "10.0.0.1;",
        "10.0.0.1;",
    ]
