"""The operator's log of a LlamaCluster's whole life reads as a story, at level info."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from structlog.testing import capture_logs

from llamacluster.agent.contract import messages
from llamacluster.controller.kubeapi import LLAMACLUSTERS
from tests.build import plan_answer
from tests.unit.controller.build import leader_status, pod
from tests.unit.controller.world import World

WAY_TO_READY = (
    (messages.Phase.Waiting, "Starting"),
    (messages.Phase.Waiting, "Downloading"),
    (messages.Phase.Waiting, "WaitingForWorkers"),
    (messages.Phase.Attaching, "Attaching"),
    (messages.Phase.Loading, "Loading"),
    (messages.Phase.Verifying, "Probing"),
)


async def some_looks(world: World) -> None:
    for _ in range(3):
        await world.reconcile()
        world.now += timedelta(seconds=20)


async def is_planned(world: World) -> None:
    await some_looks(world)
    world.planner(plan_answer(4, 5))
    await some_looks(world)


async def the_agent_says(world: World, phase: messages.Phase, reason: str) -> None:
    world.pods(pod(0), pod(1), pod(2))
    for percent in ("20 %", "40 %", "60 %"):
        world.agents.statuses["x-group-0"] = leader_status(phase, reason, percent, 2)
        await some_looks(world)


async def serves(world: World) -> None:
    world.rolled_out()
    world.pods(pod(0, ready=True), pod(1), pod(2))
    world.agents.statuses["x-group-0"] = leader_status(messages.Phase.Serving, "Ready", "", 2)
    await some_looks(world)


async def is_changed(world: World, **spec: Any) -> None:
    here = world.stored(LLAMACLUSTERS)
    here["spec"] |= spec
    here["metadata"]["generation"] += 1
    await some_looks(world)


def line(told: Mapping[str, Any]) -> str:
    """A line as a person reads it, without digests."""
    text = f"{told['event']} {told.get('object', told.get('generation', ''))}".strip()
    text = text.partition("x-plan-")[0] + "x-plan-…" if "x-plan-" in text else text
    return f"{text}: {told['because']}" if "because" in told else text


async def test_a_life_with_a_loss_a_change_and_an_end() -> None:
    world = World()
    with capture_logs() as told:
        world.creates_unplanned()
        await is_planned(world)
        world.rolled_out()
        for phase, reason in WAY_TO_READY:
            await the_agent_says(world, phase, reason)
        await serves(world)

        await the_agent_says(world, messages.Phase.Waiting, "WorkerLost")
        await the_agent_says(world, messages.Phase.Loading, "Loading")
        await serves(world)

        await is_changed(world, inference={"parallel": 2})
        await is_planned(world)
        await serves(world)
        await is_changed(world, replicas=0)

    argument = ".spec.leaderWorkerTemplate.leaderTemplate.spec.containers[0].args[7]"
    assert [line(one) for one in told if one["log_level"] != "debug"] == [
        *("new spec 1", "making Service/x", "making Job/x-plan-…", "Planning"),
        *("created Secret/x-control", "making LeaderWorkerSet/x-group", "Planned", "PodsPending"),
        *(reason for _, reason in WAY_TO_READY),
        "Ready",
        *("WorkerLost", "Loading", "Ready"),
        *("new spec 2", "making Job/x-plan-…", "Planning"),
        f"changing LeaderWorkerSet/x-group: {argument} is '--parallel=1' instead of '--parallel=2'",
        *("Planned", "RollingOut", "Ready"),
        *("new spec 3", "changing LeaderWorkerSet/x-group: .spec.replicas is 1 instead of 0"),
        "ScaledToZero",
    ]
    warnings = [one["event"] for one in told if one["log_level"] == "warning"]
    assert warnings == ["WorkerLost"]
