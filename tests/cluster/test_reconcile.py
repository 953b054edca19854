"""The real reconcile on a real API server, without an operator's process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamacluster.controller.kubeapi import (
    LEADERWORKERSETS,
    LLAMACLUSTERS,
    NETWORKPOLICIES,
    PODS,
    SERVICES,
    KubeApi,
)
from tests.build import Manifest
from tests.cluster.world import World
from tests.kind.cluster import Cluster

pytestmark = pytest.mark.cluster


@pytest.fixture
def world(api_server: Cluster, api: KubeApi, namespace: str) -> World:
    return World(api_server, api, namespace)


async def test_the_first_reconcile_makes_the_objects_and_the_next_ones_write_nothing(
    world: World,
) -> None:
    world.creates()
    # Service, four NetworkPolicies, Secret, LeaderWorkerSet, budget, status, two events.
    assert await world.reconcile() == 11
    await world.settle()
    assert [await world.reconcile() for _ in range(3)] == [0, 0, 0]

    service = await world.get(SERVICES, "x")
    group_set = await world.get(LEADERWORKERSETS, "x-group")
    owner = await world.get(LLAMACLUSTERS, "x")
    for made in (service, group_set):
        [reference] = made["metadata"]["ownerReferences"]
        assert reference["uid"] == owner["metadata"]["uid"]
        assert reference["controller"] is True


async def test_awkward_but_valid_values_are_applied_once(world: World) -> None:
    """The API server and LeaderWorkerSet's webhook write some values in their own way."""
    world.creates(
        model={"uri": "https://h/m.gguf?download=true", "storage": {"size": "0.5Gi"}},
        workers={
            "count": 2,
            "resources": {
                "limits": {"cpu": 1, "memory": "1024Mi", "ephemeral-storage": "2000M"},
                "requests": {"cpu": "0.5", "memory": "1.5e8"},
            },
            "nodeSelector": {},
            "tolerations": [
                {"key": "a", "operator": "Equal", "value": ""},
                {"operator": "Exists", "tolerationSeconds": 0, "effect": "NoExecute"},
            ],
            "affinity": {
                "nodeAffinity": {},
                "podAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "zone", "labelSelector": {}}
                    ]
                },
            },
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "zone",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {
                        "matchExpressions": [{"key": "a", "operator": "Exists", "values": []}]
                    },
                }
            ],
            "metadata": {"labels": {"a": ""}, "annotations": {"b": ""}},
        },
        leader={
            "resources": {"limits": {"cpu": "1000m", "memory": "1.5Gi"}},
            "topologySpreadConstraints": [],
        },
        inference={"extraArgs": ["--", "--temp", "$(X)", "é"]},
        server={"port": 9000, "service": {"type": "NodePort", "annotations": {}}},
        imagePullSecrets=[{"name": "a"}, {"name": "b"}],
        networkPolicy={
            "from": [
                {"namespaceSelector": {}},
                {"podSelector": {"matchLabels": {"a": ""}}, "namespaceSelector": {}},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                {"ipBlock": {"cidr": "0.0.0.0/0"}},
            ],
            "monitoring": [
                {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}
            ],
        },
    )
    await world.reconcile()
    first = await world.get(LEADERWORKERSETS, "x-group")
    await world.settle()
    assert [await world.reconcile() for _ in range(2)] == [0, 0]
    for policy in ("x-workers", "x-leader", "x-leader-egress", "x-plan"):
        made = await world.get(NETWORKPOLICIES, policy)
        assert made["metadata"]["generation"] == 1
    last = await world.get(LEADERWORKERSETS, "x-group")
    assert last["metadata"]["generation"] == first["metadata"]["generation"]


async def test_a_changed_spec_is_applied_and_nothing_else_is(world: World) -> None:
    world.creates()
    await world.settle()
    service = await world.get(SERVICES, "x")
    world.patches("llc/x", {"spec": {"inference": {"contextSize": 8192}}})
    world.plans()
    await world.settle()
    group_set = await world.get(LEADERWORKERSETS, "x-group")
    leader = group_set["spec"]["leaderWorkerTemplate"]["leaderTemplate"]["spec"]
    assert "--context-size=8192" in leader["containers"][0]["args"]
    unchanged = await world.get(SERVICES, "x")
    assert unchanged["metadata"]["resourceVersion"] == service["metadata"]["resourceVersion"]


async def test_what_others_add_to_our_objects_stays_and_costs_no_write(world: World) -> None:
    world.creates()
    await world.settle()
    world.person("create", "configmap", "other-owner")
    other = json.loads(world.person("get", "configmap", "other-owner", "-o", "json"))
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "other-owner",
        "uid": other["metadata"]["uid"],
    }
    for what in ("service/x", "lws/x-group"):
        world.person("label", what, "theirs=1")
        world.person("annotate", what, "theirs=1")
        append = [{"op": "add", "path": "/metadata/ownerReferences/-", "value": reference}]
        world.person("patch", what, "--type=json", f"--patch={json.dumps(append)}")
    extra = {"name": "extra", "port": 99, "protocol": "TCP"}
    append = [{"op": "add", "path": "/spec/ports/-", "value": extra}]
    world.person("patch", "service/x", "--type=json", f"--patch={json.dumps(append)}")
    world.patches("service/x", {"spec": {"sessionAffinity": "ClientIP"}})
    world.patches(
        "lws/x-group",
        {"spec": {"rolloutStrategy": {"rollingUpdateConfiguration": {"partition": 2}}}},
    )
    await world.settle()
    assert await world.reconcile() == 0

    # And stays when we write for a reason of our own.
    world.patches("llc/x", {"spec": {"server": {"port": 9000}}})
    await world.settle()
    service = await world.get(SERVICES, "x")
    group_set = await world.get(LEADERWORKERSETS, "x-group")
    for ours in (service, group_set):
        assert ours["metadata"]["labels"]["theirs"] == "1"
        assert ours["metadata"]["annotations"]["theirs"] == "1"
        assert len(ours["metadata"]["ownerReferences"]) == 2
    assert {port["port"] for port in service["spec"]["ports"]} == {9000, 99}
    assert service["spec"]["sessionAffinity"] == "ClientIP"
    strategy = group_set["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"]
    assert strategy["partition"] == 2


@pytest.mark.parametrize(
    ("what", "resource", "name", "changes"),
    [
        ("service/x", SERVICES, "x", {"spec": {"selector": {"llamacluster.dev/cluster": "y"}}}),
        ("lws/x-group", LEADERWORKERSETS, "x-group", {"spec": {"replicas": 0}}),
        (
            "lws/x-group",
            *(LEADERWORKERSETS, "x-group"),
            {"metadata": {"labels": {"llamacluster.dev/cluster": "y"}}},
        ),
    ],
)
async def test_a_foreign_edit_of_what_we_own_is_taken_back(
    world: World, what: str, resource: Any, name: str, changes: Manifest
) -> None:
    # No node has this label: pods wait, and none runs.
    nowhere = {"count": 1, "nodeSelector": {"no": "node"}}
    world.creates(replicas=1, workers=nowhere, leader={"nodeSelector": {"no": "node"}})
    await world.settle()
    before = await world.get(resource, name)
    world.patches(what, changes)
    assert await world.reconcile() >= 1
    await world.settle()
    after = await world.get(resource, name)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]


async def test_a_service_of_somebody_else_is_left_alone_and_said(world: World) -> None:
    world.person("create", "service", "clusterip", "x", "--tcp=80:80")
    theirs = await world.get(SERVICES, "x")
    world.creates()
    await world.reconcile()

    found = await world.condition("Ready")
    assert (found["status"], found["reason"]) == ("False", "NameConflict")
    assert "Service x exists already" in found["message"]
    assert "delete it, or give the LlamaCluster another name" in found["message"]
    assert (await world.condition("Degraded"))["status"] == "True"
    assert await world.get(SERVICES, "x") == theirs
    assert await world.reconcile() == 0
    events = world.person("get", "events", "--field-selector=reason=NameConflict", "-o", "name")
    assert len(events.splitlines()) == 1

    world.person("delete", "service", "x")
    await world.settle()
    assert (await world.condition("Ready"))["reason"] == "ScaledToZero"
    assert (await world.condition("Degraded"))["status"] == "False"


async def test_nothing_is_written_on_the_users_object_but_its_status(world: World) -> None:
    world.creates()
    before = await world.get(LLAMACLUSTERS, "x")
    await world.settle()
    after = await world.get(LLAMACLUSTERS, "x")
    assert after["spec"] == before["spec"]
    for volatile in ("managedFields", "resourceVersion"):
        del before["metadata"][volatile], after["metadata"][volatile]
    assert after["metadata"] == before["metadata"]


async def test_a_deleted_cluster_leaves_nothing_behind_without_an_operator(world: World) -> None:
    world.creates(
        replicas=1,
        model={"uri": "http://models/m.gguf", "storage": {"size": "1Mi"}},
        workers={"count": 1},
    )
    await world.settle()
    await world.until(lambda: _has_pods(world, 2))
    claims = json.loads(world.person("get", "pvc", "-o", "json"))["items"]
    assert claims

    world.person("delete", "llc", "x", "--wait=false")
    kinds = "lws,services,statefulsets,pods,persistentvolumeclaims,controllerrevisions,pdb"

    async def nothing_is_left() -> bool:
        return not world.person("get", kinds, "-o", "name").strip()

    await world.until(nothing_is_left)


async def _has_pods(world: World, count: int) -> bool:
    pods = await world.api.list(PODS, world.namespace, "llamacluster.dev/cluster=x")
    return len(pods) == count


async def test_a_cluster_can_be_made_again_at_once_under_its_name(world: World) -> None:
    world.creates()
    await world.settle()
    old = await world.get(LEADERWORKERSETS, "x-group")
    world.person("delete", "llc", "x", "--wait=false")
    world.creates()
    await world.reconcile()  # the predecessor's objects may or may not be there still

    async def is_another() -> bool:
        await world.settle()
        uid = (await world.get(LEADERWORKERSETS, "x-group"))["metadata"]["uid"]
        return bool(uid != old["metadata"]["uid"])

    await world.until(is_another)
    new = await world.get(LEADERWORKERSETS, "x-group")
    owner = await world.get(LLAMACLUSTERS, "x")
    assert new["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]


async def test_objects_of_a_predecessor_are_waited_for_and_said(world: World) -> None:
    world.creates()
    await world.settle()
    # Held back by a finalizer, as if its removal took long.
    world.patches("service/x", {"metadata": {"finalizers": ["test.llamacluster.dev/hold"]}})
    world.person("delete", "llc", "x")
    world.creates()
    await world.reconcile()
    found = await world.condition("Ready")
    assert found["reason"] == "PredecessorRemains"
    assert "Service x of the deleted LlamaCluster is still being removed" in found["message"]
    assert (await world.condition("Progressing"))["status"] == "True"
    assert (await world.condition("Degraded"))["status"] == "False"
    assert await world.reconcile() == 0

    world.patches("service/x", {"metadata": {"finalizers": None}})
    await world.settle()
    assert (await world.condition("Ready"))["reason"] == "ScaledToZero"


async def test_foreground_deletion_gets_no_new_children(world: World) -> None:
    world.creates()
    await world.settle()
    world.patches("llc/x", {"metadata": {"finalizers": ["test.llamacluster.dev/hold"]}})
    world.person("delete", "llc", "x", "--cascade=foreground", "--wait=false")
    world.person("delete", "lws", "x-group", "service", "x", "--ignore-not-found")
    assert await world.reconcile() == 0
    assert await world.gone(LEADERWORKERSETS, "x-group")
    world.patches("llc/x", {"metadata": {"finalizers": None}})
    await world.until(lambda: world.gone(LLAMACLUSTERS, "x"))


async def test_the_scale_subresource_scales_the_groups(world: World) -> None:
    world.creates()
    await world.settle()
    world.patches("llc/x", {"spec": {"leader": {"nodeSelector": {"no": "node"}}}})
    world.person("scale", "llc/x", "--replicas=2")
    await world.settle()
    group_set = await world.get(LEADERWORKERSETS, "x-group")
    assert group_set["spec"]["replicas"] == 2
    scale = json.loads(
        world.person(
            "get", "--raw",
            f"/apis/llamacluster.dev/v1alpha1/namespaces/{world.namespace}/llamaclusters/x/scale",
        )
    )  # fmt: skip
    assert scale["spec"]["replicas"] == 2
    assert "llamacluster.dev/cluster=x" in scale["status"]["selector"]


async def test_a_pod_that_fits_nowhere_is_said_in_the_schedulers_words(world: World) -> None:
    world.creates(
        replicas=1,
        workers={"count": 1, "nodeSelector": {"no": "node"}},
        leader={"nodeSelector": {"no": "node"}},
    )

    async def unschedulable() -> bool:
        await world.reconcile()
        return bool((await world.condition("Ready"))["reason"] == "Unschedulable")

    await world.until(unschedulable)
    assert (
        "didn't match Pod's node affinity/selector" in (await world.condition("Ready"))["message"]
    )
    assert (await world.condition("Degraded"))["status"] == "True"


async def test_what_the_api_server_refuses_is_said_in_its_words(world: World) -> None:
    world.person("create", "quota", "no-more", "--hard=services=0")
    # It holds from when its controller has counted what there is.
    world.person("wait", "--for=jsonpath={.status.hard.services}=0", "quota/no-more")
    world.creates()
    await world.reconcile()
    found = await world.condition("Ready")
    assert found["reason"] == "Rejected"
    assert "refused Service x" in found["message"]
    assert "exceeded quota: no-more" in found["message"]
