"""`-o`: a table for people, JSON or YAML for programs."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import yaml


class Output(StrEnum):
    """Format of what is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def formatted(answer: Any, output: Output) -> str:
    """`answer` as JSON or YAML."""
    if output is Output.JSON:
        return json.dumps(answer, indent=2)
    return yaml.safe_dump(answer, sort_keys=False).rstrip()
