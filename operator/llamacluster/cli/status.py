"""`kubectl llamacluster status`: all that is known of one LlamaCluster, on one screen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.plan import Plan, PlannedMemory
from llamacluster.api.reasons import ClusterReason
from llamacluster.api.status import Condition, ConditionStatus, GroupStatus, RestartCause
from llamacluster.cli import connection
from llamacluster.cli.connection import Place
from llamacluster.cli.output import Output, formatted, output_option
from llamacluster.cli.pace import paces
from llamacluster.cli.table import hanging, items, layer_range
from llamacluster.cli.terminal import BadInput, out, printable

if TYPE_CHECKING:
    from llamacluster.controller.kubeapi import KubeApi

LOOK_SECONDS = 2.0
PACE_SECONDS = 10.0
"""Each group is asked through a port-forward of its own."""
_ORDER = ("Ready", "Planned", "Progressing", "Degraded", "Isolated")
RESTARTS_SHOWN = 3
"""Containers of a group; the object's status has more."""
_AS_WANTED = {ClusterReason.AsExpected, ClusterReason.ScaledToZero}


@click.command()
@connection.name_argument
@connection.options
@click.option("-w", "--watch", is_flag=True, help="Show it anew every two seconds, until Ctrl-C.")
@output_option("the object's status as the API server has it.")
def status(name: str, place: Place, watch: bool, output: Output) -> None:
    """Show how the LlamaCluster NAME is.

    Conditions, groups, and what each pod holds. The tokens per second of a group are those of its
    last answer; they are asked for through `kubectl port-forward`, and left out where that fails.

    \b
    Exit codes:
      0  it is Ready
      1  it is not Ready, or the API server refuses
      2  there is no such LlamaCluster, or an option is wrong
    """
    if watch and output is not Output.TABLE:
        raise BadInput("--watch shows a table: it goes without --output")

    async def act(api: KubeApi, namespace: str) -> None:
        cluster = await connection.read(api, namespace, name)
        if watch:
            await _watch(api, place, cluster)
        elif output is Output.TABLE:
            told_paces = await asyncio.to_thread(paces, place, cluster)
            out().print(screen(cluster, out(), datetime.now(UTC), told_paces))
        else:
            told = cluster.status.model_dump(mode="json", by_alias=True, exclude_none=True)
            click.echo(formatted(told, output))
        if not is_ready(cluster):
            raise SystemExit(1)

    connection.run(place, act)


async def _watch(api: KubeApi, place: Place, cluster: LlamaCluster) -> None:
    console = out()
    told: dict[int, float] = {}

    async def ask() -> None:
        nonlocal told
        while True:
            told = await asyncio.to_thread(paces, place, cluster)
            await asyncio.sleep(PACE_SECONDS)

    asking = asyncio.create_task(ask())
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(screen(cluster, console, datetime.now(UTC), told), refresh=True)
                await asyncio.sleep(LOOK_SECONDS)
                metadata = cluster.metadata
                cluster = await connection.read(api, metadata.namespace, metadata.name)
    finally:
        asking.cancel()


def is_ready(cluster: LlamaCluster) -> bool:
    """Whether it answers, with the spec that it has now."""
    current = cluster.status.observed_generation == cluster.metadata.generation
    return current and any(
        condition.type == "Ready" and condition.status is ConditionStatus.TRUE
        for condition in cluster.status.conditions
    )


def troubles(cluster: LlamaCluster) -> list[Condition]:
    """The conditions that are not as they should be."""
    return [condition for condition in cluster.status.conditions if not _is_good(condition)]


def _is_good(condition: Condition) -> bool:
    if condition.reason in _AS_WANTED:
        return True
    bad = ConditionStatus.TRUE if condition.type == "Degraded" else ConditionStatus.FALSE
    return condition.status is not bad


def screen(
    cluster: LlamaCluster, console: Console, now: datetime, told: Mapping[int, float]
) -> RenderableType:
    """Everything, within the console's width. `told` is the tokens per second by group."""
    parts: list[RenderableType] = []
    for part in _parts(cluster, console.width, now, told):
        parts += [part, Text()]
    return Group(*parts[:-1])


def _parts(
    cluster: LlamaCluster, width: int, now: datetime, tokens_per_second: Mapping[int, float]
) -> Iterator[RenderableType]:
    told = cluster.status
    yield _head(cluster, width)
    if told.observed_generation != cluster.metadata.generation:
        yield hanging(
            "Not up to date: ",
            "the operator has not seen the newest spec yet; is it running?",
            width,
            "bold yellow",
            indent=0,
        )
    if told.conditions:
        yield _conditions(told.conditions, width, now)
    if told.groups:
        yield _groups(told.groups, told.plan, width, now, tokens_per_second)
    if told.plan:
        yield _pods(told.plan)
    if told.upgrade:
        yield hanging(
            "Upgrade available: ",
            "; ".join(told.upgrade.changes)
            + f" (kubectl llamacluster upgrade {cluster.metadata.name})",
            width,
            "bold",
            indent=0,
        )
    if told.plan and told.plan.advice:
        yield items("Advice:", told.plan.advice, width)


def _head(cluster: LlamaCluster, width: int) -> Text:
    told = cluster.status
    facts = {
        "Namespace": cluster.metadata.namespace,
        "Model": _model(cluster),
        "Engine": f"{told.engine.image}{_in_brackets(told.engine.version)}" if told.engine else "",
        "Endpoint": told.endpoint or "",
    }
    lines = [Text(f"LlamaCluster {cluster.metadata.name}", "bold")]
    lines += [hanging(f"{key + ':':11}", fact, width, "dim") for key, fact in facts.items() if fact]
    return Text("\n").join(lines)


def _model(cluster: LlamaCluster) -> str:
    plan = cluster.status.plan
    if plan is None:
        return cluster.status.model_file or ""
    name = f"{plan.model.name}: " if plan.model.name else ""
    return f"{name}{plan.model.architecture}, {plan.model.layers} layers"


def _in_brackets(text: str | None) -> str:
    return f" ({text})" if text else ""


def _conditions(conditions: list[Condition], width: int, now: datetime) -> Text:
    order = {kind: place for place, kind in enumerate(_ORDER)}
    lines = []
    # What kstatus has beside them says nothing more to a person.
    shown = (condition for condition in conditions if condition.type in order)
    for condition in sorted(shown, key=lambda each: order[each.type]):
        style = "green" if _is_good(condition) else "bold red"
        lead = f"{condition.type:12}{condition.status.value:8}"
        age = _age(condition.last_transition_time, now)
        words = f"{condition.reason}, {age}: {condition.message}".removesuffix(": ")
        lines.append(hanging(lead, words, width, style))
    return Text("\n").join(lines)


def _groups(
    groups: list[GroupStatus],
    plan: Plan | None,
    width: int,
    now: datetime,
    tokens_per_second: Mapping[int, float],
) -> Group:
    # With more between its eight columns, the longest of reasons would be cut off at 80.
    table = _table("GROUP", "PHASE", "FOR", gap=1)
    headings = ["WORKERS", "RESTARTS", "RECOVERIES", *["TOKENS/S"][: len(tokens_per_second)]]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("REASON", no_wrap=True)
    for group in groups:
        of = f"/{plan.workers}" if plan else ""
        table.add_row(
            str(group.index),
            group.phase.value,
            _age(group.since, now),
            f"{group.workers_attached}{of}",
            str(group.restarts),
            str(group.recoveries),
            *([_pace(tokens_per_second.get(group.index))] if tokens_per_second else []),
            printable(group.reason),
        )
    notes = [
        hanging(f"  group {group.index}: ", note, width, "dim")
        for group in groups
        for note in _notes(group, now)
    ]
    return Group(table, *notes)


def _pace(tokens_per_second: float | None) -> str:
    return "" if tokens_per_second is None else f"{tokens_per_second:.1f}"


def _notes(group: GroupStatus, now: datetime) -> Iterator[str]:
    if group.message:
        yield group.message
    if group.lost:
        yield f"lost by {group.lost.reason}: {group.lost.message}"
    for cause in group.restart_causes[:RESTARTS_SHOWN]:
        yield _restarted(cause, now)
    if group.recovery_causes:
        yield "recovered from " + ", ".join(
            f"{cause.reason} {cause.count}x (last {_age(cause.at, now)} ago)"
            for cause in group.recovery_causes
        )
    if group.last_recovery:
        last = group.last_recovery
        yield f"last recovery took {last.seconds} s, after {last.reason}: {last.message}"


def _restarted(cause: RestartCause, now: datetime) -> str:
    code = "" if cause.exit_code is None else f", exit code {cause.exit_code}"
    age = "" if cause.at is None else f", {_age(cause.at, now)} ago"
    of = f"{cause.container} of {cause.pod}"
    return f"restarted {cause.count}x: {of}, last after {cause.reason}{code}{age}"


def _pods(plan: Plan) -> Table:
    table = _table("POD", "LAYERS")
    for heading in ("WEIGHTS", "CONTEXT", "COMPUTE", "LIMIT", "HOLDS"):
        table.add_column(heading, justify="right", no_wrap=True)
    for index, worker in enumerate(plan.per_worker, start=1):
        layers = layer_range(worker.first_layer, worker.last_layer, plan.model.layers)
        table.add_row(f"worker {index}", layers, *_memory(worker, plan.worker_memory))
    table.add_row("leader", "input", *_memory(plan.leader, plan.leader_memory))
    return table


def _memory(pod: PlannedMemory, limit: str) -> tuple[str, ...]:
    return (pod.weights, pod.context, pod.compute, limit, pod.observed or "")


def _table(*headings: str, gap: int = 2) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, gap, 0, 0))
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table


def _age(since: str, now: datetime) -> str:
    """As kubectl tells an age: 45s, 12m, 3h, 2d."""
    try:
        seconds = int((now - datetime.fromisoformat(since)).total_seconds())
    except ValueError:
        return "?"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"
