"""`python -m llamacluster.cli.reference FOLDER`: docs/cli.md, of what `--help` says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from llamacluster.cli.plugin import PROGRAM, plugin

WIDTH = 96
FILE = Path("docs/cli.md")
_HEAD = """\
# kubectl llamacluster

The kubectl plug-in. `pipx install .` puts it on your PATH, where kubectl finds it. It does all by
your own rights: beside reading LlamaClusters, `logs` needs `list` on `pods` and `get` on
`pods/log`, `chat` and `bench` (and `status`, for the tokens per second) `get` on `pods` and
`create` on `pods/portforward`, and `upgrade` `patch` on LeaderWorkerSets. `doctor` looks at what
you may read, and `plan --credentials` needs `get` on the Secret. `plan` without that, and `import`,
need no cluster. `-n`, `--kubeconfig` and `--context` may stand before the verb as well.
`-o json` is for programs; `chat`, a conversation, has none: they ask the API itself.

<!-- Made by `make generate` from the commands' own help. -->
"""


def reference() -> str:
    """The page."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    for name, command in sorted(plugin.commands.items()):
        context = click.Context(
            command, info_name=f"{PROGRAM} {name}", terminal_width=WIDTH, max_content_width=WIDTH
        )
        context.help_option_names = plugin.context_settings["help_option_names"]
        yield f"## {name}\n\n```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    Path(sys.argv[1], FILE).write_text(reference())
