"""The documentation speaks of everything that a user can meet."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.reasons import ClusterReason
from llamacluster.planning.reasons import Reason
from tests.kind.host import REPOSITORY

DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]


def test_every_reason_has_its_section_and_nothing_else_has() -> None:
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
    sections = re.findall(r"^### (.+)$", text, re.M)
    assert sorted(sections) == sorted({reason.value for reason in (*Reason, *ClusterReason)})


def test_each_of_them_begins_with_what_it_means() -> None:
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
    sections = re.findall(r"^### (\w+)\n+(.*)$", text, re.M)
    assert [reason for reason, first in sections if first.startswith(("#", "-"))] == []


@pytest.mark.parametrize("document", ["README.md", "docs/index.md"])
def test_the_manifest_at_the_start_is_one(document: str) -> None:
    text = (REPOSITORY / document).read_text()
    [manifest] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    parsed = yaml.safe_load(manifest)
    parsed["metadata"]["namespace"] = "default"
    assert LlamaCluster.model_validate(parsed).spec.workers.count == 3


@pytest.mark.parametrize("start", ["README.md", "docs/index.md"])
def test_the_first_screen_has_a_command_to_try_it(start: str) -> None:
    assert "make demo" in "\n".join((REPOSITORY / start).read_text().splitlines()[:40])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_the_map_of_the_code_has_each_module_of_the_controller() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"\w+", text.partition("## Where is what")[2]))
    files = (REPOSITORY / "operator" / "llamacluster" / "controller").glob("[!_]*.py")
    assert {file.stem for file in files} - named == set()


def test_each_promise_of_the_security_page_names_tests_that_exist() -> None:
    text = (REPOSITORY / "docs" / "security.md").read_text()
    promises = [line for line in text.splitlines() if re.match(r"\| .* \| .*`tests/", line)]
    assert promises
    missing = [
        (path, name)
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", "\n".join(promises))
        if name not in _functions(REPOSITORY / path)
    ]
    assert missing == []
    # No other spelling of a test's name slips through.
    assert re.findall(r"tests/[\w/.]+\.py::", text) == re.findall(r"(?<=`)tests/[\w/]+\.py::", text)


def _functions(file: Path) -> set[str]:
    if not file.exists():
        return set()
    tree = ast.parse(file.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
