"""The faults that the other tests rely on do what their names say, and heal."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.kind import docker, faults, host
from tests.kind.cluster import Cluster
from tests.kind.command import CommandFailed
from tests.kind.images import build_engine

pytestmark = pytest.mark.cluster

NAMESPACE = "test-faults"

# Answers HTTP with the datagrams that it got so far.
LISTENER = """
import http.server, socket, threading
got = []
def listen():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 9000))
    while True: got.append(s.recv(100).decode())
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(" ".join(got).encode())
    def log_message(self, *args): pass
threading.Thread(target=listen, daemon=True).start()
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
GET = """
import sys, urllib.request
print(urllib.request.urlopen(f"http://{sys.argv[1]}:8000/", timeout=2).read().decode())
"""
CONNECT = """
import socket, sys
with socket.socket() as s:
    s.settimeout(5)
    print(s.connect_ex((sys.argv[1], 80)))
"""
SEND = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(sys.argv[2].encode(), (sys.argv[1], 9000))
"""


@dataclass(frozen=True)
class Peer:
    """A pod on a node of its own that answers, and that can ask others."""

    cluster: Cluster
    pod: str
    node: str
    ip: str

    def python(self, program: str, *args: str) -> str:
        return self.cluster.kubectl(
            "-n", NAMESPACE, "exec", self.pod, "--", "python3", "-c", program, *args, timeout=30
        )

    def reaches(self, other: Peer) -> bool:
        try:
            self.python(GET, other.ip)
        except CommandFailed:
            return False
        return True

    def got(self, message: str) -> bool:
        return message in self.python(GET, "127.0.0.1").split()


@pytest.fixture(scope="module")
def peers(kind_cluster: Cluster) -> Iterator[list[Peer]]:
    """One pod on each worker node, all of which reach each other."""
    image = build_engine(docker.need_running(), host.REPOSITORY)
    kind_cluster.load(image)
    nodes = kind_cluster.worker_nodes()
    kubectl = kind_cluster.kubectl
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait")
    kubectl("create", "namespace", NAMESPACE)
    try:
        kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=json.dumps(_pods(nodes, image)))
        kubectl("-n", NAMESPACE, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=120s")
        found = [
            Peer(
                kind_cluster,
                pod := f"peer-{number}",
                node,
                kubectl("-n", NAMESPACE, "get", "pod", pod, "-o", "jsonpath={.status.podIP}"),
            )
            for number, node in enumerate(nodes)
        ]
        for peer in found:
            for other in found:
                faults.wait_until("all peers reach each other", reach(peer, other), 30)
        yield found
    finally:
        for node in nodes:
            faults.heal(node)
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _pods(nodes: list[str], image: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"peer-{number}", "labels": {"peer": str(number)}},
                "spec": {
                    "nodeName": node,
                    "terminationGracePeriodSeconds": 0,
                    # A node that is down for a minute keeps its pod.
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [
                        {
                            "name": "peer",
                            "image": image,
                            "command": ["python3", "-c", LISTENER],
                            "readinessProbe": {
                                "httpGet": {"path": "/", "port": 8000},
                                "periodSeconds": 1,
                            },
                        }
                    ],
                },
            }
            for number, node in enumerate(nodes)
        ],
    }


def reach(peer: Peer, other: Peer) -> Callable[[], bool]:
    return lambda: peer.reaches(other)


def no_reach(peer: Peer, other: Peer) -> Callable[[], bool]:
    return lambda: not peer.reaches(other)


def test_a_network_policy_is_enforced(peers: list[Peer]) -> None:
    server, client, _ = peers
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "namespace": NAMESPACE},
        "spec": {"podSelector": {"matchLabels": {"peer": "0"}}, "policyTypes": ["Ingress"]},
    }
    kubectl = server.cluster.kubectl

    kubectl("apply", "-f", "-", stdin=json.dumps(policy))
    faults.wait_until("the policy is in force", no_reach(client, server), 30)
    assert server.reaches(client), "a policy on one pod closed another"

    kubectl("-n", NAMESPACE, "delete", "networkpolicy", "closed")
    faults.wait_until("the policy is gone", reach(client, server), 30)


def test_nobody_answers_for_a_service_without_endpoints(peers: list[Peer]) -> None:
    """Its packets must not leave the machine, where somebody else might answer."""
    client = peers[0]
    kubectl = client.cluster.kubectl
    kubectl("-n", NAMESPACE, "create", "service", "clusterip", "nobody", "--tcp=80")
    address = kubectl("-n", NAMESPACE, "get", "svc", "nobody", "-o", "jsonpath={.spec.clusterIP}")
    refused = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH}
    assert int(client.python(CONNECT, address)) in refused


def test_a_cut_pair_cannot_talk_and_heals(peers: list[Peer]) -> None:
    one, other, third = peers

    faults.cut_pair(one.node, other.node)
    try:
        assert not one.reaches(other)
        assert not other.reaches(one)
        assert one.reaches(third)
        assert third.reaches(other)
    finally:
        faults.heal(one.node)

    assert one.reaches(other)
    assert other.reaches(one)


def test_a_cut_in_one_direction_lets_the_other_through(peers: list[Peer]) -> None:
    one, other, _ = peers

    faults.cut_pair(one.node, other.node, direction="one")
    try:
        one.python(SEND, other.ip, "lost")
        other.python(SEND, one.ip, "through")
        faults.wait_until("the way back is open", lambda: one.got("through"), 10)
        assert not other.got("lost")
    finally:
        faults.heal(one.node)

    one.python(SEND, other.ip, "healed")
    faults.wait_until("the way is open again", lambda: other.got("healed"), 10)


def test_a_killed_process_is_restarted_by_the_kubelet(peers: list[Peer]) -> None:
    peer = peers[0]
    before = faults.find_container(peer.cluster, NAMESPACE, peer.pod)
    assert before.node == peer.node

    faults.kill_process(before.node, before.container_id)

    def restarted() -> bool:
        try:
            now = faults.find_container(peer.cluster, NAMESPACE, peer.pod, "peer")
        except LookupError:
            return False  # between two lives
        return now.restarts == before.restarts + 1 and now.container_id != before.container_id

    faults.wait_until("the container is restarted", restarted, 60)
    faults.wait_until("it answers again", reach(peers[1], peer), 30)


def test_a_frozen_process_answers_nobody_until_it_is_thawed(peers: list[Peer]) -> None:
    peer, client, _ = peers
    container = faults.find_container(peer.cluster, NAMESPACE, peer.pod)

    faults.freeze_process(container.node, container.container_id)
    try:
        assert not client.reaches(peer)
    finally:
        faults.thaw_process(container.node, container.container_id)

    faults.wait_until("it answers again", reach(client, peer), 10)
    after = faults.find_container(peer.cluster, NAMESPACE, peer.pod)
    assert after == container, "freezing restarted the container"


def test_one_program_of_a_container_is_signalled_by_name(peers: list[Peer]) -> None:
    peer, client, _ = peers
    container = faults.find_container(peer.cluster, NAMESPACE, peer.pod)

    assert faults.signal_program(container.node, container.container_id, "python3", "SIGCONT")
    assert client.reaches(peer)
    with pytest.raises(LookupError, match="no process nobody"):
        faults.signal_program(container.node, container.container_id, "nobody", "SIGCONT")


def test_a_killed_a_hung_and_a_cut_node_are_not_ready_until_they_come_back(
    peers: list[Peer],
) -> None:
    """All three at once: each takes the control plane nearly a minute to notice."""
    killed, hung, cut = (peer.node for peer in peers)
    cluster = peers[0].cluster

    def not_ready() -> set[str]:
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        return {
            peer.node
            for peer in peers
            if cluster.kubectl("get", "node", peer.node, "-o", f"jsonpath={path}") != "True"
        }

    def all_run() -> bool:
        try:
            return all(faults.find_container(cluster, NAMESPACE, peer.pod) for peer in peers)
        except LookupError:
            return False

    assert not_ready() == set()
    faults.kill_node(killed)
    faults.pause_node(hung)
    faults.cut_node(cut)
    try:
        faults.wait_until("all are lost", lambda: not_ready() == {killed, hung, cut}, 150)
    finally:
        faults.start_node(killed)
        faults.unpause_node(hung)
        faults.heal(cut)
    faults.wait_until("all are back", lambda: not_ready() == set(), 120)
    faults.wait_until("their pods run", all_run, 60)
    faults.wait_until("their pods reach each other", reach(peers[0], peers[1]), 60)


def test_no_cut_is_left_behind(peers: list[Peer]) -> None:
    for peer in peers:
        for tool in ("iptables-save", "ip6tables-save"):
            rules = docker.need_running().docker("exec", peer.node, tool)
            assert faults.COMMENT not in rules
