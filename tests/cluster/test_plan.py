"""Plans that a real Job makes with the real engine, on a real scheduler and kubelet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llamacluster.controller.kubeapi import JOBS, LEADERWORKERSETS, LLAMACLUSTERS, PODS, KubeApi
from llamacluster.resources.metadata import CLUSTER_LABEL, MODEL_CLAIM_LABEL, digest
from tests.build import Manifest
from tests.cluster.world import World
from tests.conftest import fresh_namespace
from tests.kind.cluster import Cluster
from tests.kind.images import BuiltImages
from tests.kind.product import publish_model

pytestmark = pytest.mark.cluster

TINY = {"uri": "http://tiny-model/tiny.gguf"}
MEMORY = {"resources": {"limits": {"memory": "1Gi"}}}
PLANNER = "app.kubernetes.io/component=plan"


@pytest.fixture
def world(api_server: Cluster, api: KubeApi, namespace: str, images: BuiltImages) -> World:
    return World(api_server, api, namespace, images.engine)


@pytest.fixture(scope="module")
def namespace_with_model(api_server: Cluster, images: BuiltImages) -> Iterator[str]:
    with fresh_namespace(api_server) as name:
        publish_model(api_server, images, name)
        yield name


@pytest.fixture
def stocked(
    api_server: Cluster, api: KubeApi, namespace_with_model: str, images: BuiltImages
) -> World:
    """A namespace that has a model, for the tests that need one."""
    return World(api_server, api, namespace_with_model, images.engine)


async def said(world: World, reason: str, name: str = "x") -> Manifest:
    """Planned, once it has this reason."""

    async def is_so() -> bool:
        await world.reconcile(name)
        return bool((await world.condition("Planned", name))["reason"] == reason)

    await world.until(is_so)
    return await world.condition("Planned", name)


async def planners(world: World, name: str = "x") -> list[Manifest]:
    of_cluster = f"{PLANNER},{CLUSTER_LABEL}={name}"
    return await world.api.list(PODS, world.namespace, of_cluster)


async def test_the_engine_plans_and_the_group_is_made_by_it(stocked: World) -> None:
    stocked.creates_unplanned(model=TINY, workers=MEMORY, replicas=0)
    planned = await said(stocked, "Planned")
    assert planned["status"] == "True"
    plan = (await stocked.get(LLAMACLUSTERS, "x"))["status"]["plan"]
    assert plan["method"] == "Engine"
    assert plan["message"] == planned["message"]
    assert plan["workers"] == 1
    group_set = await stocked.get(LEADERWORKERSETS, "x-group")
    template = group_set["spec"]["leaderWorkerTemplate"]
    assert template["size"] == 2
    layers = ",".join(str(worker["layers"]) for worker in plan["perWorker"])
    leader = template["leaderTemplate"]["spec"]["containers"][0]
    assert f"--layers={layers}" in leader["args"]
    assert leader["resources"]["limits"]["memory"] == plan["leaderMemory"]
    await stocked.settle()
    assert [await stocked.reconcile() for _ in range(2)] == [0, 0]
    events = stocked.person("get", "events", "--field-selector=reason=Planned", "-o", "name")
    assert len(events.splitlines()) == 1

    # An equal one has the same plan, without another Job.
    stocked.creates_unplanned("y", model=TINY, workers=MEMORY, replicas=0)
    await stocked.reconcile("y")
    assert (await stocked.get(LLAMACLUSTERS, "y"))["status"]["plan"] == plan
    of_both = f"{PLANNER},{CLUSTER_LABEL} in (x,y)"
    assert len(await stocked.api.list(JOBS, stocked.namespace, of_both)) == 1


async def test_what_does_not_fit_starts_no_pod_and_says_what_would(stocked: World) -> None:
    stocked.creates_unplanned(
        "small", model=TINY, workers={"count": 2, "resources": {"limits": {"memory": "100"}}}
    )
    found = await said(stocked, "DoesNotFit", "small")
    assert found["status"] == "False"
    assert found["message"]
    assert await stocked.gone(LEADERWORKERSETS, "small-group")
    assert await stocked.reconcile("small") == 0


async def test_a_model_that_is_not_there_yet_is_waited_for(world: World) -> None:
    world.creates_unplanned(model={"uri": "pvc://later/m.gguf"})
    await said(world, "Unschedulable")
    world.person("apply", "-f", "-", stdin=a_claim("later"))
    found = await said(world, "ModelNotFound")
    assert "m.gguf" in found["message"]
    [before] = await planners(world)
    assert before["status"]["phase"] != "Failed"


async def test_an_image_that_is_not_there_is_said(world: World) -> None:
    world.creates_unplanned(image="localhost/no-such-image:1")
    assert "localhost/no-such-image:1" in (await said(world, "ImagePullFailed"))["message"]


async def test_the_job_of_a_former_spec_goes_with_its_pod(world: World) -> None:
    world.creates_unplanned(leader={"nodeSelector": {"no": "node"}})
    await said(world, "Unschedulable")
    [former] = await planners(world)
    world.patches("llc/x", {"spec": {"inference": {"contextSize": 64}}})

    async def only_the_new_one_is_there() -> bool:
        await world.reconcile()
        names = [pod["metadata"]["name"] for pod in await planners(world)]
        return bool(names) and former["metadata"]["name"] not in names

    await world.until(only_the_new_one_is_there)
    assert len(await world.api.list(JOBS, world.namespace, PLANNER)) == 1


async def test_the_planner_runs_beside_the_pod_that_has_mounted_the_claim(world: World) -> None:
    """By the label alone: a volume of this cluster is bound to one node anyway. Each on another
    node, so that chance does not bring all of them there."""
    nodes = dict(zip(("mounts", "label", "label-too"), world.cluster.worker_nodes(), strict=True))
    for name, node in nodes.items():
        world.person("apply", "-f", "-", stdin=a_claim(name))
        world.person(
            *("apply", "-f", "-"),
            stdin=a_leader(name, node, world.image, mounted=name == "mounts"),
        )
    world.person("wait", "pod", "--all", "--for=condition=Ready", "--timeout=240s")
    for name in nodes:
        world.creates_unplanned(name, model={"uri": f"pvc://{name}/m.gguf"})
        await world.reconcile(name)
    for name, node in nodes.items():
        await said(world, "ModelNotFound", name)  # it could mount the claim, and looked
        [pod] = await planners(world, name)
        assert pod["spec"]["nodeName"] == node


def a_claim(name: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }


def a_leader(claim: str, node: str, image: str, *, mounted: bool) -> Manifest:
    """A pod on this node with the label of a leader that mounts the claim."""
    container: dict[str, Any] = {
        "name": "leader",
        "image": image,
        "command": ["sleep", "infinity"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "models", "mountPath": "/models"}] if mounted else [],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": claim, "labels": {MODEL_CLAIM_LABEL: digest(claim)}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }
