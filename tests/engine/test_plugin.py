"""`kubectl llamacluster plan` asks the engine of the image that will serve."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from llamacluster.cli.plugin import plugin
from tests.build import manifest
from tests.kind import docker
from tests.kind.docker import Engine
from tests.model.headers import write_header

pytestmark = pytest.mark.engine

FILE = "llama-3.1-70b-Q4_K_M.gguf"


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("header") / FILE
    write_header(path, "llama-3.1-70b", "Q4_K_M")
    return path


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The Docker engine, as a user's docker command finds it."""
    engine = docker.find_or_start()
    if engine.address:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
    monkeypatch.setenv("COLUMNS", "80")
    return engine


def plan(image: str, *args: str) -> Result:
    text = yaml.safe_dump(manifest(workers={"count": 3}, image=image))
    try:
        return CliRunner().invoke(plugin, ["plan", "-f", "-", *args], input=text)
    finally:
        assert "llamacluster-plan-" not in docker.find_or_start().docker(
            "ps", "--all", "--format", "{{.Names}}"
        )


def test_the_image_says_the_numbers(engine: Engine, engine_image: str, header: Path) -> None:
    asked = plan(engine_image, f"--model={header}", "--engine=container", "-o", "json")
    assert (asked.exit_code, asked.stderr) == (0, "")
    found = json.loads(asked.stdout)
    assert (found["method"], found["errorPercent"]) == ("Engine", 0)
    guessed = json.loads(
        plan(engine_image, f"--model={header}", "--engine=formula", "-ojson").stdout
    )
    assert found["model"] == guessed["model"]

    def needs(plan: Any) -> list[int]:
        return [worker["memoryBytes"] for worker in plan["perWorker"]]

    assert sum(needs(found)) == pytest.approx(sum(needs(guessed)), rel=0.1)


def test_the_table_says_which_image_was_asked(
    engine: Engine, engine_image: str, header: Path
) -> None:
    printed = " ".join(plan(engine_image, f"--model={header}", "--engine=container").stdout.split())
    assert re.search(
        rf"Numbers: the engine's own \(llama.cpp \S+, in {re.escape(engine_image)}\)", printed
    )


def test_a_strict_umask_does_not_keep_the_container_out(
    engine: Engine, engine_image: str, header: Path
) -> None:
    before = os.umask(0o077)
    try:
        asked = plan(engine_image, f"--model={header}", "--engine=container")
    finally:
        os.umask(before)
    assert (asked.exit_code, asked.stderr) == (0, "")


def test_what_the_engine_cannot_load_is_told_and_not_guessed(
    engine: Engine, engine_image: str, header: Path, tmp_path: Path
) -> None:
    unknown = tmp_path / FILE
    unknown.write_bytes(header.read_bytes().replace(b"llama", b"nolma"))
    asked = plan(engine_image, f"--model={unknown}")
    assert asked.exit_code == 1
    assert "unknown model architecture: 'nolma'" in asked.stderr
    assert asked.stdout == ""
