"""The Helm chart: what it renders, what it refuses, and how little it lets the operator do."""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamacluster.agent.contract.places import AGENT_PORT
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.cli import selftest
from llamacluster.controller import health
from llamacluster.resources.leaderpod import leader_pod
from llamacluster.resources.metadata import (
    CLUSTER_LABEL,
    LWS_GROUP_INDEX_LABEL,
    LWS_WORKER_INDEX_LABEL,
)
from tests import chartreadme, kubernetesschema
from tests.build import Manifest, a_plan, llama_cluster
from tests.kind.cluster import tool
from tests.kind.command import CommandFailed, run
from tests.kind.host import REPOSITORY
from tests.unit.resources.restricted import violations
from tests.unit.rights import IN_ALL_NAMESPACES, IN_NAMESPACES, OF_NODES, Rights

CHART = Path(__file__).parents[2] / "charts" / "llamacluster"
DIGEST = f"sha256:{'a' * 64}"


def render(**values: Any) -> list[Manifest]:
    """The objects of a release named `llamacluster` in the namespace `system`."""
    return [one for one in everything(**values) if not is_test(one)]


def everything(**values: Any) -> list[Manifest]:
    """The same with what `helm test` makes."""
    return [document for document in yaml.safe_load_all(_rendered(json.dumps(values))) if document]


def is_test(one: Manifest) -> bool:
    return bool(one["metadata"].get("annotations", {}).get("helm.sh/hook") == "test")


@cache
def _rendered(values: str) -> str:
    return run(
        [
            *(tool("helm"), "template", "llamacluster", str(CHART), "--namespace=system"),
            *("--kube-version=1.30", "--values=-"),
        ],
        stdin=values,
        timeout=60,
    )


def of_kind(objects: list[Manifest], kind: str) -> list[Manifest]:
    return [one for one in objects if one["kind"] == kind]


def the(objects: list[Manifest], kind: str, name: str = "llamacluster-operator") -> Manifest:
    [found] = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name]
    return found


def pod(objects: list[Manifest], name: str = "llamacluster-operator") -> Manifest:
    spec: Manifest = the(objects, "Deployment", name)["spec"]["template"]["spec"]
    return spec


def rules(role: Manifest) -> Rights:
    """Verbs by API group and resource."""
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def test_helm_has_nothing_to_complain_of() -> None:
    run([tool("helm"), "lint", "--strict", "--kube-version=1.30", str(CHART)], timeout=60)


EVERYTHING: Manifest = {
    "imagePullSecrets": [{"name": "a"}],
    "watchNamespaces": ["a"],
    "podDisruptionBudget": {"enabled": True},
    "networkPolicy": {
        "enabled": True,
        "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": 1}]}],
    },
    "commonLabels": {"a": "b"},
    "podLabels": {"a": "b"},
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "priorityClassName": "a",
}


@pytest.mark.parametrize("version", [kubernetesschema.OLDEST, kubernetesschema.NEWEST])
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["nothing asked for", "everything"])
def test_the_objects_are_kubernetes_own(values: Manifest, version: str) -> None:
    for one in everything(**values):
        if one["kind"] != "CustomResourceDefinition":
            assert kubernetesschema.knows(version, one), one["kind"]
            assert kubernetesschema.errors(version, one) == []


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    wrong = the(render(), "Deployment")
    wrong["spec"] |= {"replica": 1, "replicas": "2", "strategy": []}
    assert kubernetesschema.errors(kubernetesschema.OLDEST, wrong) == [
        "Deployment.spec.replicas: '2' is no numeric",
        "Deployment.spec.strategy: [] is of the wrong kind",
        "Deployment.spec.replica is unknown",
    ]


def test_the_default_release() -> None:
    objects = render()
    assert sorted({one["kind"] for one in objects}) == [
        *("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Deployment"),
        *("Role", "RoleBinding", "ServiceAccount"),
    ]
    [container] = pod(objects)["containers"]
    assert container["image"] == "ghcr.io/llamacluster/operator:0.1.0"
    assert "--engine-image=ghcr.io/llamacluster/engine:0.1.0" in container["args"]
    assert not [arg for arg in container["args"] if arg.startswith("--namespace")]


def test_the_operators_pod_passes_the_restricted_standard() -> None:
    spec = pod(render())
    assert violations(spec) == []
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_one_of_two_operators_works() -> None:
    objects = render()
    deployment = the(objects, "Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    [container] = pod(objects)["containers"]
    assert "--leader-elect=llamacluster-operator" in container["args"]


def test_the_operator_may_write_its_lease_and_no_other() -> None:
    objects = render(watchNamespaces=["system"])
    role = the(objects, "Role", "llamacluster-operator-lease")
    assert role["metadata"]["namespace"] == "system"
    lease: Manifest = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    assert role["rules"] == [
        {**lease, "verbs": ["create"]},
        {**lease, "resourceNames": ["llamacluster-operator"], "verbs": ["get", "update"]},
    ]
    binding = the(objects, "RoleBinding", "llamacluster-operator-lease")
    assert binding["roleRef"]["name"] == "llamacluster-operator-lease"
    assert binding["subjects"][0]["name"] == "llamacluster-operator"


def test_the_operator_may_do_exactly_this_in_all_namespaces() -> None:
    objects = render()
    assert rules(the(objects, "ClusterRole")) == IN_NAMESPACES | IN_ALL_NAMESPACES
    binding = the(objects, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == "llamacluster-operator"
    account = {"kind": "ServiceAccount", "name": "llamacluster-operator", "namespace": "system"}
    assert binding["subjects"] == [account]
    assert pod(objects)["serviceAccountName"] == "llamacluster-operator"


@pytest.mark.parametrize("namespaces", [[], ["a"]])
def test_the_operator_may_look_at_a_node(namespaces: list[str]) -> None:
    objects = render(watchNamespaces=namespaces)
    role = the(objects, "ClusterRole", "llamacluster-operator-system-nodes")
    assert rules(role) == OF_NODES
    binding = the(objects, "ClusterRoleBinding", "llamacluster-operator-system-nodes")
    assert binding["roleRef"]["name"] == "llamacluster-operator-system-nodes"
    assert binding["subjects"][0]["name"] == "llamacluster-operator"


def test_an_operator_of_some_namespaces_has_no_right_in_others() -> None:
    objects = render(watchNamespaces=["a", "b"])
    [binding] = of_kind(objects, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == "llamacluster-operator-system-nodes"
    assert [role["metadata"]["name"] for role in of_kind(objects, "ClusterRole")] == [
        "llamacluster-operator-system-nodes",
        "llamacluster-operator-system-view",
        "llamacluster-operator-system-edit",
    ]
    roles, bindings = (
        [one for one in of_kind(objects, kind) if one["metadata"]["namespace"] != "system"]
        for kind in ("Role", "RoleBinding")
    )
    assert [role["metadata"]["namespace"] for role in roles] == ["a", "b"]
    for role, binding in zip(roles, bindings, strict=True):
        assert rules(role) == IN_NAMESPACES
        assert binding["metadata"]["namespace"] == role["metadata"]["namespace"]
        assert binding["subjects"][0]["namespace"] == "system"
    args = pod(objects)["containers"][0]["args"]
    assert [arg for arg in args if arg.startswith("--namespace")] == [
        "--namespace=a",
        "--namespace=b",
    ]


@pytest.mark.parametrize("namespaces", [[], ["a"]])
def test_no_role_has_a_wildcard_or_reads_secrets(namespaces: list[str]) -> None:
    objects = everything(watchNamespaces=namespaces)
    for role in of_kind(objects, "ClusterRole") + of_kind(objects, "Role"):
        for (group, resource), verbs in rules(role).items():
            assert "*" not in {group, resource, *verbs}
            assert resource != "secrets" or verbs <= {"create", "patch"}


def test_the_security_page_lists_these_rights_and_no_others() -> None:
    text = (REPOSITORY / "docs" / "security.md").read_text()
    section = re.search(r"\n## Operator\n.*?(?=\n## )", text, re.DOTALL)
    assert section
    rows = re.findall(r"^\| ([\w/]+) \| ([a-z, ]+) \| .+ \|$", section[0], re.MULTILINE)
    listed = {resource: set(verbs.split(", ")) for resource, verbs in rows}
    del listed["objects"]
    objects = render()
    allowed = rules(the(objects, "ClusterRole")) | rules(
        the(objects, "ClusterRole", "llamacluster-operator-system-nodes")
    )
    allowed["coordination.k8s.io", "leases"] = {"get", "create", "update"}
    assert listed == {resource: verbs for (_, resource), verbs in allowed.items()}


def test_the_operator_listens_for_its_probes_alone() -> None:
    [container] = pod(render())["containers"]
    assert "--health=0.0.0.0:8081" in container["args"]
    paths = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness")}
    assert paths == {health.LIVE, health.READY}
    assert container["ports"] == [{"name": "health", "containerPort": 8081}]
    assert not of_kind(render(), "Service")


LET_IN: Manifest = {"ingress": [{"from": [{"namespaceSelector": {}}]}]}
MONITORING = {
    "podMonitors": {"enabled": True, "labels": {"release": "p"}},
    "alerts": {"enabled": True, "labels": {"release": "p"}},
    "dashboards": {"enabled": True},
}


def test_metrics_are_served_when_asked_for() -> None:
    [container] = pod(render(metrics={"enabled": True, "port": 9000}))["containers"]
    assert "--metrics=0.0.0.0:9000" in container["args"]
    assert {"name": "metrics", "containerPort": 9000} in container["ports"]


def test_metrics_are_closed_to_all_but_those_who_are_let_in() -> None:
    objects = render(metrics={"enabled": True})
    policy = the(objects, "NetworkPolicy")["spec"]
    assert policy["podSelector"] == the(objects, "Deployment")["spec"]["selector"]
    assert policy["ingress"] == []
    opened = render(metrics={"enabled": True}, networkPolicy={"ingress": [{}]})
    assert the(opened, "NetworkPolicy")["spec"]["ingress"] == [{}]


def test_what_prometheus_and_grafana_read_comes_when_asked_for() -> None:
    objects = render(metrics={"enabled": True}, networkPolicy=LET_IN, monitoring=MONITORING)
    for kind in ("PodMonitor", "PrometheusRule"):
        for one in of_kind(objects, kind):
            assert one["metadata"]["labels"]["release"] == "p"
    own = the(objects, "PodMonitor")["spec"]
    assert (
        own["selector"]["matchLabels"]
        == the(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    )
    assert own["podMetricsEndpoints"][0]["port"] == "metrics"
    groups = the(objects, "PodMonitor", "llamacluster-operator-groups")["spec"]
    assert groups["namespaceSelector"] == {"any": True}
    keys = {row["key"] for row in groups["selector"]["matchExpressions"]}
    assert keys == {CLUSTER_LABEL, LWS_WORKER_INDEX_LABEL}
    index = LWS_GROUP_INDEX_LABEL.translate(str.maketrans("./-", "___"))
    sources = [row["sourceLabels"] for row in groups["podMetricsEndpoints"][0]["relabelings"]]
    assert [f"__meta_kubernetes_pod_label_{index}"] in sources
    boards = the(objects, "ConfigMap", "llamacluster-operator-dashboards")
    assert boards["metadata"]["labels"]["grafana_dashboard"] == "1"
    for file in (CHART / "dashboards").glob("*.json"):
        assert json.loads(boards["data"][file.name]) == json.loads(file.read_text())


def test_one_releases_operator_does_not_hide_that_anothers_is_down() -> None:
    rules_file = yaml.safe_load((CHART / "alerts" / "llamacluster.yaml").read_text())
    alerts = {"enabled": True}
    served: Manifest = {"metrics": {"enabled": True}, "networkPolicy": LET_IN}
    alone = render(**served, monitoring={"alerts": alerts})
    assert the(alone, "PrometheusRule")["spec"] == rules_file
    scraped = render(**served, monitoring={"alerts": alerts, "podMonitors": {"enabled": True}})
    [down] = (rule for rule in rules_file["groups"][0]["rules"] if "leading" in rule["expr"])
    down["expr"] = 'absent(llamacluster_operator_leading{namespace="system"} == 1)'
    assert the(scraped, "PrometheusRule")["spec"] == rules_file


@pytest.mark.parametrize("encryption", [False, True])
def test_the_leader_has_the_port_that_is_scraped(encryption: bool) -> None:
    objects = render(monitoring={"podMonitors": {"enabled": True}})
    monitor = the(objects, "PodMonitor", "llamacluster-operator-groups")["spec"]
    # Not portNumber: what is older than Prometheus' operator 0.79, or another's, ignores it.
    name = monitor["podMetricsEndpoints"][0]["port"]
    leader = leader_pod(llama_cluster(rpc={"encryption": encryption}), "image", a_plan())["spec"]
    ports = [port for container in leader["containers"] for port in container.get("ports", [])]
    assert {"name": name, "containerPort": AGENT_PORT} in ports
    assert [port["name"] for port in ports].count(name) == 1


def test_runbooks_are_links_where_the_repository_can_be_read() -> None:
    prefix = "https://git.example/llamacluster/blob/main/"
    alerts = {"enabled": True, "runbookUrlPrefix": prefix}
    objects = render(metrics={"enabled": True}, networkPolicy=LET_IN, monitoring={"alerts": alerts})
    for rule in the(objects, "PrometheusRule")["spec"]["groups"][0]["rules"]:
        url = f"{prefix}docs/runbooks/{rule['alert']}.md"
        assert rule["annotations"]["runbook_url"] == url


def test_an_operator_without_metrics_is_not_scraped() -> None:
    objects = render(monitoring={"podMonitors": {"enabled": True}}, watchNamespaces=["a"])
    [groups] = of_kind(objects, "PodMonitor")
    assert groups["spec"]["namespaceSelector"] == {"matchNames": ["a"]}


def test_people_who_may_edit_a_namespace_may_edit_its_clusters_but_not_their_status() -> None:
    objects = render()
    view = the(objects, "ClusterRole", "llamacluster-operator-system-view")
    edit = the(objects, "ClusterRole", "llamacluster-operator-system-edit")
    assert all(verbs == {"get", "list", "watch"} for verbs in rules(view).values())
    assert ("llamacluster.dev", "llamaclusters/status") not in rules(edit)
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in edit["metadata"]["labels"]


def test_the_operator_knows_by_what_policies_know_its_pods() -> None:
    objects = render(podLabels={"team": "a"})
    [container] = pod(objects)["containers"]
    [given] = [arg for arg in container["args"] if arg.startswith("--own-labels=")]
    own = dict(pair.split("=") for pair in given.removeprefix("--own-labels=").split(","))
    assert own == the(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    env = {variable["name"]: variable["valueFrom"] for variable in container["env"]}
    assert env["POD_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}


def test_images_by_digest() -> None:
    objects = render(
        operatorImage={"repository": "registry.example/o", "tag": "2", "digest": DIGEST},
        engineImage={"repository": "registry.example/e", "digest": DIGEST},
    )
    [container] = pod(objects)["containers"]
    assert container["image"] == f"registry.example/o@{DIGEST}"
    assert f"--engine-image=registry.example/e@{DIGEST}" in container["args"]


def test_pull_secrets_and_scheduling() -> None:
    values: Manifest = {
        "imagePullSecrets": [{"name": "a"}],
        "nodeSelector": {"role": "system"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
    }
    spec = pod(render(**values))
    assert {key: spec[key] for key in values} == values


def test_labels_for_the_pod_cannot_replace_those_that_select_it() -> None:
    objects = render(podLabels={"app.kubernetes.io/name": "mine", "team": "a"})
    deployment = the(objects, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert labels["team"] == "a"
    assert deployment["selector"]["matchLabels"].items() <= labels.items()


def test_labels_for_all_objects_are_on_all_but_the_crd() -> None:
    labels = {"team": "a", "app.kubernetes.io/name": "mine"}
    values = {"podDisruptionBudget": {"enabled": True}, "networkPolicy": {"enabled": True}}
    objects = everything(commonLabels=labels, **values)
    for one in objects:
        if one["kind"] != "CustomResourceDefinition":
            ours = "llamacluster-test" if one["kind"] == "Pod" else "llamacluster-operator"
            assert one["metadata"]["labels"]["team"] == "a"
            assert one["metadata"]["labels"]["app.kubernetes.io/name"] == ours
    assert the(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]["team"] == "a"


def test_a_budget_and_a_policy_for_the_operators_pods_when_asked_for() -> None:
    rule = {"from": [{"namespaceSelector": {}}], "ports": [{"port": 8080}]}
    objects = render(
        podDisruptionBudget={"enabled": True}, networkPolicy={"enabled": True, "ingress": [rule]}
    )
    selected = the(objects, "Deployment")["spec"]["selector"]
    budget = the(objects, "PodDisruptionBudget")["spec"]
    assert budget == {"maxUnavailable": 1, "selector": selected}
    policy = the(objects, "NetworkPolicy")["spec"]
    assert policy["podSelector"] == selected
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"] == [rule]


def test_pods_are_spread_by_their_own_number_unless_told_otherwise() -> None:
    spread: Manifest = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
    }
    other = {"labelSelector": {"matchLabels": {"a": "b"}}}
    objects = render(topologySpreadConstraints=[spread, {**spread, **other}])
    ours = {"labelSelector": the(objects, "Deployment")["spec"]["selector"]}
    assert pod(objects)["topologySpreadConstraints"] == [{**spread, **ours}, {**spread, **other}]


@pytest.mark.parametrize(("namespaces", "where"), [([], "system"), (["a", "b"], "a")])
def test_helm_test_serves_a_token_where_the_operator_sees_it(
    namespaces: list[str], where: str
) -> None:
    secrets = [{"name": "a"}, {"name": "b"}]
    values = {"watchNamespaces": namespaces, "imagePullSecrets": secrets}
    objects = [one for one in everything(**values) if is_test(one)]
    assert {one["kind"] for one in objects} == {"Pod", "ServiceAccount", "Role", "RoleBinding"}
    assert {one["metadata"]["namespace"] for one in objects} == {where}
    name = "llamacluster-operator-test"
    tester = the(objects, "Pod", name)
    assert violations(tester["spec"]) == []
    [container] = tester["spec"]["containers"]
    assert container["args"][:2] == ["test", f"--namespace={where}"]
    # The tester's image and the engine's come from one registry.
    assert tester["spec"]["imagePullSecrets"] == secrets
    assert container["args"][3:] == ["--pull-secret=a", "--pull-secret=b", "--seconds=280"]
    model = container["args"][2].removeprefix("--model=")
    LlamaCluster.model_validate(selftest.manifest("name", "namespace", model, ["a", "b"]))
    assert rules(the(objects, "Role", name)) == {
        ("llamacluster.dev", "llamaclusters"): {"create", "get", "delete"}
    }
    # Policies must not take it for the operator.
    selected = the(render(), "Deployment")["spec"]["selector"]["matchLabels"]
    assert not selected.items() <= tester["metadata"]["labels"].items()


def test_the_notes_say_how_to_have_leaderworkerset_where_it_is_missing(tmp_path: Path) -> None:
    # Helm shows notes to who has a cluster: here they are an object's.
    chart = shutil.copytree(CHART, tmp_path / "chart")
    (chart / "templates" / "NOTES.txt").rename(chart / "notes")
    notes = '{kind: ConfigMap, data: {text: {{ tpl (.Files.Get "notes") . | quote }}}}'
    (chart / "templates" / "notes.yaml").write_text(notes)
    shown = [
        *(tool("helm"), "template", "llamacluster", str(chart), "--kube-version=1.30"),
        "--show-only=templates/notes.yaml",
    ]
    without, having = (
        yaml.safe_load(run([*shown, *options], timeout=60))["data"]["text"]
        for options in ([], ["--api-versions=leaderworkerset.x-k8s.io/v1"])
    )
    [install] = [line.strip() for line in without.splitlines() if "helm install lws" in line]
    assert f"`{install}`" in (REPOSITORY / "docs" / "install.md").read_text()
    assert "lws" not in having
    assert "rollout status deployment/llamacluster-operator" in having


def test_the_readme_has_the_values_as_they_are() -> None:
    assert (CHART / "README.md").read_text() == chartreadme.text(), "run `make generate`"


def test_a_value_without_a_comment_cannot_be_listed() -> None:
    with pytest.raises(ValueError, match=r"a\.b has no comment"):
        chartreadme.rows("a:\n  b: 1\n")


@pytest.mark.parametrize(
    ("crds", "there", "kept"),
    [
        ({}, True, True),
        ({"keep": False}, True, False),
        ({"install": False}, False, False),
    ],
)
def test_the_crd_comes_with_the_chart_and_stays_unless_told(
    crds: dict[str, bool], there: bool, kept: bool
) -> None:
    found = of_kind(render(crds=crds), "CustomResourceDefinition")
    assert bool(found) is there
    policies = [
        one["metadata"].get("annotations", {}).get("helm.sh/resource-policy") for one in found
    ]
    assert (policies == ["keep"]) is kept


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replicaCount": 3}, "replicaCount"),
        ({"operatorImage": {"repositry": "x"}}, "repositry"),
        ({"operatorImage": {"repository": ""}}, "repository"),
        ({"operatorImage": {"repository": "registry/operator:1.0"}}, "repository"),
        ({"engineImage": {"repository": f"engine@{DIGEST}"}}, "repository"),
        ({"operatorImage": {"tag": 1.0}}, "tag"),
        ({"engineImage": {"digest": "sha256:abc"}}, "digest"),
        ({"imagePullPolicy": "Sometimes"}, "imagePullPolicy"),
        ({"imagePullSecrets": ["a"]}, "imagePullSecrets"),
        ({"logLevel": "verbose"}, "logLevel"),
        ({"crds": {"keep": "yes"}}, "keep"),
        ({"watchNamespaces": "a"}, "watchNamespaces"),
        ({"watchNamespaces": ["a", "a"]}, "watchNamespaces"),
        ({"watchNamespaces": ["A"]}, "watchNamespaces"),
        ({"replicas": "2"}, "replicas"),
        ({"resources": {"limit": {}}}, "limit"),
        ({"resources": {"limits": {"memroy": "1Gi"}}}, "memroy"),
        ({"resources": {"limits": {"memory": "lots"}}}, "memory"),
        ({"resources": {"requests": {"cpu": -1}}}, "cpu"),
        ({"podDisruptionBudget": {"enable": True}}, "enable"),
        ({"networkPolicy": {"ingress": [{"form": []}]}}, "form"),
        ({"commonLabels": {"a": 1}}, "commonLabels"),
        ({"tolerations": [{"effects": "NoSchedule"}]}, "effects"),
        ({"affinity": {"podAffinities": {}}}, "podAffinities"),
        ({"topologySpreadConstraints": [{"maxSkew": 1}]}, "topologyKey"),
        ({"test": {"model": {"url": "x"}}}, "url"),
        ({"test": {"model": {"uri": "htp://x"}}}, "uri"),
        ({"test": {"seconds": 0}}, "seconds"),
        ({"metrics": {"port": 8081}}, "port"),
        ({"monitoring": {"alerts": {"enable": True}}}, "enable"),
        ({"monitoring": {"alerts": {"runbookUrlPrefix": "https://x"}}}, "runbookUrlPrefix"),
        ({"monitoring": {"alerts": {"enabled": True}}}, "metrics.enabled"),
        (
            {"metrics": {"enabled": True}, "monitoring": {"alerts": {"enabled": True}}},
            "networkPolicy.ingress",
        ),
        (
            {"metrics": {"enabled": True}, "monitoring": {"podMonitors": {"enabled": True}}},
            "networkPolicy.ingress",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: Manifest, message: str) -> None:
    with pytest.raises(CommandFailed, match=message):
        render(**values)


def test_a_section_that_is_left_empty_is_named() -> None:
    # In a values file `metrics:` with nothing below it takes the chart's own away.
    sections = [
        *("operatorImage", "engineImage", "crds", "watchNamespaces", "podDisruptionBudget"),
        *("networkPolicy", "metrics", "monitoring", "commonLabels", "podLabels", "test"),
    ]
    with pytest.raises(CommandFailed, match="missing properties") as refused:
        render(**dict.fromkeys(sections))
    for section in sections:
        assert f"'{section}'" in str(refused.value)


def test_what_is_unusual_but_right_is_taken() -> None:
    resources = {
        "requests": {"cpu": 0.5, "memory": "9Mi", "hugepages-2Mi": "4Mi"},
        "limits": {"memory": "1e9", "hugepages-2Mi": "4Mi", "ephemeral-storage": 1000000},
    }
    image = {"repository": "registry:5000/operator"}
    [container] = pod(render(operatorImage=image, resources=resources))["containers"]
    assert container["image"] == "registry:5000/operator:0.1.0"
    assert container["resources"] == resources


def test_a_release_of_another_name_has_objects_of_another_name() -> None:
    text = run([tool("helm"), "template", "mine", str(CHART), "--kube-version=1.30"], timeout=60)
    names = {one["metadata"]["name"] for one in yaml.safe_load_all(text) if one}
    assert names == {
        "llamaclusters.llamacluster.dev",
        *(
            f"mine-llamacluster-operator{suffix}"
            for suffix in (
                "",
                "-lease",
                "-default-nodes",
                "-default-view",
                "-default-edit",
                "-test",
            )
        ),
    }


@pytest.mark.parametrize("name", ["2024", "1e3"])
def test_a_name_may_look_like_a_number(name: str) -> None:
    values = {**EVERYTHING, "watchNamespaces": [name], "priorityClassName": name}
    text = run(
        [
            *(tool("helm"), "template", name, str(CHART), f"--namespace={name}"),
            *("--kube-version=1.30", "--values=-"),
        ],
        stdin=json.dumps(values),
        timeout=60,
    )
    objects = [one for one in yaml.safe_load_all(text) if one]
    for one in objects:
        if one["kind"] != "CustomResourceDefinition":
            assert kubernetesschema.errors(kubernetesschema.NEWEST, one) == []
            assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == name
    args = pod(objects, f"{name}-llamacluster-operator")["containers"][0]["args"]
    own = f"app.kubernetes.io/name=llamacluster-operator,app.kubernetes.io/instance={name}"
    assert f"--own-labels={own}" in args


def test_releases_for_one_namespace_each_have_no_object_in_common() -> None:
    releases = []
    for where in ("a", "b"):
        text = run(
            [
                *(tool("helm"), "template", "llamacluster", str(CHART), f"--namespace={where}"),
                *("--kube-version=1.30", f"--set=watchNamespaces={{{where}}}"),
                f"--set=crds.install={'true' if where == 'a' else 'false'}",
            ],
            timeout=60,
        )
        objects = [one for one in yaml.safe_load_all(text) if one]
        releases.append(
            {
                (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
                for one in objects
            }
        )
    assert not releases[0] & releases[1]
