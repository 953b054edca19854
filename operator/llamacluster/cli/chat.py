"""`kubectl llamacluster chat`: a talk with the model, from the terminal."""

from __future__ import annotations

import signal
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from llamacluster.cli import connection, groupapi
from llamacluster.cli.connection import Place
from llamacluster.cli.groupapi import GroupApi
from llamacluster.cli.terminal import BadInput, Failed

PATH = "/v1/chat/completions"


@click.command()
@connection.name_argument
@connection.options
@groupapi.options
@click.option("-s", "--system", help="What the model is told before all else.")
def chat(name: str, place: Place, key_file: Path | None, system: str | None) -> None:
    """Talk to the model of the LlamaCluster NAME.

    Through `kubectl port-forward` to the first group that serves, so that it works from anywhere
    where kubectl does. Ctrl-C stops an answer, Ctrl-D leaves. Standard input that is no terminal is
    one prompt, and its answer alone is printed.

    \b
    Exit codes:
      0  answered
      1  no group serves, or it refuses, or the connection broke
      2  no such LlamaCluster, no API key, or an option is wrong
    """
    talk = [{"role": "system", "content": system}] if system else []
    prompt = "" if sys.stdin.isatty() else sys.stdin.read().strip()
    if not prompt and not sys.stdin.isatty():
        raise BadInput("standard input is empty: it should hold a prompt")
    with groupapi.connected(place, name, key_file) as there:
        if there.cluster.spec.inference.embeddings:
            raise BadInput(f"{name} serves embeddings (inference.embeddings): it does not chat")
        if prompt:
            talk.append({"role": "user", "content": prompt})
            for kind, text in answer(there.api, talk):
                if kind == "content":
                    click.echo(text, nl=False)
            click.echo()
        else:
            click.secho(
                f"{name}, group {there.group}. Ctrl-C stops an answer, Ctrl-D leaves.", dim=True
            )
            _converse(there.api, talk)


def answer(api: GroupApi, talk: list[dict[str, str]]) -> Iterator[tuple[str, str]]:
    """Pieces of the answer, each with what it is: `reasoning`, `content`, and at the end
    `pace`."""
    for piece in api.stream(PATH, {"messages": talk, "stream": True}):
        choices = piece.get("choices") or [{}]
        delta = choices[0].get("delta") or {}
        for key, kind in (("reasoning_content", "reasoning"), ("content", "content")):
            if text := delta.get(key):
                yield kind, harmless(text)
        if timings := piece.get("timings"):
            yield "pace", _pace(timings)


def _pace(timings: dict[str, Any]) -> str:
    tokens, speed = timings.get("predicted_n"), timings.get("predicted_per_second")
    if not isinstance(tokens, int) or not isinstance(speed, int | float):
        return ""
    return f"{tokens} tokens, {speed:.1f} tokens/s"


def harmless(text: str) -> str:
    """Without control characters, which would move the cursor; what joins emoji stays."""
    return "".join(
        char for char in text if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs")
    )


def _converse(api: GroupApi, talk: list[dict[str, str]]) -> None:
    import readline  # noqa: F401 - input() edits lines by it

    with _interruptible():
        while True:
            try:
                prompt = input("> ")
            except EOFError:
                click.echo()
                return
            except KeyboardInterrupt:
                click.echo()
                continue
            if prompt.strip():
                _turn(api, talk, prompt)


def _turn(api: GroupApi, talk: list[dict[str, str]], prompt: str) -> None:
    """A prompt and its answer, which join `talk` unless there is none."""
    said: list[str] = []
    pace = ""
    asked = [*talk, {"role": "user", "content": prompt}]
    try:
        for kind, text in answer(api, asked):
            if kind == "pace":
                pace = text
                continue
            if kind == "content":
                said.append(text)
            click.secho(text, nl=False, dim=kind == "reasoning")
    except KeyboardInterrupt:
        pace = "stopped"
    except Failed as error:  # a group that lost a worker comes back by itself
        click.echo()
        error.show()
        return
    click.secho(f"\n[{pace}]\n" if pace else "\n", dim=True)
    if said:
        talk[:] = [*asked, {"role": "assistant", "content": "".join(said)}]


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt, and not the end."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
