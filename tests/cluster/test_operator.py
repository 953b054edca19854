"""The operator's watches: whatever happens in the cluster is noticed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from kubernetes.aio.dynamic import Resource

from llamacluster.controller.kubeapi import (
    LEADERWORKERSETS,
    LLAMACLUSTERS,
    NETWORKPOLICIES,
    PODDISRUPTIONBUDGETS,
    SERVICES,
    KubeApi,
)
from tests.build import manifest
from tests.cluster.world import World
from tests.kind.cluster import Cluster

pytestmark = pytest.mark.cluster

PATIENCE_SECONDS = 240


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - other processes make it true
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("operator")
async def test_every_change_is_noticed(api_server: Cluster, api: KubeApi, namespace: str) -> None:
    in_namespace = f"--namespace={namespace}"

    async def replicas_are(count: int) -> bool:
        group_set = await api.get(LEADERWORKERSETS, namespace, "x-group")
        return group_set is not None and group_set["spec"]["replicas"] == count

    async def says(reason: str) -> bool:
        cluster = await api.get(LLAMACLUSTERS, namespace, "x") or {}
        conditions = cluster.get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["reason"] == reason for c in conditions)

    async def made_and_planned() -> None:
        api_server.kubectl("create", "-f", "-", stdin=json.dumps(wanted))
        await until(lambda: says("Unschedulable"))  # the planner
        World(api_server, api, namespace).plans()
        await until(lambda: says("ScaledToZero"))

    nowhere = {"nodeSelector": {"no": "node"}}
    wanted = manifest("x", namespace, replicas=0, leader=nowhere)
    await made_and_planned()

    api_server.kubectl("scale", "llc/x", "--replicas=1", in_namespace)
    await until(lambda: replicas_are(1))
    await until(lambda: says("Unschedulable"))

    patch = '--patch={"spec": {"replicas": 3}}'
    api_server.kubectl("patch", "lws/x-group", "--type=merge", patch, in_namespace)
    await until(lambda: replicas_are(1))

    api_server.kubectl("delete", "lws/x-group", in_namespace)
    await until(lambda: replicas_are(1))

    for kind, name in (
        (SERVICES, "x"),
        (PODDISRUPTIONBUDGETS, "x"),
        *((NETWORKPOLICIES, f"x-{which}") for which in ("workers", "workers-0", "leader")),
    ):

        async def is_there(kind: Resource = kind, name: str = name) -> bool:
            return await api.get(kind, namespace, name) is not None

        api_server.kubectl("delete", f"{kind.name}/{name}", in_namespace)
        await until(is_there)
    changes = '--patch={"spec": {"podSelector": {"matchLabels": {"nobody": "is"}}}}'
    api_server.kubectl("patch", "netpol/x-leader", "--type=merge", changes, in_namespace)

    async def selects_leaders_alone() -> bool:
        policy = await api.get(NETWORKPOLICIES, namespace, "x-leader") or {}
        return "nobody" not in policy["spec"]["podSelector"]["matchLabels"]

    await until(selects_leaders_alone)

    api_server.kubectl("delete", "llc/x", in_namespace)
    await made_and_planned()
    await until(lambda: replicas_are(0))
