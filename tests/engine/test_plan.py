"""The planner in its image: the engine's own numbers, near the formula's, true in a real run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llamacluster.agent.contract import PlanOptions
from llamacluster.planning.account import Settings
from llamacluster.planning.formula import Formula
from tests.engine.group import Group
from tests.engine.measured import measure
from tests.kind.command import CommandFailed
from tests.model.headers import MODELS, write_sparse
from tests.unit.planning.test_model import model

pytestmark = pytest.mark.engine

MIB = 1 << 20


@pytest.fixture(scope="module")
def planner(shared_groups: Callable[[], Group]) -> Group:
    return shared_groups()


@pytest.mark.parametrize("name", MODELS)
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


def test_a_plan_holds_in_a_real_run(new_group: Callable[[], Group], models: Path) -> None:
    file = models / "real.gguf"
    write_sparse(file, "qwen3-1.7b", "Q8_0")
    workers, status = measure(new_group(), file.name, 2, 512, 2, soak_seconds=0)
    file.unlink()

    assert status["formations"] == 1  # nobody was killed
    for worker in workers:
        assert worker.told == pytest.approx(worker.planned, rel=0.025)
        assert worker.peak < worker.limit <= 1.25 * worker.peak + 300 * MIB


def test_what_the_engine_refuses_is_told_in_its_words(planner: Group, models: Path) -> None:
    with pytest.raises(CommandFailed, match="reason=EngineBadFlag"):
        planner.plan(
            PlanOptions(
                "file:///test-models/tiny.gguf", 1024, 1, workers=1, extra_args=("--no-such-flag",)
            )
        )
