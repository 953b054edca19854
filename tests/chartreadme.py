"""charts/llamacluster/README.md from the comments of values.yaml: `python -m tests.chartreadme`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.kind.host import REPOSITORY

CHART = REPOSITORY / "charts" / "llamacluster"
INTRODUCTION = """\
# Helm chart of the LlamaCluster operator

[docs/install.md](../../docs/install.md) says how to install, upgrade and remove it. A value that is
not in this table is an error.

| value | default | |
|---|---|---|
"""


def text() -> str:
    """The README as it should be. Raises ValueError for a value without a comment."""
    lines = (
        f"| `{path}` | {_code(default)} | {about} |"
        for path, default, about in rows((CHART / "values.yaml").read_text())
    )
    return INTRODUCTION + "\n".join(lines) + "\n"


def rows(values: str) -> list[tuple[str, Any, str]]:
    """Path, default and comment of each value: a commented key is one value with all below it."""
    comments = dict(_comments(values))

    def walk(node: dict[str, Any], parent: str) -> Iterator[tuple[str, Any, str]]:
        for key, value in node.items():
            path = f"{parent}{key}"
            if path in comments:
                yield path, value, comments[path]
            elif isinstance(value, dict) and value:
                yield from walk(value, f"{path}.")
            else:
                raise ValueError(f"{path} has no comment")

    return list(walk(yaml.safe_load(values), ""))


def _comments(values: str) -> Iterator[tuple[str, str]]:
    """Each key that has a comment right above it, and the comment."""
    above: list[str] = []
    parents: list[str] = []
    for line in values.splitlines():
        if comment := re.fullmatch(r" *# ?(.*)", line):
            above.append(comment[1])
            continue
        if found := re.match(r"((?:  )*)(\w+):", line):
            parents = [*parents[: len(found[1]) // 2], found[2]]
            if above:
                yield ".".join(parents), " ".join(above)
        above = []


def _code(default: Any) -> str:
    return f"`{json.dumps(default)}`"


if __name__ == "__main__":
    (CHART / "README.md").write_text(text())
