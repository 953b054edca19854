"""The OCI runtime wrapper, run as it is, with a stand-in for runc that only prints."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kind.docker import RUNTIME_WRAPPER

pytestmark = pytest.mark.skipif(not shutil.which("jq"), reason="the wrapper needs jq")

KINDS = ("bounding", "effective", "inheritable", "permitted", "ambient")


def process(*capabilities: str) -> dict[str, Any]:
    return {"args": ["sh"], "capabilities": {kind: list(capabilities) for kind in KINDS}}


@pytest.fixture
def runc(tmp_path: Path) -> Path:
    stand_in = tmp_path / "runc"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    return stand_in


def wrapped(runc: Path, *args: str) -> list[str]:
    done = subprocess.run(
        [RUNTIME_WRAPPER, *args],
        env={"RUNC": str(runc), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("command", ["create", "run"])
def test_a_bundle_is_started_without_the_capability(
    tmp_path: Path, runc: Path, command: str
) -> None:
    config = {"ociVersion": "1.0", "process": process("CAP_CHOWN", "CAP_SYS_RESOURCE")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    args = ["--root", "/run/x", command, "--bundle", str(tmp_path), "--pid-file", "/p", "id"]

    assert wrapped(runc, *args) == args

    now = json.loads((tmp_path / "config.json").read_text())
    assert now == {"ociVersion": "1.0", "process": process("CAP_CHOWN")}


@pytest.mark.parametrize("form", ["separate", "joined", "short"])
def test_a_process_is_added_without_the_capability(tmp_path: Path, runc: Path, form: str) -> None:
    file = tmp_path / "process.json"
    file.write_text(json.dumps(process("CAP_SYS_RESOURCE", "CAP_KILL")))
    option = {
        "separate": ["--process", str(file)],
        "joined": [f"--process={file}"],
        "short": ["-p", str(file)],
    }[form]

    wrapped(runc, "exec", *option, "--detach", "id")

    assert json.loads(file.read_text()) == process("CAP_KILL")


def test_what_does_not_name_the_capability_is_left_as_it_is(tmp_path: Path, runc: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"process":   {"capabilities": {"bounding": ["CAP_KILL"]}}}')
    before = file.read_bytes()
    wrapped(runc, "create", "-b", str(tmp_path), "id")
    assert file.read_bytes() == before


def test_a_process_without_capabilities_stays_without(tmp_path: Path, runc: Path) -> None:
    file = tmp_path / "config.json"
    config = {"process": {"args": ["CAP_SYS_RESOURCE"], "capabilities": None}}
    file.write_text(json.dumps(config))
    wrapped(runc, "create", "--bundle", str(tmp_path), "id")
    assert json.loads(file.read_text()) == config


@pytest.mark.parametrize("args", [["state", "id"], ["--version"], ["delete", "--force", "id"]])
def test_all_else_goes_to_runc_as_it_came(runc: Path, args: list[str]) -> None:
    assert wrapped(runc, *args) == args
