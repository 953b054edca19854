"""What the engines really hold, against the plan: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from llamacluster.agent.contract import messages
from llamacluster.api.plan import Plan, PlannedMemory
from llamacluster.api.quantity import mebibytes, to_bytes

MIB = 1 << 20
PROGRAM_BYTES = 64 * MIB
"""What the engine's programs hold of themselves, and a drift that is not worth a word."""
TOLERANCE = 0.10
STEP_BYTES, STEP = 16 * MIB, 0.05
"""A change of what was seen that is smaller than either is not worth a write."""

Memory = TypeVar("Memory", bound=PlannedMemory)


def observed(plan: Plan, statuses: list[messages.LeaderStatus]) -> Plan:
    """The plan with the most that each worker and the leader hold, by the word of these leaders."""
    rows = [_rows(status, "workers", plan.workers) for status in statuses]
    return plan.model_copy(
        update={
            "per_worker": [
                _with_observed(worker, [_resident(row[index]) for row in rows if row])
                for index, worker in enumerate(plan.per_worker)
            ],
            "leader": _with_observed(plan.leader, [_resident(status) for status in statuses]),
        }
    )


def drift(plan: Plan, statuses: list[messages.LeaderStatus]) -> str | None:
    """The first worker that holds another amount than was planned, and what to do."""
    for index, worker in enumerate(plan.per_worker):
        loaded = to_bytes(worker.weights) + to_bytes(worker.context)
        planned = loaded + to_bytes(worker.compute)
        for status in statuses:
            rows = _rows(status, "placement", plan.workers)
            placed = _placed(rows[index]) if rows else None
            if placed is not None and abs(placed - planned) > max(
                TOLERANCE * planned, PROGRAM_BYTES
            ):
                return _told(index, planned, placed, "the engine put there")
        if worker.observed is None:
            continue
        held = to_bytes(worker.observed)
        # Working buffers are touched by the first large prompt only. The graphs that it keeps come
        # with the requests: the limit has room for them.
        least = (1 - TOLERANCE) * loaded - PROGRAM_BYTES
        most = max((1 + TOLERANCE) * planned + PROGRAM_BYTES, to_bytes(worker.memory_limit))
        if not least <= held <= most:
            return _told(index, planned, held, "it holds")
    return None


def _told(index: int, planned: int, found: int, how: str) -> str:
    message = (
        f"worker {index + 1} was planned to hold {mebibytes(planned)}, and {how} {mebibytes(found)}"
    )
    if found < planned:
        return f"{message}: less would be enough; please report it, with the name of the model"
    return (
        f"{message}: set workers.resources.limits.memory higher before it is killed for it, and "
        "please report it, with the name of the model"
    )


def _with_observed(memory: Memory, found: list[int | None]) -> Memory:
    most = max((held for held in found if held is not None), default=None)
    if most is None:
        return memory
    if memory.observed is not None:
        before = to_bytes(memory.observed)
        if abs(most - before) <= max(STEP_BYTES, STEP * before):
            return memory
    return memory.model_copy(update={"observed": mebibytes(most)})


# The agent may be older or newer than the operator: what is not there, or odd, is not known.


def _rows(status: messages.LeaderStatus, field: str, count: int) -> list[Any]:
    """One row for each worker; empty if there are not as many."""
    rows = cast("Mapping[str, Any]", status).get(field)
    return rows if isinstance(rows, list) and len(rows) == count else []


def _resident(row: object) -> int | None:
    match row:
        case {"memory": {"residentBytes": int(count)}} if 0 <= count < 2**63:
            return count
    return None


def _placed(row: object) -> int | None:
    match row:
        case {
            "modelBytes": int(model),
            "contextBytes": int(context),
            "computeBytes": int(compute),
        } if 0 <= model + context + compute < 2**63:
            return model + context + compute
    return None
