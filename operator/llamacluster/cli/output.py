"""`-o`: a table for people, JSON or YAML for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import click
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


def output_option(text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`-o`, which reaches the command as `output`; `text` says what JSON and YAML hold."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(Output, case_sensitive=False),
        default=Output.TABLE,
        show_default="table",
        help=f"json and yaml: {text}",
    )
