"""A plan as it is told: whole, within what Kubernetes keeps, and in the contract's words."""

from __future__ import annotations

import json

import pytest

from llamacluster.agent.contract.messages import MAX_PLAN_BYTES, Plan
from llamacluster.agent.contract.options import PlanOptions
from llamacluster.agent.plan import as_message, plan_with, read_model
from llamacluster.planning.formula import Formula
from llamacluster.planning.reasons import GroupError, Reason
from llamacluster.planning.split import assigned_device
from tests.model.headers import ARCHITECTURES, MODELS
from tests.unit.planning.test_model import header_of, model

GIB = 1 << 30


def plan(name: str, **options: object) -> Plan:
    found = PlanOptions("file:///m.gguf", **({"context_size": 8192, "parallel": 2} | options))  # type: ignore[arg-type]
    return plan_with(model(name), Formula(model(name)), found, "0.7.0")


@pytest.mark.parametrize("name", [*MODELS, *sorted({*ARCHITECTURES} - {"flan-t5-xl"})])
def test_the_engine_splits_as_the_plan_says(name: str) -> None:
    found = plan(name, workers=min(5, model(name).layers))
    weights = [float(weight) for weight in found["tensorSplit"].split(",")]
    devices = assigned_device(weights, found["model"]["layers"])
    for index, worker in enumerate(found["perWorker"]):
        mine = [layer for layer, device in enumerate(devices) if device == index]
        assert mine == list(range(worker["firstLayer"], worker["lastLayer"] + 1))
        assert worker["layers"] == len(mine)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "options",
    [
        {"workers": 15, "worker_memory": 1 << 50, "worker_cpu": 1, "context_size": 16_777_216},
        {"workers": 15, "worker_memory": 1 << 30, "leader_memory": 1 << 20, "parallel": 256},
        {"worker_memory": 1},
    ],
)
def test_a_plan_always_fits_the_termination_message(name: str, options: dict[str, object]) -> None:
    found = plan(name, **options)
    text = as_message(found)
    assert len(text.encode()) <= MAX_PLAN_BYTES
    assert json.loads(text) == found


def test_the_wanted_limits_are_the_plans() -> None:
    found = plan("llama-3.1-70b", worker_memory=32 * GIB, leader_memory=2 * GIB)
    assert found["workerMemoryBytes"] == 32 * GIB
    assert found["leaderMemoryBytes"] == 2 * GIB
    assert all(worker["memoryBytes"] <= 32 * GIB for worker in found["perWorker"])


def test_limits_that_nobody_wants_are_what_is_needed() -> None:
    found = plan("llama-3.1-70b", workers=3)
    assert found["workerMemoryBytes"] == max(worker["memoryBytes"] for worker in found["perWorker"])
    assert found["leaderMemoryBytes"] == found["leader"]["memoryBytes"]


def test_the_digest_is_of_the_header() -> None:
    digests = {plan(name)["model"]["headerDigest"] for name in MODELS}
    assert len(digests) == len(MODELS)
    assert plan("qwen3-8b")["model"]["headerDigest"] in digests


def test_headers_that_make_no_model_are_a_reason() -> None:
    with pytest.raises(GroupError, match=r"m\.gguf: tensor .* is in two files|one of") as caught:
        read_model([header_of("qwen3-8b")] * 2, "m.gguf", PlanOptions("", 8192, 1))
    assert caught.value.reason is Reason.ModelInvalid
