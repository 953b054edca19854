"""A model's URI cannot make the operator itself fetch anything."""

from __future__ import annotations

import subprocess
import sys

from tests.kind.host import REPOSITORY

WAYS_TO_A_SERVER = {
    *("llamacluster.agent.source", "llamacluster.agent.fetch", "llamacluster.agent.headers"),
    *("llamacluster.agent.addresses", "llamacluster.agent.plan"),
}


def test_the_operator_has_no_way_to_a_models_server() -> None:
    """Its process never loads the code that downloads; nor does any of its modules take a URL
    apart or open one."""
    loaded = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys, llamacluster.cli.operator; print(*sys.modules, sep='\\n')",
        ],
        cwd=REPOSITORY,
        env={"PYTHONPATH": "operator"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "llamacluster.controller.reconcile" in loaded
    assert WAYS_TO_A_SERVER.isdisjoint(loaded)

    sources = [
        path
        for layer in ("controller", "resources", "api")
        for path in (REPOSITORY / "operator" / "llamacluster" / layer).glob("*.py")
    ]
    imports = [
        line
        for path in sources
        for line in path.read_text().splitlines()
        if "urllib" in line and line != "from urllib.parse import quote"
    ]
    assert imports == []
