"""Applying a manifest again changes nothing and writes nothing, whoever applies it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from llamacluster.controller.kubeapi import LEADERWORKERSETS, LLAMACLUSTERS, SERVICES, KubeApi
from tests.build import Manifest, manifest
from tests.cluster.world import World
from tests.kind.cluster import Cluster

pytestmark = pytest.mark.cluster

SPEC = {
    "replicas": 0,
    "workers": {"count": 2, "resources": {"limits": {"cpu": "1500m", "memory": "1024Mi"}}},
    "inference": {"contextSize": 2048, "extraArgs": ["--temp", "0.20"]},
}
"""With values that a server could write in its own way."""


@pytest.fixture
def world(api_server: Cluster, api: KubeApi, namespace: str) -> World:
    return World(api_server, api, namespace)


async def versions(world: World) -> list[tuple[str, int | None]]:
    """resourceVersion and generation of the LlamaCluster and of what was made of it."""
    found = [
        await world.get(LLAMACLUSTERS, "x"),
        await world.get(SERVICES, "x"),  # which has no generation
        await world.get(LEADERWORKERSETS, "x-group"),
    ]
    metadata = [one["metadata"] for one in found]
    return [(one["resourceVersion"], one.get("generation")) for one in metadata]


async def serving(world: World) -> None:
    """The operator has done its work for the LlamaCluster, and its status is there."""
    world.plans()
    await world.settle()


@pytest.mark.parametrize("options", [(), ("--server-side",)], ids=["client-side", "server-side"])
async def test_kubectl_apply_twice(world: World, options: tuple[str, ...]) -> None:
    wanted = manifest("x", world.namespace, **SPEC)
    world.person("apply", *options, "-f", "-", stdin=wanted)
    await serving(world)
    before = await versions(world)

    said = world.person("apply", *options, "-f", "-", stdin=wanted)
    assert said.split() in (
        ["llamacluster.llamacluster.dev/x", "unchanged"],
        ["llamacluster.llamacluster.dev/x", "serverside-applied"],
    )
    assert world.person("diff", *options, "-f", "-", stdin=wanted) == ""  # it fails on a diff
    assert await world.reconcile() == 0
    assert await versions(world) == before


async def test_helm_upgrade_twice(world: World, tmp_path: Path) -> None:
    chart(tmp_path, manifest("x", world.namespace, **SPEC))
    upgrade = ("upgrade", "--install", "models", str(tmp_path), f"--namespace={world.namespace}")
    world.cluster.helm(*upgrade)
    await serving(world)
    before = await versions(world)

    world.cluster.helm(*upgrade)
    assert await world.reconcile() == 0
    assert await versions(world) == before


def chart(folder: Path, wanted: Manifest) -> None:
    """A chart of one object, as people keep their models in."""
    about = {"apiVersion": "v2", "name": "models", "version": "1.0.0"}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(about))
    (folder / "templates").mkdir()
    (folder / "templates" / "x.yaml").write_text(json.dumps(wanted))
