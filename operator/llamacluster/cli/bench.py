"""`kubectl llamacluster bench`: how many tokens per second a group makes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from llamacluster.cli import connection, groupapi
from llamacluster.cli.connection import Place
from llamacluster.cli.groupapi import Connected, GroupApi
from llamacluster.cli.output import Output, formatted, output_option
from llamacluster.cli.table import hanging
from llamacluster.cli.terminal import BadInput, Failed, err, out

SHORT_PROMPT = 8
"""Tokens before those that are counted as answer."""
TEXT = "The quick brown fox jumps over the lazy dog while nine old clocks tick in an empty hall. "
MEANING = (
    "Prompt: tokens read per second, of all streams. Decode: tokens written per second, in each"
    " stream by the engine's clock, and in all of them by this machine's. Workers pool memory, not"
    " speed: with more of them prompts and concurrent streams get faster, a single stream does not."
)


@dataclass(frozen=True)
class Sizes:
    """Tokens of each request."""

    prompt: int
    answer: int


@dataclass(frozen=True)
class Pace:
    """Tokens per second with so many streams at the same time."""

    streams: int
    prompt: float
    decode_each: float
    decode_all: float

    def plain(self) -> dict[str, float | int]:
        """For JSON."""
        return {
            "streams": self.streams,
            "promptTokensPerSecond": round(self.prompt, 2),
            "decodeTokensPerSecondEach": round(self.decode_each, 2),
            "decodeTokensPerSecond": round(self.decode_all, 2),
        }


@click.command()
@connection.name_argument
@connection.options
@groupapi.options
@click.option(
    "--prompt-tokens",
    type=click.IntRange(min=1),
    help="Tokens of each prompt. Default: 512, or what the context leaves.",
)
@click.option(
    "--tokens",
    type=click.IntRange(min=2),
    help="Tokens of each answer. Default: 64, or a quarter of the context.",
)
@click.option(
    "--streams",
    type=click.IntRange(min=1),
    help="Requests at the same time, at most. Default: inference.parallel.",
)
@output_option("the sizes, and the tokens per second for each number of streams.")
def bench(
    name: str,
    place: Place,
    key_file: Path | None,
    prompt_tokens: int | None,
    tokens: int | None,
    streams: int | None,
    output: Output,
) -> None:
    """Measure how many tokens per second the LlamaCluster NAME makes.

    Asks one group that serves, with 1, 2, 4 … requests at the same time up to its slots. It takes
    the slots from others meanwhile, and what others ask slows it down.

    \b
    Exit codes:
      0  measured
      1  no group serves, or it refuses, or the connection broke
      2  no such LlamaCluster, no API key, or an option is wrong
    """
    with groupapi.connected(place, name, key_file) as there:
        inference = there.cluster.spec.inference
        if inference.embeddings:
            raise BadInput(f"{name} serves embeddings (inference.embeddings): it writes no tokens")
        most = streams or inference.parallel
        if most > inference.parallel:
            raise BadInput(f"--streams {most}: {name} has inference.parallel {inference.parallel}")
        sizes = chosen(inference.context_size, prompt_tokens, tokens)
        counts = list(_counts(most))
        with err().status("") as status:
            paces = []
            for pace in measured(there.api, sizes, counts):
                paces.append(pace)
                status.update(Text(f"measured {pace.streams} of {most} streams"))
    if output is Output.TABLE:
        _print(there, sizes, paces)
    else:
        click.echo(
            formatted(
                {
                    "name": name,
                    "group": there.group,
                    "workers": there.cluster.status.plan and there.cluster.status.plan.workers,
                    "promptTokens": sizes.prompt,
                    "answerTokens": sizes.answer,
                    "paces": [pace.plain() for pace in paces],
                },
                output,
            )
        )


def chosen(context: int, prompt: int | None, answer: int | None) -> Sizes:
    """Sizes within a context of so many tokens. Raises BadInput when they are not."""
    answer = answer or min(64, context // 4)
    # The engine wants room for one token more.
    prompt = prompt or min(512, context - answer - 1)
    if max(prompt, SHORT_PROMPT) + answer >= context:
        raise BadInput(
            f"{prompt} tokens of prompt and {answer} of answer are not within a context of"
            f" {context} (inference.contextSize)"
        )
    return Sizes(prompt, answer)


def _counts(most: int) -> Iterator[int]:
    """1, 2, 4 … and `most`."""
    count = 1
    while count < most:
        yield count
        count *= 2
    yield most


def measured(api: GroupApi, sizes: Sizes, counts: list[int]) -> Iterator[Pace]:
    """A pace for each count of streams. Raises Failed."""
    prompt = _prompt(api, sizes.prompt)
    short = prompt[:SHORT_PROMPT]
    _timings(api, short, 2)  # what comes first in a new connection is slower
    pool = ThreadPoolExecutor(max(counts))

    def together(tokens: list[int], answer: int, count: int) -> tuple[list[Any], float]:
        began = time.perf_counter()
        asked = [pool.submit(_timings, api, tokens, answer) for _ in range(count)]
        answers = [each.result() for each in asked]
        return answers, time.perf_counter() - began

    try:
        for count in counts:
            # With a single token of answer, all the time is the prompt's.
            read, reading = together(prompt, 1, count)
            written, writing = together(short, sizes.answer, count)
            yield Pace(
                count,
                sum(each["prompt_n"] for each in read) / reading,
                sum(each["predicted_per_second"] for each in written) / count,
                sum(each["predicted_n"] for each in written) / writing,
            )
    finally:
        # After Ctrl-C nobody waits for the answers: the port-forward ends, and they with it.
        pool.shutdown(wait=False, cancel_futures=True)


def _prompt(api: GroupApi, count: int) -> list[int]:
    tokens = api.ask("/tokenize", {"content": TEXT}).get("tokens")
    if not isinstance(tokens, list) or not tokens:
        raise Failed("the group's engine does not tokenize: it is no llama-server that we know")
    return (tokens * (count // len(tokens) + 1))[:count]


def _timings(api: GroupApi, prompt: list[int], answer: int) -> dict[str, Any]:
    """The engine's own account of one request."""
    timings = api.ask(
        "/completion",
        {
            "prompt": prompt,
            "n_predict": answer,
            "cache_prompt": False,
            "ignore_eos": True,
            "temperature": 0,
        },
    ).get("timings", {})
    needed = ("prompt_n", "predicted_n", "predicted_per_second")
    if not all(isinstance(timings.get(key), int | float) for key in needed):
        raise Failed("the group's engine tells no timings: it is no llama-server that we know")
    return dict(timings)


def _print(there: Connected, sizes: Sizes, paces: list[Pace]) -> None:
    console = out()
    plan = there.cluster.status.plan
    workers = f", {plan.workers} workers" if plan else ""
    console.print(
        Text(f"LlamaCluster {there.cluster.metadata.name}, group {there.group}{workers}", "bold")
    )
    console.print(
        Text(f"prompts of {sizes.prompt} tokens, answers of {sizes.answer}; tokens/s:\n", "dim")
    )
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("STREAMS", "PROMPT", "DECODE, EACH", "DECODE, ALL"):
        table.add_column(heading, justify="right", no_wrap=True)
    for pace in paces:
        rates = (pace.prompt, pace.decode_each, pace.decode_all)
        table.add_row(str(pace.streams), *(f"{rate:.1f}" for rate in rates))
    console.print(table)
    console.print()
    console.print(hanging("", MEANING, console.width, "dim"))
