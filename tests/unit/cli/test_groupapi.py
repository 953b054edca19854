"""The API that a group serves, as the plug-in asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llamacluster.cli.connection import Place
from llamacluster.cli.groupapi import GroupApi, Refused, serving_group
from llamacluster.cli.pace import paces
from llamacluster.cli.portforward import port_forward
from llamacluster.cli.terminal import BadInput, Failed
from tests.build import Manifest, llama_cluster
from tests.groupapibehaviour import GroupApiBehaviour
from tests.unit.cli.servers import LlamaServer, agent, put_kubectl, serving

SINCE = "2026-11-22T12:00:00Z"


@pytest.fixture
def server() -> LlamaServer:
    return LlamaServer()


@pytest.fixture
def api(server: LlamaServer) -> Iterator[GroupApi]:
    with serving(server) as port:
        yield GroupApi(port)


class TestFake(GroupApiBehaviour):
    """The fake is held to what the engine does."""


def test_a_key_is_shown_and_a_wrong_one_is_explained(server: LlamaServer, api: GroupApi) -> None:
    server.key = "a-good-key"
    with pytest.raises(Refused, match=r"Invalid API Key: give an API key by --api-key-file or \$"):
        api.ask("/tokenize", {"content": "a"})
    assert GroupApi(api.port, key="a-good-key").ask("/tokenize", {"content": "a b"}) == {
        "tokens": [0, 1]
    }
    assert "a-good-key" not in repr(GroupApi(api.port, key="a-good-key"))


def test_an_answer_that_breaks_off_is_told_to_have_done_so(
    server: LlamaServer, api: GroupApi
) -> None:
    server.breaks_off = True
    with pytest.raises(Failed, match="broke off"):
        list(api.stream("/v1/chat/completions", {"messages": []}))


def test_nobody_at_the_other_end_is_a_broken_connection() -> None:
    with pytest.raises(Failed, match="the connection to the group broke"):
        GroupApi(1).ask("/tokenize", {})


def group(index: int, phase: str) -> Manifest:
    return {"index": index, "phase": phase, "reason": phase, "since": SINCE}


def ready(status: str, reason: str) -> Manifest:
    return {
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": "in words",
        "lastTransitionTime": SINCE,
    }


def test_the_first_group_that_serves_is_asked() -> None:
    groups = [group(0, "Recovering"), group(1, "Serving"), group(2, "Serving")]
    assert serving_group(llama_cluster(status={"groups": groups})) == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({}, "the operator has said nothing yet"),
        (
            {"groups": [group(0, "Loading")], "conditions": [ready("False", "Loading")]},
            "Loading: in words",
        ),
        ({"conditions": [ready("True", "Ready")]}, "no group of it does just now"),
    ],
)
def test_why_none_serves_is_told_before_anything_is_tried(status: Manifest, words: str) -> None:
    with pytest.raises(Failed, match=f"x does not serve: {words}"):
        serving_group(llama_cluster(status=status))


def test_a_port_forward_is_kubectls_with_the_place_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in put_kubectl(tmp_path, 4711).items():
        monkeypatch.setenv(name, value)
    with port_forward(Place(None, "config", "there"), "ns", "x-group-1", 9000) as port:
        assert port == 4711
    assert (tmp_path / "kubectl.args").read_text().split() == [
        *("--namespace=ns", "--kubeconfig=config", "--context=there"),
        *("port-forward", "--address=127.0.0.1", "pod/x-group-1", ":9000"),
    ]


def test_what_kubectl_says_of_its_failure_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in put_kubectl(tmp_path, None).items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(Failed, match='port-forward: error: pods "x-group-1" not found'),
        port_forward(Place(), "ns", "x-group-1", 8080),
    ):
        pass
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadInput, match="kubectl is not on PATH"), port_forward(Place(), "", "", 1):
        pass


def test_a_pace_is_that_of_the_groups_which_serve_and_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "role": "leader",
        "phase": "Serving",
        "reason": "Ready",
        "message": "",
        "workers": [],
        "engine": {"version": "1"},
        "lastTokensPerSecond": 14.5,
    }
    cluster = llama_cluster(status={"groups": [group(0, "Loading"), group(1, "Serving")]})
    with agent(told) as port:
        for name, value in put_kubectl(tmp_path, port).items():
            monkeypatch.setenv(name, value)
        assert paces(Place(), cluster) == {1: 14.5}
        told["lastTokensPerSecond"] = None
        assert paces(Place(), cluster) == {}
    assert paces(Place(), cluster) == {}
    monkeypatch.setenv("PATH", "")
    assert paces(Place(), cluster) == {}
