"""What the plug-in asks of a group's API, asked of the real engine behind its gate."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llamacluster.agent.contract.options import LeaderOptions
from llamacluster.cli.groupapi import GroupApi
from tests.engine.group import Group
from tests.groupapibehaviour import GroupApiBehaviour

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def leader_port(shared_groups: Callable[[], Group]) -> int:
    group = shared_groups()
    group.start_worker(1)
    group.start_leader(
        LeaderOptions("file:///test-models/tiny.gguf", (25,), context_size=128, parallel=2)
    )
    group.until("Ready")
    return int(group.leader.url(8080).rpartition(":")[2])


class TestEngine(GroupApiBehaviour):
    """The engine is what the fake is held to."""

    @pytest.fixture
    def api(self, leader_port: int) -> GroupApi:
        return GroupApi(leader_port)
