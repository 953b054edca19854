"""What is seen of a LlamaCluster."""

from __future__ import annotations

import asyncio

from llamacluster.agent.contract import messages
from llamacluster.controller.kubeapi import PODS
from llamacluster.controller.observation import ASKED_AT_ONCE, observe
from tests.build import Manifest, llama_cluster
from tests.fakekubeapi import FakeKubeApi
from tests.unit.controller.build import leader_status, pod


class Slow:
    """Agents that take their time."""

    def __init__(self) -> None:
        self.now, self.most = 0, 0

    async def leader_status(self, _: Manifest) -> messages.LeaderStatus | None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        return leader_status()

    async def reaches(self, _: Manifest) -> bool | None:
        raise NotImplementedError


async def test_many_leaders_are_asked_some_at_a_time() -> None:
    api, agents = FakeKubeApi(), Slow()
    for index in range(3 * ASKED_AT_ONCE):
        api.put(PODS, pod(0, group=index))
    seen = await observe(llama_cluster(), None, api, agents)
    assert len(seen.groups) == 3 * ASKED_AT_ONCE
    assert all(group.status for group in seen.groups.values())
    assert agents.most == ASKED_AT_ONCE
