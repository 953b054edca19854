"""Faults of processes do what their names say, and heal. Those of nodes and of the network between
pods: tests/chaos, where a fault that nobody notices fails."""

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


@pytest.fixture(scope="module")
def peers(kind_cluster: Cluster) -> Iterator[list[Peer]]:
    """Two pods on nodes of their own, which reach each other."""
    image = build_engine(docker.need_running(), host.REPOSITORY)
    kind_cluster.load(image)
    nodes = kind_cluster.worker_nodes()[:2]
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
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _pods(nodes: list[str], image: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"peer-{number}"},
                "spec": {
                    "nodeName": node,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [
                        {
                            "name": "peer",
                            "image": image,
                            "command": ["python3", "-m", "http.server", "8000"],
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


def test_nobody_answers_for_a_service_without_endpoints(peers: list[Peer]) -> None:
    """Its packets must not leave the machine, where somebody else might answer."""
    client = peers[0]
    kubectl = client.cluster.kubectl
    kubectl("-n", NAMESPACE, "create", "service", "clusterip", "nobody", "--tcp=80")
    address = kubectl("-n", NAMESPACE, "get", "svc", "nobody", "-o", "jsonpath={.spec.clusterIP}")
    refused = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH}
    assert int(client.python(CONNECT, address)) in refused


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
    peer, client = peers
    container = faults.find_container(peer.cluster, NAMESPACE, peer.pod)

    faults.freeze_process(container.node, container.container_id)
    try:
        assert not client.reaches(peer)
    finally:
        faults.thaw_process(container.node, container.container_id)

    faults.wait_until("it answers again", reach(client, peer), 60)
    after = faults.find_container(peer.cluster, NAMESPACE, peer.pod)
    assert after == container, "freezing restarted the container"


def test_one_program_of_a_container_is_signalled_by_name(peers: list[Peer]) -> None:
    peer, client = peers
    container = faults.find_container(peer.cluster, NAMESPACE, peer.pod)

    assert faults.signal_program(container.node, container.container_id, "python3", "SIGCONT")
    assert client.reaches(peer)
    with pytest.raises(LookupError, match="no process nobody"):
        faults.signal_program(container.node, container.container_id, "nobody", "SIGCONT")
