"""The operator's command says in a line what keeps it from starting."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import structlog

from llamacluster.cli import ENGINE_IMAGE_ENV, NAMESPACE_ENV, operator

RUN = ["run", "--engine-image=localhost/engine:1"]


@pytest.fixture(autouse=True)
def no_image_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENGINE_IMAGE_ENV, raising=False)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """The command sends all logs of the process to its standard error, which is each test's own."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_without_an_engine_image_it_says_how_to_name_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert operator.main(["run"]) == 2
    assert "give --engine-image" in capsys.readouterr().err


def test_labels_without_a_namespace_name_no_pods(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NAMESPACE_ENV, raising=False)
    assert operator.main([*RUN, "--own-labels=a=b"]) == 2
    assert "needs --own-namespace" in capsys.readouterr().err


def test_an_election_needs_a_namespace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NAMESPACE_ENV, raising=False)
    assert operator.main([*RUN, "--leader-elect=operator"]) == 2
    assert "--leader-elect needs --own-namespace" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["8080", ":8080", "0.0.0.0:", "0.0.0.0:0", "h:70000"])
def test_metrics_need_an_address(capsys: pytest.CaptureFixture[str], address: str) -> None:
    with pytest.raises(SystemExit):
        operator.main([*RUN, f"--metrics={address}"])
    assert f"{address} is not HOST:PORT" in capsys.readouterr().err


def test_a_kubeconfig_that_is_not_there_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = tmp_path / "nowhere"
    assert operator.main([*RUN, f"--kubeconfig={missing}"]) == 2
    assert f"there is no kubeconfig at {missing}" in capsys.readouterr().err


def test_a_kubeconfig_without_a_context_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.write_text("apiVersion: v1\nkind: Config\n")
    assert operator.main([*RUN, f"--kubeconfig={empty}"]) == 2
    [*_, line] = capsys.readouterr().err.splitlines()
    assert f"{empty} cannot be used: Expected key current-context" in line


@pytest.mark.parametrize("option", ["--health", "--metrics"])
def test_an_address_that_is_taken_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "users": [{"name": "a", "user": {}}],
    }
    kubeconfig.write_text(json.dumps(config))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert operator.main([*RUN, f"--kubeconfig={kubeconfig}", f"{option}={address}"]) == 2
    [*_, line] = capsys.readouterr().err.splitlines()
    assert line.startswith("llamacluster-operator: ")
    assert "address already in use" in line


def test_an_api_server_that_cannot_be_used_is_told_in_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def fails(*_: object) -> None:
        cause = aiohttp.ClientConnectionError("refused\nand more")
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [cause])])

    monkeypatch.setattr(operator, "_run", fails)
    assert operator.main(RUN) == 1
    told = "llamacluster-operator: the API server cannot be used: refused"
    assert capsys.readouterr().err.splitlines()[-1] == told
