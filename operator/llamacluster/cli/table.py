"""A plan as people read it, within 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llamacluster.agent.contract.messages import Plan, PlannedLeader, PlannedWorker
from llamacluster.agent.contract.options import PlanOptions
from llamacluster.cli.terminal import printable
from llamacluster.planning.plan import quantity, shown

_REMEDIES = "; what would fit: "
_OF_THE_LEADER = "the leader needs "


def print_plan(console: Console, name: str, options: PlanOptions, plan: Plan, where: str) -> None:
    """Prints the plan of the LlamaCluster `name`. `where` says where the engine was asked."""
    console.print(Text(f"LlamaCluster {name}", "bold"))
    for label, fact in _facts(options, plan, where).items():
        console.print(hanging(f"{label + ':':10}", fact, console.width, "dim"))
    console.print()
    console.print(_pods(plan))
    for part in _words(options, plan, console.width):
        console.print()
        console.print(part)


def numbers(plan: Plan, where: str) -> str:
    """How the numbers were made, and how far they may be off."""
    if plan["method"] == "Formula":
        return f"by formula, within {plan['errorPercent']} %"
    version = (plan["engine"] or "").split(" ")[0]
    return f"the engine's own (llama.cpp{f' {version}' if version else ''}, {where})"


def _facts(options: PlanOptions, plan: Plan, where: str) -> dict[str, str]:
    model = plan["model"]
    name = f"{model['name']}: " if model["name"] else ""
    trained = f", trained for {model['contextTrain']} tokens" if model["contextTrain"] else ""
    slots = f"{options.parallel} slot{'s' * (options.parallel > 1)} x {options.context_size} tokens"
    types = {options.cache_type_k: "K", options.cache_type_v: "V"}
    cache = " and ".join(
        kind if len(types) == 1 else f"{kind} ({part})" for kind, part in types.items()
    )
    return {
        "Model": f"{name}{model['architecture']}, {model['layers']} layers,"
        f" {shown(model['bytes'])}{trained}",
        "Context": f"{slots}, KV cache {cache}",
        "Numbers": numbers(plan, where),
    }


def _pods(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("POD", no_wrap=True)
    table.add_column("LAYERS", no_wrap=True)
    for heading in ("WEIGHTS", "CONTEXT", "COMPUTE", "NEEDS", "LIMIT"):
        table.add_column(heading, justify="right", no_wrap=True)
    output = plan["model"]["layers"]
    for index, worker in enumerate(plan["perWorker"], start=1):
        limit = plan["workerMemoryBytes"]
        layers = layer_range(worker["firstLayer"], worker["lastLayer"], output)
        table.add_row(f"worker {index}", layers, *_memory(worker, limit))
    leader = plan["leader"]
    table.add_row("leader", "input", *_memory(leader, plan["leaderMemoryBytes"]))
    return table


def layer_range(first: int, last: int, output: int) -> str:
    """A worker's layers as `0-26`, the last with the output layer, which has the index `output`."""
    last_layer = min(last, output - 1)
    parts = [f"{first}-{last_layer}" if first < last_layer else f"{first}"]
    return " + ".join([*parts[: first <= last_layer], *(["output"] if last == output else [])])


def _memory(pod: PlannedWorker | PlannedLeader, limit: int) -> list[Text]:
    parts = [shown(pod["modelBytes"]), shown(pod["contextBytes"]), shown(pod["computeBytes"])]
    style = "bold red" if pod["memoryBytes"] > limit else "bold"
    return [*map(Text, parts), Text(shown(pod["memoryBytes"]), style), Text(shown(limit))]


def _words(options: PlanOptions, plan: Plan, width: int) -> Iterator[Text]:
    if not plan["fits"]:
        yield from _refusal(plan["message"], width)
        return
    yield hanging("Fits: ", plan["message"], width, "bold green", indent=0)
    if chosen := _chosen(options, plan):
        text = yaml.safe_dump({"spec": chosen}, sort_keys=False).rstrip()
        yield Text.assemble(
            "What the manifest leaves open is set by the operator. To pin it:\n",
            (textwrap.indent(text, "  "), "cyan"),
        )
    if plan["advice"]:
        yield items("Advice:", plan["advice"], width)


def _refusal(message: str, width: int) -> Iterator[Text]:
    problem, _, rest = message.partition(_REMEDIES)
    lead, colon, details = problem.partition(": ")
    yield hanging(f"{lead[:1].upper()}{lead[1:]}{colon}", details, width, "bold red", indent=0)
    ways = rest.split("; ") if rest else []
    others = [way for way in ways if way.startswith(_OF_THE_LEADER)]
    if ways:
        yield items("What would fit:", [way for way in ways if way not in others], width)
    for other in others:
        yield hanging("And ", other, width, indent=0)


def items(heading: str, texts: Sequence[str], width: int) -> Text:
    """`heading` and a line, or more, for each text."""
    return Text("\n").join([Text(heading), *(hanging("  - ", text, width) for text in texts)])


def hanging(
    lead: str, text: str, width: int, style: str = "", *, indent: int | None = None
) -> Text:
    """`lead` and then `text`, whose further lines are indented, by default as far as `lead`."""
    lines = textwrap.wrap(
        lead + printable(text),
        width,
        subsequent_indent=" " * (len(lead) if indent is None else indent),
        break_on_hyphens=False,
        break_long_words=False,
    )
    result = Text("\n".join(lines))
    result.stylize(style, 0, len(lead))
    return result


def _chosen(options: PlanOptions, plan: Plan) -> dict[str, Any]:
    """The part of a spec that the plan has filled in."""
    workers: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    if options.workers is None:
        workers["count"] = len(plan["perWorker"])
    if options.worker_memory is None:
        workers["resources"] = {"limits": {"memory": quantity(plan["workerMemoryBytes"])}}
    if workers:
        chosen["workers"] = workers
    if options.leader_memory is None:
        memory = quantity(plan["leaderMemoryBytes"])
        chosen["leader"] = {"resources": {"limits": {"memory": memory}}}
    return chosen
