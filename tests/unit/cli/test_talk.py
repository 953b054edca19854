"""`kubectl llamacluster chat` and `bench`, against servers on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llamacluster.cli.bench import chosen
from llamacluster.cli.chat import _converse, harmless
from llamacluster.cli.groupapi import API_KEY_ENV, GroupApi
from llamacluster.cli.plugin import plugin
from llamacluster.cli.terminal import BadInput
from tests.build import Manifest, stored
from tests.unit.cli.servers import LlamaServer, api_server, put_kubectl, serving

GROUP: Manifest = {
    "index": 0,
    "phase": "Serving",
    "reason": "Serving",
    "since": "2026-11-22T12:00:00Z",
}
SERVES: Manifest = {"groups": [GROUP], "conditions": []}


@pytest.fixture
def server() -> LlamaServer:
    return LlamaServer()


@pytest.fixture
def port(server: LlamaServer) -> Iterator[int]:
    with serving(server) as port:
        yield port


def run(
    tmp_path: Path, port: int, *args: str, stdin: str = "", key: str = "", **fields: Any
) -> Result:
    cluster = stored(**{"status": SERVES, **fields})
    env = {**put_kubectl(tmp_path, port), API_KEY_ENV: key, "COLUMNS": "80"}
    with api_server(tmp_path, cluster) as kubeconfig:
        return CliRunner().invoke(
            plugin, [*args, f"--kubeconfig={kubeconfig}"], input=stdin, env=env
        )


def test_a_piped_prompt_gets_its_answer_and_nothing_else(
    tmp_path: Path, server: LlamaServer, port: int
) -> None:
    done = run(tmp_path, port, "chat", "x", "--system=Be brief.", stdin="The sky?\n")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "Blue, and wide.\n", "")
    [(path, body)] = server.requests
    assert path == "/v1/chat/completions"
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "The sky?"},
    ]
    assert "pod/x-group-0" in (tmp_path / "kubectl.args").read_text()


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str | BaseException) -> None:
    rest = iter(lines)

    def read(_: str) -> str:
        line = next(rest, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)


def test_ctrl_c_stops_an_answer_and_not_the_talk(
    server: LlamaServer,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.interrupts = True
    typed(monkeypatch, "The sky?", "Go on.")
    _converse(GroupApi(port), [])
    stopped, _, rest = capsys.readouterr().out.partition("[stopped]")
    assert stopped.strip() in ("", "Blue")  # what had come by then
    assert rest == "\n\nBlue, and wide.\n[3 tokens, 12.3 tokens/s]\n\n\n"
    assert server.requests[-1][1]["messages"][-1]["content"] == "Go on."


def test_a_talk_remembers_what_was_said(
    server: LlamaServer,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed(monkeypatch, "The sky?", KeyboardInterrupt(), " ", "x" * 5000, "And the sea?")
    _converse(GroupApi(port), [])
    printed = capsys.readouterr()
    assert printed.out.count("Blue, and wide.\n[3 tokens, 12.3 tokens/s]\n") == 2
    assert "exceeds the available context size" in printed.err
    assert [message["content"] for message in server.requests[-1][1]["messages"]] == [
        *("The sky?", "Blue, and wide.", "And the sea?")
    ]


def test_what_a_model_says_cannot_move_the_cursor() -> None:
    assert harmless("a\x1b[2J\tb\u200d\n") == "a[2J\tb\u200d\n"


@pytest.mark.parametrize("verb", ["chat", "bench"])
def test_a_group_that_does_not_serve_says_why_before_kubectl_is_asked(
    tmp_path: Path, port: int, verb: str
) -> None:
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": "WorkersPending",
        "message": "x-group-0-1: no node has room",
        "lastTransitionTime": "2026-11-22T12:00:00Z",
    }
    status = {"groups": [{**GROUP, "phase": "Waiting"}], "conditions": [ready]}
    done = run(tmp_path, port, verb, "x", stdin="Hello", status=status)
    assert done.exit_code == 1
    assert "x does not serve: WorkersPending: x-group-0-1: no node has room" in done.stderr
    assert not (tmp_path / "kubectl.args").exists()


@pytest.mark.parametrize("verb", ["chat", "bench"])
def test_an_api_key_comes_from_the_environment_or_a_file(
    tmp_path: Path, server: LlamaServer, port: int, verb: str
) -> None:
    server.key = "a-key-of-the-secret"
    keys = {"apiKeysSecret": {"name": "keys"}}
    without = run(tmp_path, port, verb, "x", stdin="Hello", server=keys)
    assert without.exit_code == 2
    assert "x asks for an API key: give one by --api-key-file" in without.stderr
    file = tmp_path / "key"
    file.write_text(server.key + "\n")
    named = run(tmp_path, port, verb, "x", f"--api-key-file={file}", stdin="Hello", server=keys)
    told = run(tmp_path, port, verb, "x", stdin="Hello", server=keys, key=server.key)
    assert (named.exit_code, told.exit_code) == (0, 0), named.output + told.output
    wrong = run(tmp_path, port, verb, "x", stdin="Hello", server=keys, key="another")
    assert wrong.exit_code == 1
    assert "Invalid API Key" in wrong.stderr


@pytest.mark.parametrize("verb", ["chat", "bench"])
def test_embeddings_write_nothing(tmp_path: Path, port: int, verb: str) -> None:
    done = run(tmp_path, port, verb, "x", stdin="Hello", inference={"embeddings": True})
    assert done.exit_code == 2
    assert "serves embeddings" in done.stderr


def test_bench_asks_with_as_many_streams_as_there_are_slots(
    tmp_path: Path, server: LlamaServer, port: int
) -> None:
    done = run(tmp_path, port, "bench", "x", "-o", "json", inference={"parallel": 3})
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [pace["streams"] for pace in told["paces"]] == [1, 2, 3]
    assert (told["promptTokens"], told["answerTokens"]) == (512, 64)
    assert {pace["decodeTokensPerSecondEach"] for pace in told["paces"]} == {10.0}
    asked = [body for path, body in server.requests if path == "/completion"]
    assert {(len(body["prompt"]), body["n_predict"]) for body in asked} == {
        *((8, 2), (512, 1), (8, 64))
    }
    assert not any(body["cache_prompt"] for body in asked)
    assert server.most_running == 3


def test_the_table_says_what_its_numbers_mean_within_80_columns(tmp_path: Path, port: int) -> None:
    done = run(tmp_path, port, "bench", "x")
    assert done.exit_code == 0, done.output
    assert ["STREAMS", "PROMPT", "DECODE,", "EACH", "DECODE,", "ALL"] in (
        [line.split() for line in done.stdout.splitlines()]
    )
    assert "Workers pool memory, not speed" in " ".join(done.stdout.split())
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_sizes_stay_within_the_context() -> None:
    assert chosen(4096, None, None).prompt == 512
    small = chosen(32, None, None)
    assert small.prompt + small.answer < 32
    with pytest.raises(BadInput, match=r"not within a context of 100"):
        chosen(100, 90, 20)


def test_more_streams_than_slots_are_refused(tmp_path: Path, port: int) -> None:
    done = run(tmp_path, port, "bench", "x", "--streams=2")
    assert done.exit_code == 2
    assert "inference.parallel 1" in done.stderr
