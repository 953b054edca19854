"""The lease: one leader at a time, whatever happens to it, the API server or the clocks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.aio.dynamic import Resource

from llamacluster.controller.election import (
    DEADLINE_SECONDS,
    LEASE_SECONDS,
    RETRY_SECONDS,
    Election,
    LeaseLost,
    LeaseName,
)
from llamacluster.controller.kubeapi import LEASES, ApiError
from tests.build import Manifest
from tests.fakekubeapi import FakeKubeApi
from tests.virtualtime import virtual_time

FAILOVER_SECONDS = LEASE_SECONDS + 2.4 + 0.5
STORED = (LEASES.name, "system", "operator")


@dataclass
class Link(FakeKubeApi):
    """One candidate's way to the API server that all share."""

    delay: Callable[[], float] = lambda: 0.01
    fails: bool = False
    """Requests end in an error."""
    hangs: bool = False
    """Requests get no answer."""
    loses_answers: bool = False
    """Writes are done, and nobody hears of it."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        await self._way()
        return await super().get(resource, namespace, name)

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest:
        await self._way()
        return await self._answer(await super().create(resource, manifest))

    async def replace(self, resource: Resource, manifest: Manifest) -> Manifest:
        await self._way()
        return await self._answer(await super().replace(resource, manifest))

    async def _way(self) -> None:
        await asyncio.sleep(self.delay())
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            raise aiohttp.ClientConnectionError("refused")

    async def _answer(self, written: Manifest) -> Manifest:
        await asyncio.sleep(self.delay())
        if self.loses_answers:
            await asyncio.Event().wait()
        return written


@dataclass
class World:
    """Candidates, and who worked when."""

    server: FakeKubeApi = field(default_factory=FakeKubeApi)
    working: set[str] = field(default_factory=set)
    spans: list[tuple[str, float, float]] = field(default_factory=list)
    links: dict[str, Link] = field(default_factory=dict)
    elections: dict[str, Election] = field(default_factory=dict)

    def start(self, name: str, work: Coroutine[Any, Any, None] | None = None) -> asyncio.Task[None]:
        link = self.links[name] = Link(objects=self.server.objects)
        link._versions = self.server._versions
        election = Election(link, LeaseName("system", "operator", name))
        self.elections[name] = election

        async def works() -> None:
            began = _now()
            self.working.add(name)
            assert len(self.working) == 1, self.working
            try:
                await (work or asyncio.Event().wait())
            finally:
                self.working.discard(name)
                self.spans.append((name, began, _now()))

        return asyncio.create_task(election.lead(works))

    async def lead(
        self, name: str, work: Coroutine[Any, Any, None] | None = None
    ) -> asyncio.Task[None]:
        """Start it; returns when it works."""
        task = self.start(name, work)
        await self.until_works(name)
        return task

    @property
    def lease(self) -> Manifest:
        spec: Manifest = self.server.objects[STORED]["spec"]
        return spec

    async def until_works(self, name: str) -> float:
        """Seconds until `name` works."""
        began = _now()
        while name not in self.working:  # noqa: ASYNC110 - in virtual time it costs nothing
            await asyncio.sleep(0.1)
        return _now() - began


def _now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture
def world() -> World:
    return World()


@virtual_time
async def test_the_first_leads_and_the_second_stands_by(world: World) -> None:
    await world.lead("a")
    world.start("b")
    await asyncio.sleep(600)
    assert world.working == {"a"}
    assert world.lease["holderIdentity"] == "a"
    assert world.lease["leaseTransitions"] == 0
    # A write each renewal, and none by the one that stands by.
    assert world.links["a"].writes == pytest.approx(600 / (RETRY_SECONDS * 1.1), rel=0.1)
    assert world.links["b"].writes == 0


@virtual_time
async def test_of_two_that_begin_at_once_one_leads(world: World) -> None:
    tasks = [world.start("a"), world.start("b")]
    await asyncio.sleep(60)
    assert len(world.working) == 1
    assert not any(task.done() for task in tasks)


@virtual_time
async def test_a_lease_that_is_given_back_is_taken_at_once(world: World) -> None:
    first = await world.lead("a")
    world.start("b")
    await asyncio.sleep(30)
    first.cancel()
    assert await world.until_works("b") < RETRY_SECONDS * 1.2 + 0.5
    assert world.lease["leaseTransitions"] == 1
    assert first.cancelled()


@virtual_time
async def test_it_is_given_back_only_when_the_work_has_ended(world: World) -> None:
    async def ends_slowly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(4)

    first = await world.lead("a", ends_slowly())
    world.start("b")
    await asyncio.sleep(10)
    first.cancel()
    assert await world.until_works("b") >= 4


@virtual_time
async def test_work_that_fails_gives_the_lease_back_too(world: World) -> None:
    async def fails() -> None:
        await asyncio.sleep(5)
        raise ValueError("broken")

    first = world.start("a", fails())
    with pytest.raises(ValueError, match="broken"):
        await first
    assert "holderIdentity" not in world.lease


@pytest.mark.parametrize("how", ["fails", "hangs", "loses_answers"])
@virtual_time
async def test_a_leader_without_an_api_server_ends_before_another_leads(
    world: World, how: str
) -> None:
    first = await world.lead("a")
    world.start("b")
    await asyncio.sleep(30)
    setattr(world.links["a"], how, True)
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(first, DEADLINE_SECONDS + 1)
    # Once for all: the last renewal that nobody heard of may have been written, too.
    assert await world.until_works("b") < FAILOVER_SECONDS
    assert world.spans[0][0] == "a"


@virtual_time
async def test_a_short_absence_of_the_api_server_costs_nothing(world: World) -> None:
    first = await world.lead("a")
    for how in ("fails", "hangs", "loses_answers"):
        setattr(world.links["a"], how, True)
        await asyncio.sleep(DEADLINE_SECONDS - 2 * RETRY_SECONDS)
        setattr(world.links["a"], how, False)
        await asyncio.sleep(20)
    assert not first.done()


@virtual_time
async def test_one_that_stands_by_waits_for_the_api_server(world: World) -> None:
    first = world.start("a")
    world.links["a"].fails = True
    await asyncio.sleep(600)
    assert not first.done()
    world.links["a"].fails = False
    assert await world.until_works("a") < 3


@virtual_time
async def test_after_a_leader_that_is_killed_another_leads_in_time(world: World) -> None:
    first = await world.lead("a")
    world.start("b")
    await asyncio.sleep(33.3)
    world.links["a"].hangs = True  # as nothing of a killed process reaches the API server
    world.working.discard("a")
    first.cancel()
    assert LEASE_SECONDS - 3 < await world.until_works("b") < FAILOVER_SECONDS


@virtual_time
async def test_wall_clocks_say_nothing(world: World) -> None:
    await world.lead("a")
    world.lease["renewTime"] = world.lease["acquireTime"] = "1970-01-01T00:00:00.000000Z"
    world.start("b")
    await asyncio.sleep(1)
    world.lease["renewTime"] = "2999-01-01T00:00:00.000000Z"
    await asyncio.sleep(60)
    assert world.working == {"a"}


@virtual_time
async def test_whoever_finds_another_in_its_lease_ends_at_the_next_renewal(world: World) -> None:
    first = await world.lead("a")
    stolen = {"spec": {"holderIdentity": "thief"}}
    world.server.edit(LEASES, "system", "operator", stolen)
    with pytest.raises(LeaseLost, match="thief holds it"):
        await asyncio.wait_for(first, 2 * RETRY_SECONDS)


@virtual_time
async def test_a_deleted_lease_is_made_again_by_its_holder(world: World) -> None:
    await world.lead("a")
    world.start("b")
    await asyncio.sleep(10)
    del world.server.objects[STORED]
    await asyncio.sleep(60)
    assert world.working == {"a"}
    assert world.lease["holderIdentity"] == "a"


@virtual_time
async def test_a_process_that_slept_does_nothing_before_it_has_looked(world: World) -> None:
    await world.lead("a")
    world.elections["a"].check()
    asyncio.get_running_loop()._instant.now += DEADLINE_SECONDS + RETRY_SECONDS  # type: ignore[attr-defined]
    with pytest.raises(LeaseLost):
        world.elections["a"].check()


@virtual_time
async def test_who_never_led_may_do_nothing() -> None:
    with pytest.raises(LeaseLost):
        Election(FakeKubeApi(), LeaseName("system", "operator", "a")).check()


@virtual_time
async def test_without_the_right_to_the_lease_it_stands_by(world: World) -> None:
    world.start("a")
    world.links["a"].refusals[LEASES.name] = ApiError(403, "forbidden")
    await asyncio.sleep(100)
    assert not world.working


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
@virtual_time
async def test_there_are_never_two_leaders(seed: int) -> None:
    """Candidates come, end, are killed and lose the API server, in any order."""
    chance = random.Random(seed)  # noqa: S311
    world = World()
    tasks: dict[str, asyncio.Task[None]] = {}
    for number in range(60):
        name = f"c{number}"
        if len(tasks) < 3:
            tasks[name] = world.start(name)
            world.links[name].delay = lambda: chance.uniform(0, 1.4)
        victim = chance.choice(list(tasks))
        link = world.links[victim]
        match chance.randrange(6):
            case 0:
                tasks.pop(victim).cancel()
            case 1:
                link.fails = not link.fails
            case 2:
                link.hangs = not link.hangs
            case 3:
                link.loses_answers = not link.loses_answers
        await asyncio.sleep(chance.uniform(0, 12))
        for done in [name for name, task in tasks.items() if task.done()]:
            with pytest.raises(LeaseLost):
                tasks.pop(done).result()
    # `World.start` has asserted that no two worked at a time.
    for link in world.links.values():
        link.fails = link.hangs = link.loses_answers = False
    world.start("last")
    await asyncio.sleep(FAILOVER_SECONDS + 5)
    assert len(world.working) == 1
