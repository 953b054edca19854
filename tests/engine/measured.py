"""A real group under the memory limits of its plan, worked as hard as it can be.

The weights are zeros (a header with nothing behind it): they take their memory like others, and the
answers are not looked at.
"""

from __future__ import annotations

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from llamacluster.agent.contract.messages import LeaderStatus, Plan
from llamacluster.agent.contract.options import LeaderOptions, PlanOptions
from tests.engine.group import Group

MIB = 1 << 20
FILL_SECONDS = 1800.0


@dataclass(frozen=True)
class Measured:
    """Bytes of one worker."""

    planned: int
    """Weights, context and compute by the plan."""
    told: int
    """The same by the engine that serves."""
    peak: int
    """The most that its container ever held."""
    limit: int


def measure(
    group: Group,
    model: str,
    workers: int,
    context_size: int,
    parallel: int,
    soak_seconds: float,
    short_requests: int,
) -> tuple[list[Measured], LeaderStatus]:
    """Plans, starts the pods with the plan's limits, fills every slot's context, and again until
    the soak is over, and asks for so many short answers: a few hundred, and the RPC servers keep as
    many graphs as they ever do. Each pod still runs then: the status is of the one forming there
    was."""
    uri = f"file:///test-models/{model}"
    plan = group.plan(PlanOptions(uri, context_size, parallel, workers=workers))
    for index in range(1, workers + 1):
        group.start_worker(index, *_limits(plan["workerMemoryBytes"]))
    layers = tuple(worker["layers"] for worker in plan["perWorker"])
    options = LeaderOptions(uri, layers, context_size, parallel)
    group.start_leader(options, *_limits(plan["leaderMemoryBytes"]))
    group.until("Ready", formations=1, seconds=600)
    end = time.monotonic() + soak_seconds
    while True:
        with ThreadPoolExecutor(parallel) as slots:
            for answer in slots.map(lambda slot: _fill(group, context_size, slot), range(parallel)):
                assert answer["tokens_evaluated"] + answer["tokens_predicted"] >= context_size - 8
        if time.monotonic() > end:
            break
    with ThreadPoolExecutor(parallel) as slots:
        # A prompt of another length than the last one's has another graph.
        list(slots.map(lambda n: _ask(group, [100] * (2 + n % 7), 2), range(short_requests)))
    status = group.status()
    return [_measured(plan, status, group, index) for index in range(workers)], status


def _limits(memory: int) -> tuple[str, ...]:
    return ("--memory", str(memory), "--memory-swap", str(memory))


def _fill(group: Group, context_size: int, slot: int) -> dict[str, int]:
    return _ask(group, [100 + slot] * (context_size - 16), 15)


def _ask(group: Group, prompt: list[int], tokens: int) -> dict[str, int]:
    body = {
        "prompt": prompt,
        "n_predict": tokens,
        "ignore_eos": True,
        "cache_prompt": False,
    }
    request = urllib.request.Request(
        group.leader.url(8080) + "/completion",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=FILL_SECONDS) as response:
        answer: dict[str, int] = json.load(response)
        return answer


def _measured(plan: Plan, status: LeaderStatus, group: Group, index: int) -> Measured:
    planned, placed = plan["perWorker"][index], status["placement"][index]
    held = group.worker_status(index + 1)["memory"]
    assert held is not None
    assert held["peakBytes"] is not None
    return Measured(
        planned=planned["modelBytes"] + planned["contextBytes"] + planned["computeBytes"],
        told=placed["modelBytes"] + placed["contextBytes"] + placed["computeBytes"],
        peak=held["peakBytes"],
        limit=plan["workerMemoryBytes"],
    )
