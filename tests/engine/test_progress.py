"""What the real engine shows of a load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llamacluster.agent.contract.messages import Progress
from llamacluster.agent.contract.options import LeaderOptions
from tests.engine.group import Group, eventually
from tests.model.headers import write_sparse

pytestmark = pytest.mark.engine

MEMORY = ("--memory", "2g", "--memory-swap", "2g")


def test_a_load_tells_how_far_it_is(new_group: Callable[[], Group], models: Path) -> None:
    """From what the workers hold, which grows with what they were sent."""
    write_sparse(models / "large.gguf", "qwen3-1.7b", "Q8_0")
    group = new_group()
    for index in (1, 2):
        group.start_worker(index, *MEMORY)
    uri = "file:///test-models/large.gguf"
    group.start_leader(LeaderOptions(uri, (15, 14), 1024, 1), *MEMORY)
    seen: list[Progress] = []

    def is_ready() -> bool:
        status = group.status()
        if (status["phase"], status["reason"]) == ("Loading", "Loading") and status["progress"]:
            seen.append(status["progress"])
        return status["reason"] == "Ready"

    eventually(lambda: "starting engine" in group.leader.log())
    eventually(is_ready, 600)
    total = seen[0]["total"]
    print("progress:", [(p["bytes"], p["secondsLeft"]) for p in seen][::10], "of", total)
    assert total is not None
    assert 1.7e9 < total < 2.3e9
    done = [progress["bytes"] for progress in seen]
    assert done == sorted(done)
    assert any(0.05 * total < each < 0.95 * total for each in done)
    assert any(progress["secondsLeft"] for progress in seen)

    def held() -> int:
        """What the workers told last."""
        rows = group.status()["workers"]
        return sum(row["memory"]["residentBytes"] for row in rows if row["memory"])

    eventually(lambda: held() > 0.95 * total)
