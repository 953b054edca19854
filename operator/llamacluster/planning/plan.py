"""The plan of a group: how many workers, which layers where, how much memory.

The search asks an accountant (the engine's own, or the formula) what a split takes, learns from the
answer what each layer costs, and cuts anew, until the cut stays where it is. So the numbers in a
plan are always the accountant's; the formula only says where to begin.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Final

from llamacluster.planning.account import Account, Accountant, Memory, Settings
from llamacluster.planning.balance import balanced
from llamacluster.planning.bodies import bodies_need
from llamacluster.planning.formula import (
    WIDE_CACHE_TYPES,
    checkpoint_bytes,
    compute_bytes,
    context_bytes,
    graph_nodes,
)
from llamacluster.planning.model import Model
from llamacluster.planning.reasons import GroupError, Reason
from llamacluster.planning.split import MAX_WORKERS

MARGIN: Final = 1.05
"""A limit is this much above what the engine allocates: allocators and the kernel's own tables."""
WORKER_BASE: Final = 160 << 20
"""What a worker takes without a model: the agent, the RPC server, buffers of the network."""
KEPT_GRAPHS: Final = 1024
"""As many of the last computations an RPC server keeps, so that the leader need not send them
again; at one more it forgets them all. Each batch of another shape is one: after a few hundred
short requests they are all there (measured: docs/plan.md)."""
GRAPH_NODE_BYTES: Final = 930
"""Of each operation in one of them: its tensor, its place in the graph, and its part of the weights
and caches that it names. Measured: 905 to 907."""
LEADER_BASE: Final = 384 << 20
"""What a leader takes without a model: the agent, llama-server, buffers of the network."""
CHECKPOINTS: Final = 4
"""Copies of a slot's sliding window or recurrent state that llama-server may keep, so that a prompt
that goes on from there is not read again from its beginning. Its default is 32, in the leader's
memory."""

_CUTS: Final = 3
_WORTH_ANOTHER: Final = 0.995
"""Another cut must promise to make the heaviest worker lighter than this share."""
_USEFUL_SAVING: Final = 0.1
_LEAST_SAVING: Final = 256 << 20
_CONTEXT_STEP: Final = 512
_USEFUL_CPU: Final = 1000
_UNMAPPED: Final = frozenset({"--no-mmap", "--mlock", "--load-mode", "-lm"})


@dataclass(frozen=True)
class Wanted:
    """What the user has fixed. None is for the plan to say."""

    workers: int | None = None
    worker_memory: int | None = None
    """Bytes."""
    worker_cpu: int | None = None
    """Thousandths of a CPU."""
    leader_memory: int | None = None
    """Bytes."""


@dataclass(frozen=True)
class Split:
    """A split with what it takes."""

    layers: tuple[int, ...]
    account: Account
    needs: tuple[int, ...]
    """The least memory limit of each worker, in bytes."""
    graphs: tuple[int, ...]
    """What each worker comes to hold of graphs, in bytes; part of what it needs."""

    @property
    def heaviest(self) -> int:
        """The least memory limit that is enough for every worker."""
        return max(self.needs)


@dataclass(frozen=True)
class Result:
    """The plan. If it does not fit, `split` is the best that there is for the wanted workers."""

    fits: bool
    split: Split
    worker_memory: int
    """The limit of every worker: the wanted one, else what the heaviest needs."""
    leader_needs: int
    leader_memory: int
    message: str
    advice: tuple[str, ...]


class Planner:
    """Plans for one model. Remembers what the accountant said."""

    def __init__(self, model: Model, accountant: Accountant) -> None:
        self._model = model
        self._accountant = accountant
        self._costs: dict[Settings, _Costs] = {}
        self._splits: dict[tuple[int, Settings], Split] = {}
        self._most = min(MAX_WORKERS, model.layers)

    def plan(self, wanted: Wanted, settings: Settings) -> Result:
        """The best plan within what is wanted. Raises GroupError if there can be none."""
        if wanted.workers and wanted.workers > self._model.layers:
            raise GroupError(
                Reason.TooManyWorkers,
                f"the model has {self._model.layers} layers (with the output layer), which cannot"
                f" be spread over {wanted.workers} workers; lower workers.count",
            )
        limit = wanted.worker_memory or math.inf
        if wanted.workers:
            split = self.split(wanted.workers, settings)
        else:
            split = self.smallest(limit, settings) or self.split(self._most, settings)
        leader = leader_need(self._model, split.account.leader, settings)
        fits = split.heaviest <= limit and leader <= (wanted.leader_memory or math.inf)
        return Result(
            fits=fits,
            split=split,
            worker_memory=wanted.worker_memory or split.heaviest,
            leader_needs=leader,
            leader_memory=wanted.leader_memory or leader,
            message=(
                self._summary(split, wanted, settings)
                if fits
                else self._refusal(split, leader, wanted, settings)
            ),
            advice=tuple(self._advice(split, wanted, settings)) if fits else (),
        )

    def split(self, workers: int, settings: Settings) -> Split:
        """The split over so many workers whose heaviest is the lightest."""
        key = workers, settings
        if key not in self._splits:
            self._splits[key] = self._cut(workers, settings)
        return self._splits[key]

    def smallest(self, limit: float, settings: Settings) -> Split | None:
        """The split over the fewest workers that need at most `limit` bytes each, if there is."""
        least = max(1, math.ceil(sum(self._model.layer_bytes) / limit))
        for workers in range(least, self._most + 1):
            costs = self._costs.get(settings)
            if costs and costs.guess(workers) > limit * 1.05:
                continue  # what the accountant has said of other counts rules it out
            split = self.split(workers, settings)
            if split.heaviest <= limit:
                return split
        return None

    def _cut(self, workers: int, settings: Settings) -> Split:
        costs = self._costs.setdefault(settings, _Costs(self._model, settings))
        tried: dict[tuple[int, ...], Split] = {}
        for _ in range(_CUTS):
            layers = tuple(costs.cut(workers))
            if layers in tried:
                break
            account = self._accountant.account(layers, settings)
            graphs = tuple(
                kept_graphs_bytes(account.graph_nodes, count, self._model.layers)
                for count in layers
            )
            needs = tuple(
                worker_need(memory, max(self._model.largest_tensor[first:end]), kept)
                for memory, kept, (first, end) in zip(
                    account.workers, graphs, runs(layers), strict=True
                )
            )
            tried[layers] = Split(layers, account, needs, graphs)
            costs.learn(layers, account)
            if costs.guess(workers) > _WORTH_ANOTHER * tried[layers].heaviest:
                break
        return min(tried.values(), key=lambda split: split.heaviest)

    # What is said.

    def _summary(self, split: Split, wanted: Wanted, settings: Settings) -> str:
        workers = split.account.workers
        memory = quantity(wanted.worker_memory or split.heaviest)
        count = len(workers)
        return (
            f"{count} worker{'s' * (count > 1)} with {memory}{' each' * (count > 1)} hold"
            f"{'s' * (count == 1)} {self._model.header.architecture} of {self._model.layers - 1}"
            f" layers: {shown(sum(worker.model for worker in workers))} of weights,"
            f" {shown(sum(worker.context for worker in workers))} of context"
            f" ({settings.parallel} x {settings.context_size} tokens);"
            f" {'the heaviest' if count > 1 else 'it'} needs {quantity(split.heaviest)}"
        )

    def _refusal(self, split: Split, leader: int, wanted: Wanted, settings: Settings) -> str:
        parts = []
        limit = wanted.worker_memory or math.inf
        if split.heaviest > limit:
            index = split.needs.index(split.heaviest)
            memory = split.account.workers[index]
            count = len(split.layers)
            remedies = self._remedies(split, int(limit), wanted, settings)
            parts.append(
                f"the model does not fit {count} worker{'s' * (count > 1)} with"
                f" {quantity(int(limit))}{' each' * (count > 1)}: worker {index + 1} needs"
                f" {quantity(split.heaviest)} ({shown(memory.model)} of weights,"
                f" {shown(memory.context)} of context, {shown(memory.compute)} to compute,"
                f" {shown(split.graphs[index])} of kept graphs),"
                f" {shown(split.heaviest - int(limit))} more than its limit;"
                f" what would fit: {'; '.join(remedies)}"
            )
        if wanted.leader_memory and leader > wanted.leader_memory:
            memory = split.account.leader
            parts.append(self._leader_refusal(memory, leader, wanted.leader_memory, settings))
        return "; ".join(parts)

    def _leader_refusal(self, memory: Memory, needs: int, limit: int, settings: Settings) -> str:
        compute, states, bodies = _leader_parts(self._model, memory, settings)
        too_much = needs - (limit >> 20 << 20)
        ways = [f"leader.resources.limits.memory to {quantity(needs)}"]
        for slots in range(settings.parallel - 1, 0, -1):
            if leader_need(self._model, memory, replace(settings, parallel=slots)) <= limit:
                ways.append(f"parallel to {slots}")
                break
        if states >= too_much:
            count = _checkpoints(settings)
            ways.append(
                f"--ctx-checkpoints in extraArgs to {count - -(-too_much * count // states)}"
            )
        return (
            f"the leader needs {quantity(needs)} ({shown(round(compute))} to compute,"
            f" {f'{shown(states)} of saved states, ' * (states > 0)}{shown(bodies)} for bodies of"
            f" requests), {shown(needs - limit)} more than its limit: set {', or '.join(ways)}"
        )

    def _remedies(self, split: Split, limit: int, wanted: Wanted, settings: Settings) -> list[str]:
        """What would make it fit, each for itself."""
        found = []
        if wanted.workers and (more := self.smallest(limit, settings)):
            found.append(f"workers.count {len(more.layers)}")
        found.append(
            f"workers.resources.limits.memory {quantity(split.heaviest)}"
            + ("" if wanted.workers else f" (with {len(split.layers)} workers)")
        )

        if split.heaviest - _context_need(split) > limit:
            return found  # not even without any context
        found += self._less(
            "contextSize",
            (settings.context_size, _CONTEXT_STEP),
            lambda tokens: replace(settings, context_size=tokens),
            split,
            limit,
        )
        found += self._less(
            "parallel",
            (settings.parallel, 1),
            lambda slots: replace(settings, parallel=slots),
            split,
            limit,
        )
        if wide := _wide(settings):
            there = self._heaviest(len(split.layers), _q8_0(settings))
            if there and there <= limit:
                found.append(f"{wide} q8_0 (needs {quantity(there)})")
        return found

    def _less(
        self,
        field: str,
        now_and_step: tuple[int, int],
        changed: Callable[[int], Settings],
        split: Split,
        limit: int,
    ) -> list[str]:
        """About the most of `field` that fits. Nearly all of the context grows with it evenly, so
        that the accountant need not be asked often."""
        now, step = now_and_step
        value, needs, of_each = now, split.heaviest, _context_need(split) / now
        for _ in range(_CUTS):
            value = int(value - (needs - limit) / of_each) // step * step
            there = self._heaviest(len(split.layers), changed(value)) if value > 0 else None
            if there is None:
                break
            if there <= limit:
                return [f"{field} {value} (needs {quantity(there)})"]
            needs, of_each = there, max(1, split.heaviest - there) / (now - value)
        return []

    def _heaviest(self, workers: int, settings: Settings) -> int | None:
        """What the heaviest of so many workers needs; None where the engine refuses, as not every
        model goes with every cache type."""
        try:
            return self.split(workers, settings).heaviest
        except GroupError:
            return None

    def _advice(self, split: Split, wanted: Wanted, settings: Settings) -> list[str]:
        found = []
        count, trained = len(split.layers), self._model.header.number("context_length")
        # Asked of the accountant only where what is known does not rule it out: each question takes
        # a second for a large model.
        if (
            count > 1
            and wanted.worker_memory
            and self._costs[settings].guess(1) < 1.2 * wanted.worker_memory
        ):
            one = self.split(1, settings)
            if one.heaviest <= wanted.worker_memory:
                found.append(
                    f"the model fits one worker with this memory ({quantity(one.heaviest)} of"
                    f" {quantity(wanted.worker_memory)}): workers.count 1 answers a single request"
                    " faster, more workers only help with prompts and concurrent requests"
                )
        if trained and settings.context_size > trained:
            found.append(
                f"contextSize {settings.context_size} is more than the {trained} tokens that the"
                " model was trained for: beyond them its answers get worse"
            )
        found += self._cache_advice(split, settings)
        if wanted.worker_cpu and wanted.worker_cpu < _USEFUL_CPU:
            found.append(
                f"workers have {wanted.worker_cpu}m of a CPU: below one whole CPU each they wait"
                " for the next time slice in the midst of a token; set"
                " workers.resources.limits.cpu to whole CPUs"
            )
        if self._accountant.error_percent:
            found.append(
                "the bytes are from a formula, not from the engine: they may be off by"
                f" {self._accountant.error_percent} %"
            )
        return found

    def _cache_advice(self, split: Split, settings: Settings) -> list[str]:
        if not _wide(settings):
            return []
        total = sum(worker.total for worker in split.account.workers)
        wide, narrow = (
            sum(context_bytes(self._model, each)) for each in (settings, _q8_0(settings))
        )
        if wide - narrow < max(_LEAST_SAVING, _USEFUL_SAVING * total):
            return []
        try:
            other = self._accountant.account(split.layers, _q8_0(settings))
        except GroupError:
            return []
        saved = total - sum(worker.total for worker in other.workers)
        return [f"{_wide(settings)} q8_0 would save {shown(saved)} over all workers"]


class _Costs:
    """What each layer costs under some settings: the formula's word until the accountant's."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self._weights = [float(each) for each in model.layer_bytes]
        self._context = [float(each) for each in context_bytes(model, settings)]
        self._first = self._middle = self._last = float(
            compute_bytes(model, settings, worker=1, workers=3)
        )
        self._output = float(compute_bytes(model, settings, 1, 3, slice(model.layers - 1, None)))
        """Working memory of a worker with the output layer alone."""
        self._graphs = kept_graphs_bytes(graph_nodes(model, settings), 1, model.layers)
        self._largest = [
            list(accumulate(model.largest_tensor[first:], max)) for first in range(model.layers)
        ]

    def cut(self, workers: int) -> list[int]:
        """The best split by what is known."""
        context = [0.0, *accumulate(self._context)]
        return balanced(
            self._weights,
            workers,
            lambda worker, first, last: (
                max(
                    context[last + 1] - context[first] + self._compute(worker, workers, first),
                    self._largest[first][last - first],
                )
                + self._graphs * (last + 1 - first)
            ),
        )

    def guess(self, workers: int) -> float:
        """What the heaviest of so many workers would need, by what is known."""
        return max(
            worker_need(
                Memory(
                    round(sum(self._weights[first:end])),
                    round(sum(self._context[first:end])),
                    round(self._compute(worker, workers, first)),
                ),
                self._largest[first][end - first - 1],
                self._graphs * (end - first),
            )
            for worker, (first, end) in enumerate(runs(self.cut(workers)))
        )

    def learn(self, layers: Sequence[int], account: Account) -> None:
        """Take over what the accountant said of this split."""
        for memory, (first, end) in zip(account.workers, runs(layers), strict=True):
            _scale(self._weights, first, end, memory.model)
            _scale(self._context, first, end, memory.context)
        self._graphs = kept_graphs_bytes(account.graph_nodes, 1, len(self._weights))
        compute = [float(memory.compute) for memory in account.workers]
        if len(layers) > 1 and layers[-1] == 1:
            self._output = compute.pop()
        self._first, self._last = compute[0], compute[-1]
        self._middle = max(compute[1:-1], default=max(compute))

    def _compute(self, worker: int, workers: int, first: int) -> float:
        if worker == 0:
            return self._first
        if first == len(self._weights) - 1:
            return self._output
        return self._last if worker == workers - 1 else self._middle


def _scale(costs: list[float], first: int, end: int, actual: int) -> None:
    """Makes the costs from `first` to before `end` sum up to `actual`."""
    known = sum(costs[first:end])
    for layer in range(first, end):
        costs[layer] = costs[layer] * actual / known if known else actual / (end - first)


def worker_need(memory: Memory, largest_tensor: int, kept_graphs: int) -> int:
    """The least memory limit of a worker, in whole MiB; all in bytes. While it loads, a buffer
    receives its largest tensor; after that, context and working memory are allocated, and while it
    serves it comes to keep graphs."""
    peak = memory.model + max(largest_tensor, memory.context + memory.compute)
    return _whole_mib(peak * MARGIN + kept_graphs + WORKER_BASE)


def kept_graphs_bytes(nodes: int, layers: int, of_layers: int) -> int:
    """What an RPC server comes to hold of the graphs of its layers. `nodes` are those of the whole
    model."""
    return KEPT_GRAPHS * GRAPH_NODE_BYTES * math.ceil(nodes * layers / of_layers)


def leader_need(model: Model, memory: Memory, settings: Settings) -> int:
    """The least memory limit of the leader, in whole MiB. Its weights are mapped from the model's
    file, which the kernel can drop, and are not counted unless the user wants them held."""
    return _whole_mib(sum(_leader_parts(model, memory, settings)) + LEADER_BASE)


def _leader_parts(model: Model, memory: Memory, settings: Settings) -> tuple[float, int, int]:
    """What a leader computes with, the states that it saves, and room for the bodies of requests;
    in bytes."""
    logits = settings.parallel * model.rows("token_embd.weight") * 4
    held = memory.context + memory.compute + logits
    if not _UNMAPPED.isdisjoint(settings.arguments):
        held += memory.model
    states = _checkpoints(settings) * settings.parallel * checkpoint_bytes(model, settings)
    return held * MARGIN, states, bodies_need(settings)


def _checkpoints(settings: Settings) -> int:
    """As many for each slot as the user's own argument says, else CHECKPOINTS."""
    given = [
        int(number[1])
        for flag, value in pairwise(settings.arguments)
        if flag in ("--ctx-checkpoints", "-ctxcp", "--swa-checkpoints")
        # What C++'s stoi, by which the engine reads it, makes of "+9" and "9x".
        and (number := re.match(r"\s*\+?(\d+)", value, re.ASCII))
    ]
    return given[-1] if given else CHECKPOINTS


def runs(layers: Sequence[int]) -> list[tuple[int, int]]:
    """First layer and the one behind the last of each worker."""
    ends = list(accumulate(layers))
    return list(zip([0, *ends], ends, strict=False))


def quantity(amount: int) -> str:
    """As Kubernetes writes it, rounded up to whole MiB: `24Gi`, `22016Mi`."""
    mib = -(-amount // (1 << 20))
    return f"{mib // 1024}Gi" if mib and mib % 1024 == 0 else f"{mib}Mi"


def shown(amount: int) -> str:
    """For people: `21.3 GiB`, `300 MiB`."""
    return f"{amount / (1 << 30):.1f} GiB" if amount >= 1 << 30 else f"{amount / (1 << 20):.0f} MiB"


def _context_need(split: Split) -> float:
    """The context's part of what the heaviest worker needs."""
    return split.account.workers[split.needs.index(split.heaviest)].context * MARGIN


def _wide(settings: Settings) -> str:
    """The fields of those parts of the KV cache that are not quantised."""
    kinds = {"cacheTypeK": settings.cache_type_k, "cacheTypeV": settings.cache_type_v}
    return " and ".join(field for field, kind in kinds.items() if kind in WIDE_CACHE_TYPES)


def _q8_0(settings: Settings) -> Settings:
    """With those parts quantised."""
    k, v = (
        "q8_0" if kind in WIDE_CACHE_TYPES else kind
        for kind in (settings.cache_type_k, settings.cache_type_v)
    )
    return replace(settings, cache_type_k=k, cache_type_v=v)


def _whole_mib(amount: float) -> int:
    return math.ceil(amount / (1 << 20)) << 20
