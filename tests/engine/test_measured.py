"""What the planner says, beside what a real group takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llamacluster.planning.account import Settings
from llamacluster.planning.formula import graph_nodes
from llamacluster.planning.plan import kept_graphs_bytes
from tests.engine.group import Group
from tests.engine.measured import MIB, measure
from tests.model.headers import write_sparse
from tests.unit.planning.test_model import model

pytestmark = pytest.mark.engine


def test_a_plan_holds_in_a_real_run(new_group: Callable[[], Group], models: Path) -> None:
    file = models / "real.gguf"
    write_sparse(file, "qwen3-1.7b", "Q8_0")
    workers, status = measure(new_group(), file.name, 2, 256, 2, soak_seconds=0, short_requests=0)
    file.unlink()
    to_come = kept_graphs_bytes(graph_nodes(model("qwen3-1.7b"), Settings(256, 2)), 1, 2)

    assert status["formations"] == 1  # nobody was killed
    for worker in workers:
        assert worker.told == pytest.approx(worker.planned, rel=0.025)
        assert worker.peak < worker.limit <= 1.25 * worker.peak + 300 * MIB + to_come


def test_short_requests_without_end_stay_within_the_plan(new_group: Callable[[], Group]) -> None:
    """What an RPC server keeps of computations is most of what a small worker ever holds."""
    workers, status = measure(
        new_group(), "tiny.gguf", 2, 256, 2, soak_seconds=0, short_requests=900
    )
    assert status["formations"] == 1  # nobody was killed
    for worker in workers:
        assert worker.peak > worker.planned + 300 * MIB
        assert worker.peak < worker.limit <= 1.25 * worker.peak + 300 * MIB
