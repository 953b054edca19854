"""What the planner says, beside what a real group takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.group import Group
from tests.engine.measured import MIB, measure
from tests.model.headers import write_sparse

pytestmark = pytest.mark.engine


def test_a_plan_holds_in_a_real_run(new_group: Callable[[], Group], models: Path) -> None:
    file = models / "real.gguf"
    write_sparse(file, "qwen3-1.7b", "Q8_0")
    workers, status = measure(new_group(), file.name, 2, 256, 2, soak_seconds=0)
    file.unlink()

    assert status["formations"] == 1  # nobody was killed
    for worker in workers:
        assert worker.told == pytest.approx(worker.planned, rel=0.025)
        assert worker.peak < worker.limit <= 1.25 * worker.peak + 300 * MIB
