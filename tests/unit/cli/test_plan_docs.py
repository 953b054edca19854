"""docs/plan.md says what the code does."""

from __future__ import annotations

import re

from click.testing import CliRunner

from llamacluster.cli.plan import Engine
from llamacluster.cli.plugin import plugin
from llamacluster.planning import bodies, plan
from tests.kind.host import REPOSITORY

TEXT = " ".join((REPOSITORY / "docs" / "plan.md").read_text().split())


def test_the_margins_are_those_of_the_planner() -> None:
    assert set(re.findall(r"of that (\d+) % more", TEXT)) == {str(round(100 * plan.MARGIN - 100))}
    assert f"the last {plan.KEPT_GRAPHS:,} computations" in TEXT
    assert f"Each takes {plan.GRAPH_NODE_BYTES} bytes for every operation" in TEXT
    assert f"{plan.WORKER_BASE >> 20} MiB for the agent, the RPC server" in TEXT
    assert f"{plan.LEADER_BASE >> 20} MiB for the agent and llama-server" in TEXT
    assert f"{bodies.ENGINE_BYTES_PER_BODY_BYTE} times the largest body of a request" in TEXT
    assert f"{bodies.BODY_BYTES_PER_TOKEN} bytes for each token" in TEXT
    assert bodies.QUICK_REQUESTS == 2
    assert plan.CHECKPOINTS == 4
    assert "four saved states" in TEXT


def test_the_ways_to_ask_are_told() -> None:
    assert all(f"`{engine}`" in TEXT for engine in Engine)


def test_exit_codes_are_told_in_the_help_too() -> None:
    told = CliRunner().invoke(plugin, ["plan", "--help"]).stdout
    for code in (0, 1, 2):
        assert f"| {code} |" in TEXT
        assert re.search(rf"^ +{code}  the|^ +{code}  it", told, re.M)
