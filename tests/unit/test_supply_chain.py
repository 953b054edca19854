"""What is installed is what was looked at."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kind.host import REPOSITORY
from tests.supplychain import NotThere, told, tool

LOCKS = sorted((REPOSITORY / "requirements").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_has_a_hash(lock: Path) -> None:
    text = lock.read_text().replace("\\\n", " ")
    packages = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert len(packages) > 5
    assert [line for line in packages if "==" not in line or "--hash=sha256:" not in line] == []


@pytest.mark.parametrize("image", ["engine", "operator"])
def test_each_base_image_is_an_argument(image: str) -> None:
    lines = (REPOSITORY / "images" / image / "Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert set(bases) == {"${BASE}"}


UNKNOWN = {"name": "a", "skip_reason": "Dependency not found on PyPI: a (1)"}
CLEAN: dict[str, Any] = {"name": "b", "version": "1", "vulns": []}
BAD = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
NO_FIX = {"name": "d", "version": "3", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]}
BAD_LINE = "c 2: PYSEC-1, fixed in 2.1"


@pytest.mark.parametrize(
    ("packages", "lines"),
    [
        ([CLEAN, CLEAN], ["none is known against 2 packages"]),
        ([CLEAN, BAD, NO_FIX], [BAD_LINE, "d 3: PYSEC-2, fixed in no version yet"]),
        ([UNKNOWN], ["not checked: 1 of 1 packages, as Dependency not found on PyPI: a (1)"]),
        (
            [UNKNOWN, CLEAN],
            [
                "none is known against 1 packages",
                "not checked: 1 of 2 packages, as Dependency not found on PyPI: a (1)",
            ],
        ),
    ],
)
def test_what_could_not_be_asked_about_is_not_said_to_be_safe(
    packages: list[dict[str, Any]], lines: list[str]
) -> None:
    assert told(json.dumps({"dependencies": packages, "fixes": []})) == "\n".join(lines)


@pytest.mark.parametrize("report", ["", "{", "[]", "null", "{}"])
def test_what_is_no_report_says_nothing(report: str) -> None:
    assert told(report) is None


def test_tools_are_installed_only_for_another_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/no/python")
    environment = tmp_path / "llamacluster" / "audit"
    environment.mkdir(parents=True)
    (environment / "lock.txt").write_bytes((REPOSITORY / "requirements/audit.txt").read_bytes())
    assert tool("pip-audit") == str(environment / "bin" / "pip-audit")
    (environment / "lock.txt").write_text("another")
    with pytest.raises(NotThere, match=r"pip-audit cannot be installed: .*/no/python"):
        tool("pip-audit")
