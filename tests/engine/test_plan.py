"""The planner in its image: the engine's own numbers, near the formula's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamacluster.agent.contract.options import PlanOptions
from llamacluster.planning.account import Settings
from llamacluster.planning.formula import Formula
from llamacluster.planning.model import model_of
from llamacluster.planning.plan import Planner, Wanted
from tests.engine.group import Group
from tests.kind.command import CommandFailed
from tests.model.headers import MODELS, write_sparse, write_sparse_split
from tests.unit.planning.test_model import header_of, model

pytestmark = [pytest.mark.engine, pytest.mark.beside]

MIB = 1 << 20


@pytest.fixture(scope="module")
def planner(shared_groups: Callable[[], Group]) -> Group:
    return shared_groups()


UNLIKE_OTHERS = (
    "bge-m3",  # keeps nothing of a text
    "falcon-h1-7b",  # cache and state in each layer
    "gemma-3n-e4b",  # layers that share a cache, embeddings for each layer
    "glm-4.5-air",  # a layer that only guesses further tokens
    "jamba-1.5-mini",
    "kimi-k2",
    "kimi-linear-48b-a3b",  # delta attention beside latent attention
    "lfm2-1.2b",
    "llama-4-scout",  # chunked attention
    "mamba2-2.7b",  # no attention at all
    "qwen3-next-80b-a3b",  # gated delta net
    "rwkv7-2.9b",
)
"""Of ARCHITECTURES, which all were tried once: those whose layers differ most from MODELS."""


@pytest.mark.parametrize("name", [*MODELS, *UNLIKE_OTHERS])
def test_the_engine_plans_every_model_and_the_formula_is_within_its_bound(
    planner: Group, models: Path, name: str
) -> None:
    file = models / f"{name}.gguf"
    write_sparse(file, name, "Q4_K_M")
    options = PlanOptions(f"file:///test-models/{file.name}", 8192, 2, workers=4)
    plan = planner.plan(options)
    file.unlink()

    assert (plan["method"], plan["errorPercent"], plan["fits"]) == ("Engine", 0, True)
    found = model(name)
    layers = [worker["layers"] for worker in plan["perWorker"]]
    assert sum(layers) == found.layers
    formula = Formula(found)
    guess = formula.account(layers, Settings(8192, 2))
    for worker, memory in zip(plan["perWorker"], guess.workers, strict=True):
        total = worker["modelBytes"] + worker["contextBytes"] + worker["computeBytes"]
        assert memory.total == pytest.approx(total, rel=formula.error_percent / 100)
        assert worker["modelBytes"] == pytest.approx(memory.model, abs=2 * MIB)  # whole MiB
    needs = [worker["memoryBytes"] for worker in plan["perWorker"]]
    guessed = Planner(found, formula).plan(Wanted(workers=4), Settings(8192, 2)).split
    assert max(needs) == pytest.approx(guessed.heaviest, rel=max(15, formula.error_percent) / 100)


@pytest.mark.parametrize(
    ("name", "workers", "settings"),
    [
        ("llama-3.1-8b", 15, {}),  # the output layer alone
        ("phi-4", 15, {}),  # one block and the output layer
        ("gemma-3-27b", 15, {}),  # workers whose layers all see a window
        ("llama-4-scout", 4, {"context_size": 65536}),  # a window that the header does not name
        ("starcoder2-15b", 3, {"context_size": 2048}),  # a feed-forward part without a gate
        ("olmo-2-13b", 15, {"context_size": 2048}),  # norms behind the parts of a layer
        ("llama-3.1-8b", 3, {"context_size": 64}),  # fewer tokens than a batch
        ("llama-3.1-8b", 4, {"parallel": 8, "extra_args": ("--kv-unified",)}),
    ],
)
def test_the_formula_is_within_its_bound_for_unusual_workers_too(
    planner: Group, models: Path, name: str, workers: int, settings: dict[str, Any]
) -> None:
    file = models / f"{name}.gguf"
    write_sparse(file, name, "Q4_K_M")
    wanted = {"context_size": 8192, "parallel": 2, **settings}
    plan = planner.plan(PlanOptions(f"file:///test-models/{file.name}", workers=workers, **wanted))
    file.unlink()
    formula = Formula(model(name))
    layers = [worker["layers"] for worker in plan["perWorker"]]
    guess = formula.account(layers, Settings(**wanted))
    for worker, memory in zip(plan["perWorker"], guess.workers, strict=True):
        total = worker["modelBytes"] + worker["contextBytes"] + worker["computeBytes"]
        assert memory.total == pytest.approx(total, rel=formula.error_percent / 100)


def test_what_guesses_ahead_is_planned_with_its_weights_and_its_context(
    planner: Group, models: Path
) -> None:
    file = models / "ahead.gguf"
    write_sparse(file, "glm-4.5-air", "Q4_K_M")
    options = PlanOptions(f"file:///test-models/{file.name}", 8192, 2, workers=1)
    (alone,) = planner.plan(options)["perWorker"]
    (ahead,) = planner.plan(replace(options, extra_args=("--spec-type", "draft-mtp")))["perWorker"]
    file.unlink()
    weights = model_of([header_of("glm-4.5-air")], ahead=True).layer_bytes
    assert ahead["modelBytes"] == pytest.approx(sum(weights), abs=2 * MIB)
    assert ahead["contextBytes"] - alone["contextBytes"] == 2 * 8192 * 2 * 8 * 128 * 2
    assert ahead["computeBytes"] > 1.5 * alone["computeBytes"]


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("phi-4", {}, r"330: fatal error; with cacheTypeV f16 it takes the model"),
        (
            "llama-3.1-8b",  # of whose weights nothing is allocated, or this would be killed
            {"extra_args": ("--flash-attn", "off")},
            r"quantized V cache requires flash_attn to be enabled; with cacheTypeV f16",
        ),
    ],
)
def test_cache_types_that_the_engine_does_not_take_have_a_reason(
    planner: Group, models: Path, name: str, settings: dict[str, Any], words: str
) -> None:
    file = models / f"{name}.gguf"
    write_sparse(file, name, "F16")
    options = PlanOptions(
        f"file:///test-models/{file.name}", 8192, 2, 1, cache_type_k="q8_0", cache_type_v="q8_0"
    )
    with pytest.raises(CommandFailed, match=words):
        planner.plan(replace(options, **settings))
    file.unlink()


def test_the_states_of_many_slots_are_planned_in_little_memory(
    planner: Group, models: Path
) -> None:
    file = models / "states.gguf"
    write_sparse(file, "falcon-h1-7b", "Q4_K_M")
    plan = planner.plan(PlanOptions(f"file:///test-models/{file.name}", 1024, 256, workers=2))
    file.unlink()
    formula = Formula(model("falcon-h1-7b"))
    layers = [worker["layers"] for worker in plan["perWorker"]]
    guess = formula.account(layers, Settings(1024, 256))
    for worker, memory in zip(plan["perWorker"], guess.workers, strict=True):
        assert worker["contextBytes"] == pytest.approx(memory.context, rel=0.01)
        assert worker["computeBytes"] == pytest.approx(memory.compute, rel=0.02)


def test_a_model_in_several_files_is_planned_as_in_one(planner: Group, models: Path) -> None:
    files = write_sparse_split(models, "qwen3-1.7b", "Q8_0", 2)
    plan = planner.plan(PlanOptions(f"file:///test-models/{files[0].name}", 8192, 1, workers=2))
    for file in files:
        file.unlink()
    held = sum(worker["modelBytes"] for worker in plan["perWorker"])
    assert held == pytest.approx(sum(model("qwen3-1.7b", "Q8_0").layer_bytes), abs=2 * MIB)


def test_what_the_engine_refuses_is_told_in_its_words(planner: Group, models: Path) -> None:
    with pytest.raises(CommandFailed, match="reason=EngineBadFlag"):
        planner.plan(
            PlanOptions(
                "file:///test-models/tiny.gguf", 1024, 1, workers=1, extra_args=("--no-such-flag",)
            )
        )
