"""`kubectl llamacluster`: kubectl runs `kubectl-llamacluster` from PATH for it."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import click

from llamacluster import __version__
from llamacluster.cli.bench import bench
from llamacluster.cli.chat import chat
from llamacluster.cli.completion import VARIABLE, completion
from llamacluster.cli.connection import place_options
from llamacluster.cli.doctor import doctor
from llamacluster.cli.imports import import_
from llamacluster.cli.plan import plan
from llamacluster.cli.podlogs import logs
from llamacluster.cli.status import status
from llamacluster.cli.upgrade import upgrade

PROGRAM = "kubectl llamacluster"
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@place_options
@click.version_option(__version__, prog_name="kubectl-llamacluster")
def plugin(**_: object) -> None:
    """Work with LlamaClusters."""


for _command in (bench, chat, completion, doctor, import_, logs, plan, status, upgrade):
    plugin.add_command(_command)


def main() -> None:
    """Entry point."""
    for number in _ENDS:
        signal.signal(number, _end)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")  # a terminal that does not know a letter shows a ?
    plugin(prog_name=PROGRAM, complete_var=VARIABLE)


def _end(number: int, _: FrameType | None) -> None:
    # Once: a second Ctrl-C would keep what is cleared away from being so.
    for each in _ENDS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
