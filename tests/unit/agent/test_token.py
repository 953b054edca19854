"""The agents' token, and what happens while it changes."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest

from llamacluster.agent.api import Api
from llamacluster.agent.contract.places import STATUS
from llamacluster.agent.peers import PeerError, Peers
from llamacluster.agent.token import FORMER_COUNTS_SECONDS, MAX_BYTES, ControlToken
from tests.unit.agent.fakes import FastClock
from tests.unit.agent.test_worker import Running, running

__all__ = ["running"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "token"


def test_the_file_is_read_at_each_use(file: Path) -> None:
    token = ControlToken(file, FastClock())
    assert token.known() == []
    assert not token.accepts("Bearer ")
    file.write_text("one\n")
    assert token.known() == ["one"]
    assert token.accepts("Bearer one")
    assert not token.accepts("Bearer one ")


def test_the_former_token_counts_until_every_pod_has_the_new_one(file: Path) -> None:
    clock = FastClock()
    token = ControlToken(file, clock)
    for text in ("one", "two"):
        file.write_text(text)
        token.known()
    assert token.known() == ["two", "one"]
    clock.wait(Event(), FORMER_COUNTS_SECONDS + 1)
    assert token.known() == ["two"]
    assert not token.accepts("Bearer one")


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe"])
def test_a_file_that_holds_none_changes_nothing(file: Path, content: bytes) -> None:
    token = ControlToken(file, FastClock())
    file.write_text("one")
    assert token.known() == ["one"]
    file.write_bytes(content)
    assert token.known() == ["one"]
    file.unlink()
    assert token.known() == ["one"]


def test_of_a_huge_file_only_the_beginning_is_read(file: Path) -> None:
    file.write_text("x" * (MAX_BYTES + 1))
    assert ControlToken(file, FastClock()).known() == ["x" * MAX_BYTES]


@pytest.mark.parametrize("first", ["leader", "worker"])
def test_a_change_breaks_no_group_whichever_pod_sees_it_first(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    files = {role: tmp_path / role for role in ("leader", "worker")}
    tokens = {role: ControlToken(path, FastClock()) for role, path in files.items()}
    api = Api("127.0.0.1", 0, running.worker.routes(), tokens["worker"])
    monkeypatch.setattr("llamacluster.agent.peers.Peers.agent_port", api.port)
    peers = Peers(tokens["leader"])
    for path in files.values():
        path.write_text("one")
    assert peers.status("127.0.0.1")["name"] == "x-0-1"
    second = "worker" if first == "leader" else "leader"
    for role in (first, second):
        files[role].write_text("two")
        assert peers.status("127.0.0.1")["name"] == "x-0-1"
    files["leader"].write_text("three")
    assert ControlToken(files["leader"], FastClock()).known() == ["three"]
    with pytest.raises(PeerError, match="its token is not the one here"):
        Peers(ControlToken(files["leader"], FastClock())).status("127.0.0.1")
    api.close()


def test_a_worker_without_a_token_serves_a_leader_with_one(
    running: Running, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("one")
    api = Api("127.0.0.1", 0, running.worker.routes())
    monkeypatch.setattr("llamacluster.agent.peers.Peers.agent_port", api.port)
    assert Peers(ControlToken(file, FastClock())).status("127.0.0.1")["name"] == "x-0-1"
    api.close()


def test_the_status_of_a_worker_tells_nothing_of_the_token(running: Running) -> None:
    assert "token" not in str(running.worker.routes()[f"GET {STATUS}"](b"").body)
