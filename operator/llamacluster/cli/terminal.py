"""The terminal: colours where there is one, and one red line for what goes wrong."""

from __future__ import annotations

from typing import IO, Any

import click
from rich.console import Console
from rich.text import Text


def out() -> Console:
    """Standard output."""
    return Console(highlight=False, markup=False)


def err() -> Console:
    """Standard error."""
    return Console(stderr=True, highlight=False, markup=False)


def printable(text: str) -> str:
    """`text` without control characters: what models and servers say is not ours, and must not
    move the cursor."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


def say(word: str, text: str, style: str) -> None:
    """A line on standard error, such as `error: ...`, in one piece for those who search in it."""
    line = Text.assemble((f"{word}: ", style), printable(text))
    err().print(line, soft_wrap=True)


class Failed(click.ClickException):
    """Ends the command with a line on standard error and exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:  # noqa: ARG002 - click's signature
        """Print it."""
        say("error", self.message, "bold red")


class BadInput(Failed):
    """The same for what the user has to correct: exit code 2."""

    exit_code = 2
