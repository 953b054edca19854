"""What a shell offers after `kubectl llamacluster`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
from click.shell_completion import ShellComplete, get_completion_class

PROGRAM = "kubectl-llamacluster"
VARIABLE = "_KUBECTL_LLAMACLUSTER_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
_FILES, _NO_FILES = 0, 4
"""Directives of cobra, whose protocol kubectl speaks with plug-ins."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what completes the plug-in in a shell.

    Source it for `kubectl-llamacluster`. For `kubectl llamacluster`, kubectl's own completion is
    enough: it asks `kubectl_complete-llamacluster`, which is installed beside the plug-in.

    \b
    Exit codes:
      0  printed
      2  the shell is not known
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click knows all of SHELLS
    click.echo(kind(context.find_root().command, {}, PROGRAM, VARIABLE).source())


def offers(command: click.Command, words: Sequence[str]) -> list[str]:
    """Lines for kubectl: what the last of `words` may become, each with its help after a tab, and a
    directive."""
    *before, incomplete = words or [""]
    found = ShellComplete(command, {}, PROGRAM, VARIABLE).get_completions(before, incomplete)
    lines = [f"{each.value}\t{each.help}" if each.help else str(each.value) for each in found]
    if any(each.type in ("file", "dir") for each in found):
        return [f":{_FILES}"]
    return [*lines, f":{_NO_FILES}"]


def main() -> None:
    """Entry point of `kubectl_complete-llamacluster`."""
    from llamacluster.cli.plugin import plugin

    for line in offers(plugin, sys.argv[1:]):
        click.echo(line)
