"""The planner: reads a model's headers, asks the engine, and says the plan.

It ends with 0 when it has an answer, a refusal included, and with 1 when there can be none now:
whoever runs it starts it again.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from llamacluster.agent import engine
from llamacluster.agent.accounting import EngineAccountant
from llamacluster.agent.contract.messages import MAX_PLAN_BYTES, Plan
from llamacluster.agent.contract.options import PlanOptions
from llamacluster.agent.headers import fetch_headers
from llamacluster.agent.process import Launcher
from llamacluster.agent.source import Web
from llamacluster.planning.account import Accountant, Settings
from llamacluster.planning.gguf import GgufError, Header
from llamacluster.planning.model import Model, guesses_ahead, model_of
from llamacluster.planning.plan import Planner, Result, Wanted, runs
from llamacluster.planning.reasons import GroupError, Reason
from llamacluster.planning.split import tensor_split

MESSAGE_CHARACTERS = 700
ADVICE_CHARACTERS = 250


def make_plan(
    options: PlanOptions, claim: Path, scratch: Path, web: Web, launcher: Launcher
) -> Plan:
    """The plan that `options` ask for. Raises GroupError when there can be none."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch)))
        headers, copy = fetch_headers(options.model_uri, claim, folder, web)
        model = read_model(headers, copy.name, options)
        server = engine.server_program()
        accountant = stack.enter_context(
            EngineAccountant(server, engine.rpc_program(), copy, model, launcher)
        )
        return plan_with(model, accountant, options, engine.version(server))


def read_model(headers: Sequence[Header], name: str, options: PlanOptions) -> Model:
    """The model of these headers, as it is served with `options`. Raises GroupError."""
    try:
        return model_of(headers, ahead=guesses_ahead(options.extra_args))
    except GgufError as error:
        raise GroupError(Reason.ModelInvalid, f"{name}: {error}") from error


def plan_with(
    model: Model, accountant: Accountant, options: PlanOptions, version: str | None
) -> Plan:
    """The plan by this accountant's word. Raises GroupError."""
    settings = Settings(
        context_size=options.context_size,
        parallel=options.parallel,
        batch_size=options.batch_size,
        ubatch_size=options.ubatch_size,
        cache_type_k=options.cache_type_k,
        cache_type_v=options.cache_type_v,
        embeddings=options.embeddings,
        extra_args=options.extra_args,
    )
    wanted = Wanted(
        workers=options.workers,
        worker_memory=options.worker_memory,
        worker_cpu=options.worker_cpu,
        leader_memory=options.leader_memory,
    )
    result = Planner(model, accountant).plan(wanted, settings)
    return _as_plan(model, accountant, result, version)


def _as_plan(model: Model, accountant: Accountant, result: Result, version: str | None) -> Plan:
    split, header = result.split, model.header
    leader = split.account.leader
    return {
        "method": accountant.method,
        "errorPercent": accountant.error_percent,
        "engine": version,
        "fits": result.fits,
        "message": result.message[:MESSAGE_CHARACTERS],
        "model": {
            "headerDigest": model.digest,
            "architecture": header.architecture[:64],
            "name": (header.name or "")[:64] or None,
            "layers": model.layers - 1,
            "bytes": model.bytes,
            "contextTrain": header.number("context_length") or 0,
        },
        "perWorker": [
            {
                "firstLayer": first,
                "lastLayer": end - 1,
                "layers": end - first,
                "modelBytes": memory.model,
                "contextBytes": memory.context,
                "computeBytes": memory.compute,
                "memoryBytes": needs,
            }
            for (first, end), memory, needs in zip(
                runs(split.layers), split.account.workers, split.needs, strict=True
            )
        ],
        "workerMemoryBytes": result.worker_memory,
        "leader": {
            "modelBytes": leader.model,
            "contextBytes": leader.context,
            "computeBytes": leader.compute,
            "memoryBytes": result.leader_needs,
        },
        "leaderMemoryBytes": result.leader_memory,
        "tensorSplit": ",".join(f"{weight:g}" for weight in tensor_split(split.layers)),
        "advice": [text[:ADVICE_CHARACTERS] for text in result.advice],
    }


def as_message(answer: object) -> str:
    """An answer as a termination message, within MAX_PLAN_BYTES."""
    text = json.dumps(answer, separators=(",", ":"))
    if len(text.encode()) > MAX_PLAN_BYTES:
        raise AssertionError(f"a plan of {len(text)} characters")
    return text
