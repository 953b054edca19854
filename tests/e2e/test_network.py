"""NetworkPolicies, proved with packets: who is let in and who is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from llamacluster.agent.contract.places import AGENT_PORT, ENGINE_PORT, RPC_PORT
from tests.e2e.conftest import NewNamespace
from tests.e2e.live import Json, Live, eventually, tiny
from tests.kind import docker
from tests.kind.images import BuiltImages
from tests.kind.product import SYSTEM_NAMESPACE

pytestmark = pytest.mark.e2e

API_PORT = 8080
CONNECT = """
import json, socket
def passes(address):
    try:
        socket.create_connection(tuple(address), 3).close()
    except OSError:
        return False
    return True
print(json.dumps([passes(address) for address in {addresses}]))
"""
ASK = """
import json, urllib.error, urllib.request
def asked(method, path):
    body = b"{{}}" if method == "POST" else None
    request = urllib.request.Request({base!r} + path, body, method=method)
    try:
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code
print(json.dumps([asked(*line.split()) for line in {asked}]))
"""
Address = tuple[str, int]


@pytest.fixture(scope="module")
def groups(published: Live) -> Live:
    """Two groups of a leader and a worker."""
    workers = {**tiny()["spec"]["workers"], "count": 1}
    published.apply(tiny(replicas=2, workers=workers))
    published.wait_until_ready()
    return published


@pytest.fixture(scope="module")
def abroad(new_namespace: NewNamespace) -> Iterator[Live]:
    """Another namespace, with a pod that has Python."""
    with new_namespace() as live:
        yield live


def address(live: Live, pod: str) -> str:
    found: str = live.read("pod", pod)["status"]["podIP"]
    return found


def passing(live: Live, pod: str, *addresses: Address) -> list[bool]:
    """To which of these a connection from the pod comes about."""
    found: list[bool] = json.loads(live.python(pod, CONNECT.format(addresses=list(addresses))))
    return found


def passing_from_node(node: str, target: Address) -> bool:
    """The same from a node itself, as a process outside of all pods."""
    host, port = target
    told = docker.need_running().docker(
        *("exec", node, "bash", "-c"),
        f"timeout 3 bash -c '</dev/tcp/{host}/{port}' 2>/dev/null && echo passes || echo refused",
    )
    return told.strip() == "passes"


def own_ports(live: Live) -> list[Address]:
    """What is closed to all but the group: of the first leader and of its worker."""
    leader, worker = address(live, "tiny-group-0"), address(live, "tiny-group-0-1")
    return [
        (worker, AGENT_PORT),
        (worker, RPC_PORT),
        (leader, AGENT_PORT),
        (leader, ENGINE_PORT),
    ]


def impostor(live: Live, name: str, labels: dict[str, str], image: str) -> str:
    """A pod of a person, with labels of the person's choice."""
    manifest: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "python",
                    "image": image,
                    "command": ["python3", "-c", "import time; time.sleep(3600)"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }
    live.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    live.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
    return name


def leader_labels(cluster: str, group: int = 0) -> dict[str, str]:
    return {
        "llamacluster.dev/cluster": cluster,
        "app.kubernetes.io/component": "leader",
        "leaderworkerset.sigs.k8s.io/group-index": str(group),
        "leaderworkerset.sigs.k8s.io/worker-index": "0",
    }


def test_a_pod_of_the_namespace_reaches_the_api_alone(groups: Live) -> None:
    api = (address(groups, "tiny-group-0"), API_PORT)
    assert passing(groups, "deployment/tiny-model", api) == [True]
    assert passing(groups, "deployment/tiny-model", *own_ports(groups)) == [False] * 4


def test_a_pod_of_another_namespace_reaches_nothing(groups: Live, abroad: Live) -> None:
    api = (address(groups, "tiny-group-0"), API_PORT)
    assert passing(abroad, "deployment/tiny-model", api, *own_ports(groups)) == [False] * 5


def test_a_leader_reaches_its_own_worker_and_no_others(groups: Live) -> None:
    own, other = (
        [(address(groups, f"tiny-group-{group}-1"), port) for port in (AGENT_PORT, RPC_PORT)]
        for group in (1, 0)
    )
    # Not the RPC port of the own worker: that is Ready, so its leader has reached it.
    found = passing(groups, "tiny-group-1", own[0], *other)
    assert found == [True, False, False]
    assert passing(groups, "tiny-group-1", *own_ports(groups)[2:]) == [False, False]


def test_a_leader_of_another_llamacluster_reaches_no_worker(
    groups: Live, images: BuiltImages
) -> None:
    pod = impostor(groups, "other", leader_labels("other"), images.engine)
    assert passing(groups, pod, *own_ports(groups)) == [False] * 4


def test_a_node_reaches_only_the_pods_on_it(groups: Live) -> None:
    """The kubelet has to: it asks the agents whether they are ready."""
    pod = groups.read("pod", "tiny-group-0-1")
    agent, home = (pod["status"]["podIP"], AGENT_PORT), pod["spec"]["nodeName"]
    others = [node for node in groups.cluster.worker_nodes() if node != home]
    assert [passing_from_node(node, agent) for node in others] == [False] * len(others)
    assert passing_from_node(home, agent)
    leader = groups.read("pod", "tiny-group-0")
    api, home = (leader["status"]["podIP"], API_PORT), leader["spec"]["nodeName"]
    others = [node for node in groups.cluster.worker_nodes() if node != home]
    assert [passing_from_node(node, api) for node in others] == [False] * len(others)


def test_nothing_goes_out_of_a_worker(groups: Live) -> None:
    model = groups.read("service", "tiny-model")["spec"]["clusterIP"]
    dns = groups.cluster.kubectl(
        *("get", "service", "kube-dns", "-n", "kube-system", "-o", "jsonpath={.spec.clusterIP}"),
    )
    leader = (address(groups, "tiny-group-0"), API_PORT)
    targets = [(model, 80), (dns, 53), leader]
    assert passing(groups, "deployment/tiny-model", *targets) == [True] * 3
    assert passing(groups, "tiny-group-0-1", *targets) == [False] * 3


def test_a_leader_whose_model_is_on_a_volume_reaches_only_workers_and_the_dns(
    groups: Live, images: BuiltImages
) -> None:
    offline = Live(groups.cluster, groups.namespace, "offline")
    offline.apply(tiny(model={"uri": "file:///none.gguf"}))
    eventually(
        lambda: "offline-leader" in groups.kubectl("get", "networkpolicy", "-o", "name"),
        "it has policies",
    )
    pod = impostor(groups, "offline-leader", leader_labels("offline"), images.engine)
    model = (groups.read("service", "tiny-model")["spec"]["clusterIP"], 80)
    api = (address(groups, "tiny-group-0"), API_PORT)
    try:
        # A pod that the network does not know yet may send to everybody.
        eventually(lambda: passing(groups, pod, model, api) == [False, False], "it is held back")
        assert passing(groups, pod, ("kube-dns.kube-system.svc.cluster.local", 53)) == [True]
    finally:
        groups.kubectl("delete", "llc/offline", "pod/offline-leader", "--wait=false")


def test_others_come_in_when_the_spec_says_so_and_no_pod_restarts(
    groups: Live, abroad: Live
) -> None:
    before = groups.pods()
    api = (address(groups, "tiny-group-0"), API_PORT)
    agent = (address(groups, "tiny-group-0"), AGENT_PORT)
    there = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": abroad.namespace}}
    }
    groups.patch({"networkPolicy": {"from": [there], "monitoring": [there]}})

    def from_abroad() -> list[bool]:
        return passing(abroad, "deployment/tiny-model", api, agent)

    eventually(lambda: from_abroad() == [True, True], "it is let in")
    assert passing(groups, "deployment/tiny-model", api) == [False]
    assert passing(abroad, "deployment/tiny-model", *own_ports(groups)[:2]) == [False, False]
    groups.patch({"networkPolicy": {"from": None, "monitoring": None}})
    eventually(lambda: from_abroad() == [False, False], "it is shut out again")
    after = groups.pods()
    assert [p["metadata"]["uid"] for p in after.values()] == [
        p["metadata"]["uid"] for p in before.values()
    ]


def test_a_worker_takes_orders_only_with_the_groups_token(groups: Live) -> None:
    worker = f"http://{address(groups, 'tiny-group-0-1')}:{AGENT_PORT}"
    asked = {"GET /livez": 200, "GET /readyz": 200, "GET /status": 401, "POST /attach": 401}
    # From the one pod that gets so far.
    told = groups.python("tiny-group-0", ASK.format(base=worker, asked=list(asked)))
    assert dict(zip(asked, json.loads(told), strict=True)) == asked


def test_a_deleted_token_is_made_again_and_the_group_heals(groups: Live) -> None:
    before, formed = groups.pods(), groups.leader_status(1)["formations"]
    secret = groups.read("secret", "tiny-control")
    groups.kubectl("delete", "secret", "tiny-control")
    groups.kubectl("delete", "pod", "tiny-group-0-1")

    def made_again() -> bool:
        found = groups.kubectl("get", "secret", "tiny-control", "--ignore-not-found", "-o", "name")
        return bool(found)

    eventually(made_again, "there is a token again")
    assert groups.read("secret", "tiny-control")["data"] != secret["data"]

    def serves_with_the_new_worker() -> bool:
        after = groups.pods().get("tiny-group-0-1")
        new = after and after["metadata"]["uid"] != before["tiny-group-0-1"]["metadata"]["uid"]
        return bool(new and groups.condition("Ready").get("status") == "True")

    eventually(serves_with_the_new_worker, "the group is Ready with a new worker")
    # Whose pods all stay has not noticed.
    assert groups.leader_status(1)["formations"] == formed
    everything = groups.kubectl("get", "llc,lws,pods,events", "-o", "yaml")
    logs = groups.kubectl("logs", "-l", groups.selector, "--all-containers", "--tail=-1")
    token = base64.b64decode(groups.read("secret", "tiny-control")["data"]["token"]).decode()
    assert len(token) >= 43
    assert token not in everything + logs


def test_the_status_says_whether_the_network_enforces_policies(groups: Live) -> None:
    groups.wait_for("Isolated", "True", "PoliciesEnforced")
    opened = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "hole"},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/component": "worker"}},
            "ingress": [
                {
                    "from": [
                        {
                            "namespaceSelector": {
                                "matchLabels": {"kubernetes.io/metadata.name": SYSTEM_NAMESPACE}
                            }
                        }
                    ]
                }
            ],
        },
    }
    groups.kubectl("apply", "-f", "-", stdin=json.dumps(opened))

    def looked_again(reason: str) -> bool:
        # An event of a part of the LlamaCluster has the operator look.
        groups.kubectl("label", "--overwrite", "service", "tiny", f"test/look={reason.lower()}")
        groups.kubectl("label", "service", "tiny", "test/look-")
        return bool(groups.condition("Isolated").get("reason") == reason)

    eventually(lambda: looked_again("PoliciesNotEnforced"), "the hole is found")
    assert "answered the operator" in groups.condition("Isolated")["message"]
    groups.kubectl("delete", "networkpolicy", "hole")
    eventually(lambda: looked_again("PoliciesEnforced"), "it is closed again")
    events = groups.read("events", "--field-selector=reason=PoliciesNotEnforced")["items"]
    assert [event["type"] for event in events] == ["Warning"]
