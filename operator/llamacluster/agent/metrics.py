"""What a leader tells Prometheus: of its group, its gate and its engine.

The engine is not asked for it. The leader's look for signs of life (pulse.py) asks every two
seconds, and what the engine told last is told on: a scrape costs a busy engine nothing and never
waits for one that hangs.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Literal

from llamacluster.agent.contract.messages import HeldMemory, LeaderStatus, Phase

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Metric:
    """A name and what it means. docs/observe.md has a row for each."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...] = ()


READY = Metric("llamacluster_group_ready", "gauge", "1 while the group answers requests.")
PHASE = Metric(
    "llamacluster_group_phase", "gauge", "1 for the phase that the group is in.", ("phase",)
)
WANTED = Metric("llamacluster_group_workers_wanted", "gauge", "Workers that the group is made of.")
ATTACHED = Metric(
    "llamacluster_group_workers_attached",
    "gauge",
    "Workers that hold their part of the model for this leader.",
)
FORMATIONS = Metric(
    "llamacluster_group_formations_total", "counter", "How often the group became Ready."
)
RECOVERIES = Metric(
    "llamacluster_group_recoveries_total",
    "counter",
    "How often it became so after a loss, by what it was lost by.",
    ("reason",),
)
RECOVERY_SECONDS = Metric(
    "llamacluster_group_recovery_seconds_total",
    "counter",
    "Seconds from the losses until the group was Ready again.",
    ("reason",),
)
LOAD_SECONDS = Metric(
    "llamacluster_group_load_seconds",
    "gauge",
    "What the engine took to load the model, last time.",
)
SLOTS = Metric(
    "llamacluster_group_slots", "gauge", "Requests that the engine works on at a time, at most."
)
PLACED = Metric(
    "llamacluster_member_placed_bytes",
    "gauge",
    "Memory that the engine laid out on a pod for weights, KV cache and working buffers.",
    ("member", "part"),
)
RESIDENT = Metric(
    "llamacluster_member_resident_bytes",
    "gauge",
    "Memory that the engine's process in a pod holds, without page cache.",
    ("member",),
)
PEAK = Metric(
    "llamacluster_member_peak_bytes",
    "gauge",
    "The most that a pod's container ever held, page cache included.",
    ("member",),
)
LIMIT = Metric(
    "llamacluster_member_memory_limit_bytes",
    "gauge",
    "Memory limit of a pod's container.",
    ("member",),
)
REQUESTS = Metric(
    "llamacluster_gate_requests",
    "gauge",
    "Requests in the engine (running) and in the gate's queue before it (waiting).",
    ("state",),
)
RESPONSES = Metric(
    "llamacluster_gate_responses_total",
    "counter",
    "Answers of the API, by the class of their status code.",
    ("code",),
)
KV_TOKENS = Metric(
    "llamacluster_kv_cache_tokens",
    "gauge",
    "Tokens in the KV cache, of slots that work (busy) and of those that keep their last request's"
    " for the next one (idle).",
    ("slots",),
)
KV_CAPACITY = Metric(
    "llamacluster_kv_cache_capacity_tokens", "gauge", "Tokens that the KV cache has room for."
)
ENGINE_AGE = Metric(
    "llamacluster_engine_metrics_age_seconds",
    "gauge",
    "How long ago the engine told its own series (llamacpp:...). They stay as they were meanwhile.",
)
METRICS = (
    *(READY, PHASE, WANTED, ATTACHED, FORMATIONS, RECOVERIES, RECOVERY_SECONDS, LOAD_SECONDS),
    *(SLOTS, PLACED, RESIDENT, PEAK, LIMIT, REQUESTS, RESPONSES, KV_TOKENS, KV_CAPACITY),
    ENGINE_AGE,
)


@dataclass(frozen=True)
class GateLoad:
    """What HAProxy counts."""

    running: int
    waiting: int
    responses: Mapping[str, int]
    """By the class of the status code, as in "2xx"."""


@dataclass(frozen=True)
class EngineTold:
    """What the engine told of itself."""

    at: float
    """When, by the monotonic clock."""
    series: str
    """Its own exposition."""
    kv: KvCache | None


@dataclass(frozen=True)
class KvCache:
    """Tokens in the KV cache, over all slots."""

    busy: int
    idle: int
    capacity: int


Labels = tuple[str, ...]


def exposition(
    status: LeaderStatus,
    *,
    ready: bool,
    recoveries: Mapping[str, tuple[int, float]],
    wanted: int,
    slots: int,
    gate: GateLoad | None,
    engine: EngineTold | None,
    now: float,
) -> str:
    """All series in Prometheus' text format. `recoveries` has count and seconds by reason, `wanted`
    is the count of workers; `gate` and `engine` are None where they have told nothing."""
    workers = status["workers"]
    members = {
        status["name"]: (status["memory"], status["memoryLimitBytes"]),
        **{row["name"]: (row["memory"], row["memoryLimitBytes"]) for row in workers},
    }
    parts = [
        _series(READY, {(): ready}),
        _series(PHASE, {(phase,): status["phase"] == phase for phase in Phase}),
        _series(WANTED, {(): wanted}),
        _series(ATTACHED, {(): sum(row["attached"] for row in workers)}),
        _series(FORMATIONS, {(): status["formations"]}),
        _series(RECOVERIES, {(why,): count for why, (count, _) in recoveries.items()}),
        _series(RECOVERY_SECONDS, {(why,): took for why, (_, took) in recoveries.items()}),
        _series(LOAD_SECONDS, {(): status["loadSeconds"]}),
        _series(SLOTS, {(): slots}),
        _series(PLACED, dict(_placed(status))),
        _series(
            RESIDENT, {(name,): _of(has, "residentBytes") for name, (has, _) in members.items()}
        ),
        _series(PEAK, {(name,): _of(has, "peakBytes") for name, (has, _) in members.items()}),
        _series(LIMIT, {(name,): limit for name, (_, limit) in members.items()}),
    ]
    if gate:
        parts += [
            _series(REQUESTS, {("running",): gate.running, ("waiting",): gate.waiting}),
            _series(RESPONSES, {(code,): count for code, count in gate.responses.items()}),
        ]
    if engine:
        if kv := engine.kv:
            parts += [
                _series(KV_TOKENS, {("busy",): kv.busy, ("idle",): kv.idle}),
                _series(KV_CAPACITY, {(): kv.capacity}),
            ]
        parts += [
            _series(ENGINE_AGE, {(): round(now - engine.at, 3)}),
            engines_own(engine.series),
        ]
    return "".join(parts)


def _placed(status: LeaderStatus) -> Iterator[tuple[Labels, int]]:
    for row in status["placement"]:
        yield (row["worker"], "model"), row["modelBytes"]
        yield (row["worker"], "context"), row["contextBytes"]
        yield (row["worker"], "compute"), row["computeBytes"]
    if leader := status["leader"]:
        yield (status["name"], "model"), leader["modelBytes"]
        yield (status["name"], "context"), leader["contextBytes"]
        yield (status["name"], "compute"), leader["computeBytes"]


def _of(held: HeldMemory | None, part: Literal["residentBytes", "peakBytes"]) -> int | None:
    return held[part] if held else None


def _series(metric: Metric, samples: Mapping[Labels, float | None]) -> str:
    """The samples of a metric that have a value; nothing if none has."""
    lines = [
        f"{metric.name}{_labels(metric.labels, values)} {float(value):.15g}"
        for values, value in samples.items()
        if value is not None
    ]
    if not lines:
        return ""
    head = [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
    return "\n".join([*head, *lines]) + "\n"


def _labels(names: Iterable[str], values: Iterable[str]) -> str:
    # Names of pods, reasons and words of ours: nothing in them needs to be escaped.
    pairs = ",".join(f'{name}="{value}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


_LABEL = r'\w+="[^\x00-\x1f"\\]*"'
_ENGINES_LINE = re.compile(
    r"# HELP llamacpp:\w+ [^\x00-\x1f]*"
    r"|# TYPE llamacpp:\w+ (counter|gauge|histogram|summary|untyped)"
    rf"|llamacpp:\w+(\{{{_LABEL}(,{_LABEL})*\}})? ([-+]?(\d+(\.\d*)?(e[-+]?\d+)?|inf)|nan)",
    re.ASCII | re.IGNORECASE,
)


def engines_own(text: str) -> str:
    """The series of the engine as they are, without lines that are none: the image is the user's,
    and what Prometheus cannot read costs it the whole answer."""
    lines = [line for line in text.splitlines() if _ENGINES_LINE.fullmatch(line)]
    return "".join(f"{line}\n" for line in lines)


def kv_cache(slots: str) -> KvCache | None:
    """What the engine's /slots says of its KV cache; None if it is not understood. The engine's
    own metric of it is gone (ggml-org/llama.cpp#23632)."""
    try:
        rows: object = json.loads(slots)
    except (ValueError, RecursionError):
        return None
    if not isinstance(rows, list) or not rows:
        return None
    busy = idle = capacity = 0
    for row in rows:
        match row:
            case {"n_ctx": int(room), "is_processing": bool(works)}:
                held = row.get("n_prompt_tokens", 0)  # those it has made since are counted too
                if not isinstance(held, int):
                    return None
                capacity += room
                busy, idle = (busy + held, idle) if works else (busy, idle + held)
            case _:
                return None
    return KvCache(busy, idle, capacity)


def gate_load(statistics: str) -> GateLoad | None:
    """What HAProxy's statistics in CSV say; None if it is not understood."""
    rows = {
        (row.get("pxname"), row.get("svname")): row
        for row in csv.DictReader(StringIO(statistics.removeprefix("# ")))
    }
    try:
        # A request waits in the backend as long as its server has no slot for it.
        queue, server = rows["engine", "BACKEND"], rows["engine", "engine"]
        api = rows["api", "FRONTEND"]
        return GateLoad(
            running=int(server["scur"]),
            waiting=int(queue["qcur"]),
            responses={code: int(api[f"hrsp_{code}"]) for code in ("2xx", "3xx", "4xx", "5xx")},
        )
    except (KeyError, ValueError):
        return None
