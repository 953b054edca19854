"""Plans that a real Job makes with the real engine, on a real scheduler and kubelet."""

from __future__ import annotations

from typing import Any

import pytest

from llamacluster.controller.kubeapi import JOBS, LEADERWORKERSETS, LLAMACLUSTERS, PODS, KubeApi
from llamacluster.resources.metadata import MODEL_CLAIM_LABEL, digest
from tests.build import Manifest
from tests.cluster.world import World
from tests.kind.cluster import Cluster
from tests.kind.images import BuiltImages
from tests.kind.product import publish_model

pytestmark = pytest.mark.cluster

TINY = {"uri": "http://tiny-model/tiny.gguf"}
MEMORY = {"resources": {"limits": {"memory": "512Mi"}}}
PLANNER = "app.kubernetes.io/component=plan"


@pytest.fixture
def world(api_server: Cluster, api: KubeApi, namespace: str, images: BuiltImages) -> World:
    return World(api_server, api, namespace, images.engine)


async def said(world: World, reason: str) -> Manifest:
    """Planned, once it has this reason."""

    async def is_so() -> bool:
        await world.reconcile()
        return bool((await world.condition("Planned"))["reason"] == reason)

    await world.until(is_so)
    return await world.condition("Planned")


async def planners(world: World) -> list[Manifest]:
    return await world.api.list(PODS, world.namespace, PLANNER)


async def test_the_engine_plans_and_the_group_is_made_by_it(world: World) -> None:
    publish_model(world.cluster, BuiltImages(world.image, ""), world.namespace)
    world.creates_unplanned(model=TINY, workers=MEMORY, replicas=0)
    planned = await said(world, "Planned")
    assert planned["status"] == "True"
    plan = (await world.get(LLAMACLUSTERS, "x"))["status"]["plan"]
    assert plan["method"] == "Engine"
    assert plan["message"] == planned["message"]
    assert plan["workers"] == 1
    group_set = await world.get(LEADERWORKERSETS, "x-group")
    template = group_set["spec"]["leaderWorkerTemplate"]
    assert template["size"] == 2
    layers = ",".join(str(worker["layers"]) for worker in plan["perWorker"])
    leader = template["leaderTemplate"]["spec"]["containers"][0]
    assert f"--layers={layers}" in leader["args"]
    assert leader["resources"]["limits"]["memory"] == plan["leaderMemory"]
    await world.settle()
    assert [await world.reconcile() for _ in range(2)] == [0, 0]
    events = world.person("get", "events", "--field-selector=reason=Planned", "-o", "name")
    assert len(events.splitlines()) == 1

    # An equal one has the same plan, without another Job.
    world.creates_unplanned("y", model=TINY, workers=MEMORY, replicas=0)
    await world.reconcile("y")
    assert (await world.get(LLAMACLUSTERS, "y"))["status"]["plan"] == plan
    assert len(await world.api.list(JOBS, world.namespace, PLANNER)) == 1


async def test_what_does_not_fit_starts_no_pod_and_says_what_would(world: World) -> None:
    publish_model(world.cluster, BuiltImages(world.image, ""), world.namespace)
    world.creates_unplanned(
        model=TINY, workers={"count": 2, "resources": {"limits": {"memory": "100"}}}
    )
    found = await said(world, "DoesNotFit")
    assert found["status"] == "False"
    assert found["message"]
    assert await world.gone(LEADERWORKERSETS, "x-group")
    assert await world.reconcile() == 0


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


@pytest.mark.parametrize(
    ("node", "mounted"), [(0, True), (1, False), (2, False)], ids=["mounted", "label", "label too"]
)
async def test_the_planner_runs_beside_the_pod_that_has_mounted_the_claim(
    world: World, node: int, mounted: bool
) -> None:
    """By the label alone: a volume of this cluster is bound to one node anyway."""
    node_name = world.cluster.worker_nodes()[node]
    world.person("apply", "-f", "-", stdin=a_claim("models"))
    leader = a_leader("models", node_name, world.image, mounted=mounted)
    world.person("apply", "-f", "-", stdin=leader)
    world.person("wait", "pod/leader", "--for=condition=Ready", "--timeout=60s")
    world.creates_unplanned(model={"uri": "pvc://models/m.gguf"})
    await said(world, "ModelNotFound")  # it could mount the claim, and looked
    [pod] = await planners(world)
    assert pod["spec"]["nodeName"] == node_name


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
        "metadata": {"name": "leader", "labels": {MODEL_CLAIM_LABEL: digest(claim)}},
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
