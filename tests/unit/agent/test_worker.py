"""The worker keeps its RPC server up and clean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from threading import Thread

import pytest

from llamacluster.agent.api import Answer, Api
from llamacluster.agent.contract.messages import AttachRequest, WorkerStatus
from llamacluster.agent.contract.places import ATTACH, READYZ, STATUS
from llamacluster.agent.drain import Drain
from llamacluster.agent.log import Log
from llamacluster.agent.peers import PeerError, Peers
from llamacluster.agent.worker import LEADER_SILENT_SECONDS, Worker
from tests.unit.agent.fakes import BUILD, HELD, FakeLauncher, FastClock
from tests.unit.agent.realtime import PATIENCE_SECONDS, until


class Running:
    """A worker whose RPC server is a fake child that listens as long as it lives."""

    def __init__(self) -> None:
        self.launcher = FakeLauncher()
        self.deaf = False
        self.connected = False
        clock = self.clock = FastClock()
        self.worker = Worker(
            "x-0-1",
            ["rpc"],
            lambda: not self.deaf and self.launcher.last.exit_code() is None,
            lambda: self.connected,
            BUILD,
            threads=3,
            memory_limit_bytes=5,
            held_memory=lambda _: HELD,
            drain=Drain(300, clock),
            launcher=self.launcher,
            clock=clock,
            log=Log("worker", StringIO()),
        )
        self.thread = Thread(target=self.worker.run)
        self.thread.start()
        until(lambda: self.launcher.started)

    def attach(self, epoch: str, worker: str = "x-0-1", since: int = 1) -> Answer:
        return self.worker.attach(
            {"epoch": epoch, "leader": "x-0", "leaderSince": since, "worker": worker}
        )

    def look(self, epoch: str) -> WorkerStatus:
        """As the leader of that epoch does."""
        answer = self.worker.routes()[f"GET {STATUS}"](epoch.encode())
        status: WorkerStatus = json.loads(json.dumps(answer.body))
        return status


@pytest.fixture
def running() -> Iterator[Running]:
    it = Running()
    yield it
    it.worker.stop()
    it.worker.stop()
    it.thread.join(PATIENCE_SECONDS)
    assert not it.thread.is_alive()
    assert it.launcher.last.exit_code() is not None


def test_told_to_stop_without_a_leader_it_stops_at_once(running: Running) -> None:
    with running.clock.held():
        began = running.clock.monotonic()
        running.worker.stop()
    running.thread.join(PATIENCE_SECONDS)
    assert not running.thread.is_alive()
    assert running.clock.monotonic() - began < 5


def test_told_to_stop_it_serves_its_leader_on(running: Running) -> None:
    running.attach("first")
    running.connected = True
    with running.clock.held() as move_on:
        running.look("first")
        running.worker.stop()
        for _ in range(12):
            move_on(5)
            status = running.look("first")
            told = (status["stopping"], status["listening"], status["epoch"])
            assert told == (True, True, "first")
        assert running.worker.routes()[f"GET {READYZ}"](b"").code == 503
        assert running.attach("second").code == 409
        running.connected = False
    running.thread.join(PATIENCE_SECONDS)
    assert not running.thread.is_alive()


def test_told_to_stop_it_does_not_wait_for_a_leader_that_looks_no_more(running: Running) -> None:
    running.connected = True
    with running.clock.held():
        began = running.clock.monotonic()
        running.worker.stop()
    running.thread.join(PATIENCE_SECONDS)
    assert not running.thread.is_alive()
    assert running.clock.monotonic() - began < 15


def test_it_waits_for_a_leader_with_the_server_up(running: Running) -> None:
    status = running.worker.status()
    assert (status["listening"], status["epoch"], status["threads"]) == (True, None, 3)
    assert running.worker.routes()[f"GET {READYZ}"](b"").code == 200


def test_attach_replaces_the_server_by_a_clean_one(running: Running) -> None:
    for count, epoch in enumerate(("first", "second"), start=2):
        answer = running.attach(epoch)
        assert answer.code == 200
        assert len(running.launcher.started) == count
        assert running.launcher.started[-2][1].exit_code() is not None
        status = running.worker.status()
        assert (status["epoch"], status["leader"]) == (epoch, "x-0")
        assert status["child"] is not None
        assert status["child"]["restarts"] == 0


def test_a_server_that_ends_comes_back_for_nobody(running: Running) -> None:
    running.attach("first")
    running.launcher.last.end(137)
    until(lambda: len(running.launcher.started) == 3)
    until(lambda: running.worker.status()["listening"])
    status = running.worker.status()
    assert status["epoch"] is None
    assert "137" in status["message"]
    assert status["child"] is not None
    assert status["child"]["restarts"] == 1


def test_a_server_that_is_frozen_comes_back_for_nobody(running: Running) -> None:
    running.attach("e1")
    running.launcher.last.frozen = True
    until(lambda: len(running.launcher.started) == 3 and running.worker.status()["child"])
    status = running.worker.status()
    assert (status["epoch"], status["message"]) == (
        None,
        "RPC server was stopped by a signal, and is started anew",
    )


def test_a_server_that_ends_with_0_has_failed_too(running: Running) -> None:
    running.launcher.last.end(0)
    until(lambda: len(running.launcher.started) == 2)
    assert "RPC server ended with 0" in running.worker.status()["message"]


def test_attach_fails_when_the_server_does_not_listen(running: Running) -> None:
    running.deaf = True
    assert running.attach("first").code == 503
    assert running.worker.routes()[f"GET {READYZ}"](b"").code == 503


def test_attach_fails_when_the_server_ends_at_once(running: Running) -> None:
    running.launcher.begin = lambda child: child.end(0)
    answer = running.attach("first")
    assert answer.code == 409
    assert "RPC server ended" in str(answer.body)
    running.launcher.begin = lambda _: None


def test_a_leader_that_means_another_pod_is_refused(running: Running) -> None:
    assert running.attach("first", worker="x-0-2").code == 421
    assert len(running.launcher.started) == 1


def test_of_two_leaders_the_younger_has_it(running: Running) -> None:
    assert running.attach("of the older", since=1).code == 200
    assert running.attach("of the younger", since=2).code == 200
    with running.clock.held() as move_on:
        for _ in range(12):
            status = running.look("of the younger")
            assert status["epoch"] == "of the younger"
            move_on(5)
            refused = running.attach("of the older again", since=1)
            assert (refused.code, len(running.launcher.started)) == (409, 3)
            assert "with a leader that started after this one" in str(refused.body)
            running.look("of the older")
    # The same pod, whose leader forms the group anew or whose container was started again.
    assert running.attach("of the younger again", since=2).code == 200


def test_the_older_of_two_leaders_has_it_when_the_younger_is_gone(running: Running) -> None:
    running.attach("of the younger", since=2)
    with running.clock.held() as move_on:
        running.look("of the younger")
        move_on(LEADER_SILENT_SECONDS - 1)
        assert running.attach("of the older", since=1).code == 409
        move_on(1)
    assert running.attach("of the older", since=1).code == 200


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{}", b"\xff"),
        b'{"epoch":1,"leader":"a","leaderSince":1,"worker":"x-0-1"}',
        b'{"epoch":"e","leader":"a","worker":"x-0-1"}',
        b'{"epoch":"e","leader":"a","leaderSince":"1","worker":"x-0-1"}',
        b'{"epoch":"e","leader":"a","leaderSince":-1,"worker":"x-0-1"}',
    ],
)
def test_odd_attach_bodies_are_refused(running: Running, body: bytes) -> None:
    assert running.worker.routes()[f"POST {ATTACH}"](body).code == 400


def test_the_leaders_client_understands_the_real_worker(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Api("127.0.0.1", 0, running.worker.routes())
    monkeypatch.setattr(Peers, "agent_port", api.port)
    peers = Peers()
    assert peers.address("localhost") == "127.0.0.1"
    assert peers.status("127.0.0.1")["name"] == "x-0-1"
    right: AttachRequest = {"epoch": "e", "leader": "x-0", "leaderSince": 1, "worker": "x-0-1"}
    assert peers.attach("127.0.0.1", right, 20)["epoch"] == "e"
    running.worker._looked_at = before = running.clock.monotonic() - 5
    assert peers.status("127.0.0.1", "another")["epoch"] == "e"
    assert running.worker._looked_at == before
    peers.status("127.0.0.1", "e")
    assert running.worker._looked_at > before
    wrong: AttachRequest = {**right, "worker": "other"}
    with pytest.raises(PeerError, match="this is x-0-1, not other"):
        peers.attach("127.0.0.1", wrong, 20)
    api.close()
    with pytest.raises(PeerError, match="does not answer"):
        peers.status("127.0.0.1")


def test_a_stranger_on_the_port_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api("127.0.0.1", 0, {f"GET {STATUS}": lambda _: Answer(200, {"role": "leader"})})
    monkeypatch.setattr(Peers, "agent_port", api.port)
    with pytest.raises(PeerError, match="not that of a worker"):
        Peers().status("127.0.0.1")
    api.close()


def test_a_name_without_address_is_told() -> None:
    with pytest.raises(PeerError, match="no address yet"):
        Peers().address("no-such-name.invalid")


def test_the_status_is_json(running: Running) -> None:
    assert json.loads(json.dumps(running.worker.status()))["role"] == "worker"
