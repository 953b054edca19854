"""What the plug-in says where no API server, or none that lets it in, is to be reached."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from llamacluster.cli import connection
from llamacluster.cli.plugin import plugin
from tests.build import stored
from tests.unit.cli.servers import api_server, saying, silent

LOOK_UP = ["bench", "chat", "logs", "status", "upgrade"]
VERBS = ["doctor", *LOOK_UP]


def told(verb: str, kubeconfig: Path) -> str:
    """The line, and the only one, with which it ends."""
    name = [] if verb == "doctor" else ["x"]
    arguments = [verb, *name, f"--kubeconfig={kubeconfig}"]
    done = CliRunner().invoke(plugin, arguments, input="a prompt")
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 1
    [line] = done.output.splitlines()
    return line


def status(code: int, message: str) -> str:
    return json.dumps({"kind": "Status", "status": "Failure", "message": message, "code": code})


@pytest.mark.parametrize("verb", VERBS)
def test_whose_login_has_expired_is_to_log_in_again(tmp_path: Path, verb: str) -> None:
    with saying(tmp_path, 401, status(401, "Unauthorized")) as kubeconfig:
        assert "says 401 Unauthorized: log in again" in told(verb, kubeconfig)


@pytest.mark.parametrize("verb", VERBS)
def test_who_may_nothing_is_told_so_by_the_api_server(tmp_path: Path, verb: str) -> None:
    refusal = status(403, 'forbidden: User "system:anonymous" cannot')
    with saying(tmp_path, 403, refusal) as kubeconfig:
        assert '403: forbidden: User "system:anonymous" cannot' in told(verb, kubeconfig)


def test_what_is_no_api_server_is_told(tmp_path: Path) -> None:
    with saying(tmp_path, 404, "404 page not found") as kubeconfig:
        assert "it is no API server: see `server` in the kubeconfig" in told("doctor", kubeconfig)
    with saying(tmp_path, 200, "{}") as kubeconfig:
        assert "it is no API server: see `server` in the kubeconfig" in told("doctor", kubeconfig)


@pytest.mark.parametrize("verb", LOOK_UP)
def test_a_name_is_not_to_blame_where_the_kind_is_not_known(tmp_path: Path, verb: str) -> None:
    with saying(tmp_path, 404, "404 page not found") as kubeconfig:
        assert "does not know LlamaCluster: see kubectl llama" in told(verb, kubeconfig)


@pytest.mark.parametrize("verb", LOOK_UP)
def test_a_name_that_nothing_has_is_the_users(tmp_path: Path, verb: str) -> None:
    with api_server(tmp_path, stored("y")) as kubeconfig:
        done = CliRunner().invoke(plugin, [verb, "x", f"--kubeconfig={kubeconfig}"], input="hi")
    assert done.exit_code == 2
    assert "there is no LlamaCluster x in namespace ns" in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_a_page_of_a_proxy_is_no_answer(tmp_path: Path, verb: str) -> None:
    with saying(tmp_path, 200, "<html>Please log in</html>") as kubeconfig:
        assert "no object in JSON: is it an API server?" in told(verb, kubeconfig)


@pytest.mark.parametrize("verb", VERBS)
def test_an_api_server_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.1)
    with silent(tmp_path) as kubeconfig:
        assert "does not answer in time" in told(verb, kubeconfig)


def test_where_to_look_may_stand_before_the_verb_as_well(tmp_path: Path) -> None:
    with api_server(tmp_path, stored("x")) as kubeconfig:

        def run(*arguments: str) -> str:
            place = f"--kubeconfig={kubeconfig}"
            return CliRunner().invoke(plugin, [place, *arguments]).output

        assert "LlamaCluster x" in run("status", "x")
        missing = "there is no LlamaCluster x in namespace"
        assert f"{missing} before" in run("-n", "before", "status", "x")
        assert f"{missing} after" in run("-n", "before", "status", "-n", "after", "x")


@pytest.mark.parametrize("kubeconfig", ["", "nowhere", "nowhere:nor-here"])
def test_without_a_kubeconfig_it_is_said_where_one_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kubeconfig: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", kubeconfig)
    done = CliRunner().invoke(plugin, ["status", "x"])
    assert done.exit_code == 2
    place = kubeconfig or "~/.kube/config"
    words = f"error: there is no kubeconfig at {place}: set KUBECONFIG or --kubeconfig\n"
    assert done.stderr == words


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is no kubeconfig: it names no clusters"),
        ("- a list", "is no kubeconfig: it names no clusters"),
        ("text", "is no kubeconfig: it names no clusters"),
        ("{", "is no kubeconfig: while parsing"),
        ("apiVersion: v1\nkind: Config\n", "cannot be used: Expected key current-context"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_told(tmp_path: Path, content: str, words: str) -> None:
    nothing = tmp_path / "kubeconfig"
    nothing.write_text(content)
    done = CliRunner().invoke(plugin, ["status", "x", f"--kubeconfig={nothing}"])
    assert done.exit_code == 2
    [line] = done.stderr.splitlines()
    assert f"{nothing} {words}" in line
