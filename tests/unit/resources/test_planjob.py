"""The Job that plans: what it asks, where it runs, and how long it tries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from llamacluster.agent.contract.options import PlanOptions, parse
from llamacluster.agent.contract.places import PLAN_CONTAINER
from llamacluster.api.llamacluster import MAX_NAME_LENGTH, LlamaCluster
from llamacluster.resources.leaderpod import leader_pod
from llamacluster.resources.metadata import CLUSTER_LABEL, MODEL_CLAIM_LABEL
from llamacluster.resources.planjob import inputs_hash, plan_job
from tests.build import IMAGE, UID, Manifest, a_plan, llama_cluster
from tests.unit.resources.build import clusters
from tests.unit.resources.restricted import violations
from tests.unit.resources.test_pod import expanded

GIB = 1 << 30
CLAIM = {"uri": "pvc://models/m.gguf"}


def pod(cluster: LlamaCluster) -> Manifest:
    template: Manifest = plan_job(cluster, IMAGE)["spec"]["template"]
    return template


def options(cluster: LlamaCluster) -> PlanOptions:
    [container] = pod(cluster)["spec"]["containers"]
    parsed = parse([expanded(arg) for arg in container["args"]])
    assert isinstance(parsed, PlanOptions)
    return parsed


def test_it_is_named_after_its_inputs_and_goes_with_the_cluster() -> None:
    cluster = llama_cluster("a" * MAX_NAME_LENGTH)
    metadata = plan_job(cluster, IMAGE)["metadata"]
    assert metadata["name"] == f"{'a' * MAX_NAME_LENGTH}-plan-{inputs_hash(cluster, IMAGE)}"
    assert len(metadata["name"]) <= 63  # it becomes a label of its pods
    assert metadata["ownerReferences"][0]["uid"] == UID


@settings(max_examples=40)
@given(clusters)
def test_its_pod_passes_the_restricted_standard_and_has_no_key(cluster: LlamaCluster) -> None:
    spec = pod(cluster)["spec"]
    [container] = spec["containers"]
    assert violations(spec) == []
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["automountServiceAccountToken"] is False
    assert sorted(m["name"] for m in container["volumeMounts"]) == sorted(
        volume["name"] for volume in spec["volumes"]
    )


@settings(max_examples=40)
@given(clusters)
def test_it_is_asked_for_what_will_be_served(cluster: LlamaCluster) -> None:
    inference = cluster.spec.inference
    asked = options(cluster)
    assert asked.model_uri == cluster.spec.model.location
    assert asked.workers == cluster.spec.workers.count
    assert (asked.context_size, asked.parallel) == (inference.context_size, inference.parallel)
    assert (asked.batch_size, asked.ubatch_size) == (inference.batch_size, inference.ubatch_size)
    assert (asked.cache_type_k, asked.cache_type_v) == (
        inference.cache_type_k,
        inference.cache_type_v,
    )
    assert asked.embeddings == inference.embeddings
    assert asked.extra_args == tuple(inference.extra_args)


@pytest.mark.parametrize(
    ("limits", "memory", "cpu"),
    [
        ({"memory": "2Gi", "cpu": "1500m"}, 2 * GIB, 1500),
        ({"memory": 2 * GIB, "cpu": 2}, 2 * GIB, 2000),
        ({"memory": "1m"}, 1, None),
        ({"memory": "1e40", "cpu": "1n"}, 2**63 - 1, 1),
        ({"memory": "100", "cpu": "0"}, 100, None),
    ],
)
def test_limits_are_told_in_bytes_and_millicpus(
    limits: Manifest, memory: int, cpu: int | None
) -> None:
    resources = {"limits": limits}
    asked = options(
        llama_cluster(workers={"resources": resources}, leader={"resources": resources})
    )
    assert asked.workers is None
    assert (asked.worker_memory, asked.worker_cpu, asked.leader_memory) == (memory, cpu, memory)


def test_without_limits_the_plan_says_them() -> None:
    asked = options(llama_cluster(workers={"count": 3}))
    assert (asked.workers, asked.worker_memory, asked.leader_memory) == (3, None, None)


@pytest.mark.parametrize(
    ("fields", "another"),
    [
        ({"replicas": 5}, False),
        ({"server": {"port": 9000}}, False),
        ({"inference": {"chatTemplate": "chatml"}}, False),
        ({"leader": {"metadata": {"labels": {"a": "b"}}}}, False),
        ({"workers": {"count": 2, "threads": 3}}, False),
        ({"workers": {"count": 3}}, True),
        ({"workers": {"count": 2, "resources": {"limits": {"memory": "1Gi"}}}}, True),
        ({"leader": {"resources": {"limits": {"memory": "1Gi"}}}}, True),
        ({"inference": {"contextSize": 64}}, True),
        ({"inference": {"extraArgs": ["--swa-full"]}}, True),
        ({"model": {"uri": "http://models/other.gguf"}}, True),
        ({"model": {"uri": "http://models/m.gguf", "sha256": "a" * 64}}, True),
    ],
)
def test_a_plan_is_another_only_if_something_it_depends_on_is(
    fields: dict[str, Any], another: bool
) -> None:
    same = inputs_hash(llama_cluster(**fields), IMAGE) == inputs_hash(llama_cluster(), IMAGE)
    assert same is not another


def test_a_plan_depends_on_the_engine_and_not_on_how_a_quantity_is_written() -> None:
    def hashed(memory: str, image: str = IMAGE, name: str = "x") -> str:
        workers = {"resources": {"limits": {"memory": memory}}}
        return inputs_hash(llama_cluster(name, workers=workers), image)

    assert hashed("1Gi") == hashed("1024Mi") == hashed("1Gi", name="y")
    assert hashed("1Gi") != hashed("1Gi", image="another")


def test_it_tries_until_there_is_a_plan_and_then_goes_after_a_while() -> None:
    spec = plan_job(llama_cluster(), IMAGE)["spec"]
    assert spec["template"]["spec"]["restartPolicy"] == "OnFailure"
    assert spec["backoffLimit"] == 2**31 - 1
    assert spec["ttlSecondsAfterFinished"] == 3600


def test_nothing_probes_it_and_it_takes_little() -> None:
    [container] = pod(llama_cluster())["spec"]["containers"]
    assert container.keys().isdisjoint({"ports", "readinessProbe", "livenessProbe"})
    assert container["name"] == PLAN_CONTAINER
    assert container["resources"]["requests"] == {"cpu": "100m", "memory": "128Mi"}


def test_it_is_seen_as_the_clusters_and_is_no_part_of_a_group() -> None:
    labels = pod(llama_cluster())["metadata"]["labels"]
    assert labels[CLUSTER_LABEL] == "x"
    assert labels["app.kubernetes.io/component"] == "plan"


def test_it_runs_where_the_leader_may() -> None:
    scheduling: Manifest = {
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "disk", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "high",
    }
    spec = pod(
        llama_cluster(leader=scheduling, imagePullSecrets=[{"name": "a"}], imagePullPolicy="Always")
    )["spec"]
    assert spec["tolerations"][:1] == scheduling.pop("tolerations")
    assert {key: spec[key] for key in scheduling} == scheduling
    assert spec["imagePullSecrets"] == [{"name": "a"}]
    assert spec["containers"][0]["imagePullPolicy"] == "Always"
    assert spec.keys().isdisjoint({"affinity", "topologySpreadConstraints"})


def test_a_claim_is_mounted_as_in_the_leader() -> None:
    planner, leader = (
        made["spec"]
        for made in (
            pod(llama_cluster(model=CLAIM)),
            leader_pod(llama_cluster(model=CLAIM), IMAGE, a_plan()),
        )
    )
    [volume] = [v for v in leader["volumes"] if "persistentVolumeClaim" in v]
    assert planner["volumes"] == [leader["volumes"][0], volume]  # the first is for scratch
    mounts = leader["containers"][0]["volumeMounts"]
    assert planner["containers"][0]["volumeMounts"] == [
        mount for mount in mounts if mount["name"] in ("tmp", volume["name"])
    ]


def test_with_a_claim_it_runs_beside_the_pods_that_have_mounted_it() -> None:
    node_affinity = {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]
        }
    }
    far = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}
    leader = {"affinity": {"nodeAffinity": node_affinity, "podAntiAffinity": far}}
    made = pod(llama_cluster(model=CLAIM, leader=leader))
    [term] = made["spec"]["affinity"].pop("podAffinity")[
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert made["spec"]["affinity"] == {"nodeAffinity": node_affinity}
    assert term["topologyKey"] == "kubernetes.io/hostname"
    # Its own labels match too, so that it may start anywhere when nobody has mounted the claim.
    wanted = term["labelSelector"]["matchLabels"]
    assert wanted.keys() == {MODEL_CLAIM_LABEL}
    assert wanted.items() <= made["metadata"]["labels"].items()
    running = leader_pod(llama_cluster(model=CLAIM), IMAGE, a_plan())
    assert wanted.items() <= running["metadata"]["labels"].items()
