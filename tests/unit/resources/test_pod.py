"""What all pods have in common: security, probes, scheduling, names, and who wins."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacluster.agent.contract.options import LeaderOptions, WorkerOptions, parse
from llamacluster.agent.contract.places import (
    AGENT_PORT,
    AGENT_UID,
    CONTROL_DIR,
    CONTROL_TOKEN_FILE,
    GATE_DIR,
    MODEL_DIR,
    SCRATCH_DIR,
)
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.plan import Plan
from llamacluster.api.quantity import to_bytes
from llamacluster.resources.leaderpod import leader_pod
from llamacluster.resources.metadata import CLUSTER_LABEL, leader_selector
from llamacluster.resources.modelsource import credentials_secret
from llamacluster.resources.planjob import plan_job
from llamacluster.resources.workerpod import worker_pod
from tests.build import IMAGE, Manifest, a_plan, llama_cluster
from tests.unit.resources.build import arguments, clusters
from tests.unit.resources.restricted import violations

PLAN = a_plan()
LOST = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
Builder = Callable[[LlamaCluster, str, Plan], Manifest]
BOTH = pytest.mark.parametrize(("role", "build"), [("leader", leader_pod), ("worker", worker_pod)])
OURS = {
    "app.kubernetes.io/name": "llamacluster",
    "app.kubernetes.io/instance": "x",
    "app.kubernetes.io/managed-by": "llamacluster-operator",
    CLUSTER_LABEL: "x",
}


def with_settings(role: str, **settings: Any) -> LlamaCluster:
    """A LlamaCluster with these settings for the pods of this role."""
    if role == "worker":
        return llama_cluster(workers={"count": 2, **settings})
    return llama_cluster(leader=settings)


@BOTH
@settings(max_examples=40)
@given(cluster=clusters)
def test_every_pod_passes_the_restricted_standard(
    role: str, build: Builder, cluster: LlamaCluster
) -> None:
    assert violations(build(cluster, IMAGE, PLAN)["spec"]) == []


@BOTH
@settings(max_examples=40)
@given(cluster=clusters)
def test_every_mount_has_its_volume_and_nothing_else_can_be_written(
    role: str, build: Builder, cluster: LlamaCluster
) -> None:
    spec = build(cluster, IMAGE, PLAN)["spec"]
    mounted = {mount["name"] for one in spec["containers"] for mount in one["volumeMounts"]}
    volumes = [volume["name"] for volume in spec["volumes"]]
    if cluster.spec.model.storage and role == "leader":
        volumes.append("model")  # by LeaderWorkerSet's volumeClaimTemplates
    assert sorted(mounted) == sorted(volumes)
    for container in spec["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


@BOTH
@settings(max_examples=40)
@given(cluster=clusters)
def test_the_agent_gets_the_words_that_the_user_wrote(
    role: str, build: Builder, cluster: LlamaCluster
) -> None:
    container, *_ = build(cluster, IMAGE, PLAN)["spec"]["containers"]
    options = parse([expanded(arg) for arg in container["args"]])
    if isinstance(options, WorkerOptions):
        assert options.threads == cluster.spec.workers.threads
        return
    inference = cluster.spec.inference
    assert options == LeaderOptions(
        model_uri=cluster.spec.model.location,
        credentials_secret=credentials_secret(cluster),
        model_sha256=cluster.spec.model.sha256,
        model_bytes=PLAN.model.bytes,
        model_name="x",
        layers=PLAN.layers,
        context_size=inference.context_size,
        parallel=inference.parallel,
        batch_size=inference.batch_size,
        ubatch_size=inference.ubatch_size,
        cache_type_k=inference.cache_type_k,
        cache_type_v=inference.cache_type_v,
        threads=cluster.spec.leader.threads,
        embeddings=inference.embeddings,
        chat_template=inference.chat_template,
        extra_args=tuple(inference.extra_args),
        control_token_file=CONTROL_TOKEN_FILE,
        encrypted=cluster.spec.rpc.encryption,
    )


@given(st.lists(arguments, min_size=1))
def test_no_argument_of_the_user_is_expanded(words: list[str]) -> None:
    cluster = llama_cluster(inference={"extraArgs": words})
    container, *_ = leader_pod(cluster, IMAGE, PLAN)["spec"]["containers"]
    options = parse([expanded(arg) for arg in container["args"]])
    assert isinstance(options, LeaderOptions)
    assert list(options.extra_args) == words


def expanded(arg: str) -> str:
    """What the kubelet makes of an argument (k8s.io/kubernetes/third_party/forked/golang/expansion)
    where every variable is known."""
    return re.sub(r"\$(\$|\([^)]*\))", lambda found: "$" if found[1] == "$" else "EXPANDED", arg)


@BOTH
@settings(max_examples=40)
@given(cluster=clusters)
def test_the_same_spec_always_gives_the_same_pod(
    role: str, build: Builder, cluster: LlamaCluster
) -> None:
    stored = json.loads(cluster.model_dump_json(by_alias=True, exclude_none=True))
    again = LlamaCluster.model_validate(reversed_fields(stored))
    assert build(again, IMAGE, PLAN) == build(cluster, IMAGE, PLAN)
    json.dumps(build(cluster, IMAGE, PLAN))


def reversed_fields(value: Any) -> Any:
    """The same object with its fields in another order."""
    if isinstance(value, dict):
        return {key: reversed_fields(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [reversed_fields(item) for item in value]
    return value


@BOTH
def test_probes_ask_the_agent_and_never_the_rpc_port(role: str, build: Builder) -> None:
    container, *_ = build(llama_cluster(), IMAGE, PLAN)["spec"]["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == "agent"
        assert container[probe].keys().isdisjoint({"tcpSocket", "exec", "grpc"})
    [agent] = [port for port in container["ports"] if port["name"] == "agent"]
    assert agent["containerPort"] == AGENT_PORT


@BOTH
@pytest.mark.parametrize(("grace", "of_the_probe"), [(300, 30), (10, 10)])
def test_an_agent_that_is_deaf_has_not_the_grace_of_one_that_finishes_requests(
    role: str, build: Builder, grace: int, of_the_probe: int
) -> None:
    pod = build(llama_cluster(terminationGracePeriodSeconds=grace), IMAGE, PLAN)["spec"]
    assert pod["terminationGracePeriodSeconds"] == grace
    assert pod["containers"][0]["livenessProbe"]["terminationGracePeriodSeconds"] == of_the_probe


@BOTH
def test_one_failed_probe_takes_a_pod_out_of_service(role: str, build: Builder) -> None:
    container, *_ = build(llama_cluster(), IMAGE, PLAN)["spec"]["containers"]
    assert container["readinessProbe"]["failureThreshold"] == 1
    assert "startupProbe" not in container


@BOTH
def test_the_users_labels_and_annotations_are_there_and_ours_win(role: str, build: Builder) -> None:
    # Those under the operators' own prefixes are refused at admission.
    shared = [key for key in OURS if not key.startswith("llamacluster.dev/")]
    theirs = dict.fromkeys([*shared, "app.kubernetes.io/component"], "theirs")
    metadata = {"labels": {**theirs, "team": "a"}, "annotations": {"note": "n"}}
    pod = build(with_settings(role, metadata=metadata), IMAGE, PLAN)
    assert pod["metadata"] == {
        "labels": {**OURS, "app.kubernetes.io/component": role, "team": "a"},
        "annotations": {"note": "n"},
    }


def test_the_selector_of_the_service_takes_leaders_and_no_workers() -> None:
    cluster = llama_cluster()
    by_us = leader_selector(cluster)
    by_leaderworkerset = {"leaderworkerset.sigs.k8s.io/worker-index": "0"}
    leader = leader_pod(cluster, IMAGE, PLAN)["metadata"]["labels"] | by_leaderworkerset
    worker = worker_pod(cluster, IMAGE, PLAN)["metadata"]["labels"] | by_leaderworkerset
    assert by_us.items() <= leader.items()
    assert not by_us.items() <= worker.items()


@BOTH
def test_pods_spread_over_nodes_if_they_can(role: str, build: Builder) -> None:
    [constraint] = build(llama_cluster(), IMAGE, PLAN)["spec"]["topologySpreadConstraints"]
    selector = constraint.pop("labelSelector")
    assert constraint == {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
    }
    assert selector["matchLabels"] == {CLUSTER_LABEL: "x"}
    [role_is] = selector["matchExpressions"]
    assert role_is["operator"] == "In"
    assert role in role_is["values"]
    planner = plan_job(llama_cluster(), IMAGE)["spec"]["template"]["metadata"]["labels"]
    assert planner[role_is["key"]] not in role_is["values"], "a planner that has ended counts"


@BOTH
def test_the_users_spread_constraints_replace_ours(role: str, build: Builder) -> None:
    theirs = [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
    some = build(with_settings(role, topologySpreadConstraints=theirs), IMAGE, PLAN)["spec"]
    none = build(with_settings(role, topologySpreadConstraints=[]), IMAGE, PLAN)["spec"]
    assert some["topologySpreadConstraints"] == theirs
    assert "topologySpreadConstraints" not in none


@BOTH
def test_scheduling_and_resources_are_as_the_user_wrote_them(role: str, build: Builder) -> None:
    scheduling: Manifest = {
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": key, "operator": "Exists", "effect": "NoExecute"} for key in LOST],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
                    ]
                }
            }
        },
        "priorityClassName": "high",
    }
    resources = {"limits": {"cpu": 2, "memory": "1.5Gi"}, "requests": {"cpu": "500m"}}
    spec = build(with_settings(role, resources=resources, **scheduling), IMAGE, PLAN)["spec"]
    assert {key: spec[key] for key in scheduling} == scheduling
    assert spec["containers"][0]["resources"] == resources


@BOTH
def test_nothing_is_set_that_the_user_did_not_ask_for(role: str, build: Builder) -> None:
    spec = build(llama_cluster(), IMAGE, PLAN)["spec"]
    unset = {"nodeSelector", "affinity", "priorityClassName", "imagePullSecrets"}
    assert spec.keys().isdisjoint(unset)
    assert spec["containers"][0].keys().isdisjoint({"imagePullPolicy", "env"})


PLANNED = {"leader": "300Mi", "worker": "2000Mi"}


@BOTH
@pytest.mark.parametrize(
    ("own", "limits", "requests"),
    [
        ({}, {"memory": ...}, {"memory": ...}),
        ({"limits": {"cpu": 2}}, {"cpu": 2, "memory": ...}, {"memory": ...}),
        ({"requests": {"memory": "128Mi"}}, {"memory": ...}, {"memory": "128Mi"}),
        ({"requests": {"memory": "9Gi", "cpu": 1}}, {"memory": ...}, {"memory": ..., "cpu": 1}),
        ({"limits": {"memory": "9Gi"}}, {"memory": "9Gi"}, None),
        (
            {"limits": {"memory": "9Gi"}, "requests": {"memory": 1}},
            {"memory": "9Gi"},
            {"memory": 1},
        ),
    ],
    ids=["nothing", "cpu", "a request", "a request that is too large", "a limit", "both"],
)
def test_memory_is_the_plans_unless_the_user_limits_it(
    role: str, build: Builder, own: Manifest, limits: Manifest, requests: Manifest | None
) -> None:
    def filled(part: Manifest | None) -> Manifest | None:
        return part and {k: PLANNED[role] if v is ... else v for k, v in part.items()}

    container, *_ = build(with_settings(role, resources=own), IMAGE, PLAN)["spec"]["containers"]
    assert container["resources"].get("limits") == filled(limits)
    assert container["resources"].get("requests") == filled(requests)


@BOTH
@settings(max_examples=40)
@given(cluster=clusters)
def test_every_pod_has_a_memory_limit(role: str, build: Builder, cluster: LlamaCluster) -> None:
    container, *_ = build(cluster, IMAGE, PLAN)["spec"]["containers"]
    assert to_bytes(container["resources"]["limits"]["memory"]) > 0


@BOTH
def test_image_settings_are_for_all_pods(role: str, build: Builder) -> None:
    cluster = llama_cluster(imagePullPolicy="Never", imagePullSecrets=[{"name": "a"}])
    spec = build(cluster, "registry.example/engine@sha256:abc", PLAN)["spec"]
    assert spec["imagePullSecrets"] == [{"name": "a"}]
    assert spec["containers"][0]["image"] == "registry.example/engine@sha256:abc"
    assert spec["containers"][0]["imagePullPolicy"] == "Never"


@BOTH
def test_pods_have_no_key_to_the_api_server(role: str, build: Builder) -> None:
    spec = build(llama_cluster(), IMAGE, PLAN)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec


@BOTH
def test_the_agents_of_a_group_share_a_token_that_no_argument_or_variable_has(
    role: str, build: Builder
) -> None:
    spec = build(llama_cluster(), IMAGE, PLAN)["spec"]
    [volume] = [volume for volume in spec["volumes"] if "secret" in volume]
    assert volume["secret"] == {"secretName": "x-control", "defaultMode": 0o440}
    with_it = {
        container["name"]: mount
        for container in spec["containers"]
        for mount in container["volumeMounts"]
        if mount["name"] == volume["name"]
    }
    assert list(with_it) == [role]  # not the gate, which speaks with strangers
    assert with_it[role]["readOnly"] is True
    for container in spec["containers"]:
        assert "env" not in container
        for arg in container["args"]:
            assert "token" not in arg or arg == f"--control-token-file={TOKEN_FILE}"


TOKEN_FILE = f"{CONTROL_DIR}/token"


@settings(max_examples=40)
@given(cluster=clusters)
def test_all_containers_of_all_pods_are_restricted_and_limited(cluster: LlamaCluster) -> None:
    for spec in (
        leader_pod(cluster, IMAGE, PLAN)["spec"],
        worker_pod(cluster, IMAGE, PLAN)["spec"],
        plan_job(cluster, IMAGE)["spec"]["template"]["spec"],
    ):
        assert violations(spec) == []
        assert spec["automountServiceAccountToken"] is False
        assert "serviceAccountName" not in spec
        assert spec["securityContext"]["fsGroup"] == AGENT_UID
        assert spec["securityContext"]["runAsUser"] == AGENT_UID
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume]
        assert "initContainers" not in spec
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert to_bytes(container["resources"]["limits"]["memory"]) > 0
            writable = {
                mount["mountPath"]
                for mount in container["volumeMounts"]
                if not mount.get("readOnly")
            }
            assert writable <= {SCRATCH_DIR, MODEL_DIR, GATE_DIR}


@pytest.mark.parametrize(
    ("theirs", "keys"),
    [
        ([], LOST),
        ([{"key": "a", "operator": "Exists"}], LOST),
        ([{"key": LOST[0], "operator": "Exists", "effect": "NoSchedule"}], LOST),
        (
            [{"key": LOST[0], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
            LOST[1:],
        ),
        ([{"key": LOST[1], "operator": "Exists", "effect": "NoExecute"}], LOST[:1]),
        ([{"operator": "Exists"}], LOST),
    ],
)
def test_a_lost_node_is_tolerated_for_a_while_unless_the_user_says_otherwise(
    theirs: list[Manifest], keys: tuple[str, ...]
) -> None:
    cluster = llama_cluster(
        workers={"count": 1, "tolerations": theirs}, recovery={"lostNodeSeconds": 7}
    )
    tolerations = worker_pod(cluster, IMAGE, a_plan(3))["spec"]["tolerations"]
    assert tolerations[: len(theirs)] == theirs
    assert [(t["key"], t["tolerationSeconds"]) for t in tolerations[len(theirs) :]] == [
        (key, 7) for key in keys
    ]
