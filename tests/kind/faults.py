"""Faults in a cluster of kind's nodes: processes, nodes and the network between them.

Each is done from outside, by Docker and inside a node's namespaces, so that the product under test
needs nothing for it and cannot tell it from the real thing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tests.kind import docker
from tests.kind.command import CommandFailed

if TYPE_CHECKING:
    from tests.kind.cluster import Cluster

# On each rule of ours, so that healing removes ours and nothing else.
COMMENT = "llamacluster-fault"
PodDirection = Literal["in", "out"]
PodCut = Literal["DROP", "REJECT --reject-with tcp-reset"]
API_SERVER = "/etc/kubernetes/manifests/kube-apiserver.yaml"
API_SERVER_AWAY = "/etc/kubernetes/kube-apiserver.away"


@dataclass(frozen=True)
class RunningContainer:
    """A container of a pod: the node it is on, and its id in that node's containerd."""

    node: str
    container_id: str
    restarts: int


def find_container(
    cluster: Cluster, namespace: str, pod: str, container: str | None = None
) -> RunningContainer:
    """Where a pod's container (the first, unless named) runs now; LookupError if it does not."""
    state = json.loads(cluster.kubectl("-n", namespace, "get", "pod", pod, "-o", "json"))
    status = state.get("status", {})
    for found in [
        *status.get("containerStatuses", []),
        *status.get("initContainerStatuses", []),
    ]:
        if container in (None, found["name"]) and "running" in found["state"]:
            return RunningContainer(
                node=state["spec"]["nodeName"],
                container_id=found["containerID"].removeprefix("containerd://"),
                restarts=found["restartCount"],
            )
    raise LookupError(f"pod {namespace}/{pod} has no running container {container or ''}".rstrip())


# Processes


def kill_process(node: str, container_id: str) -> None:
    """SIGKILL to a container's first process: it is gone, and the kubelet sees it exit."""
    _on(node, "ctr", "--namespace=k8s.io", "task", "kill", "--signal=SIGKILL", container_id)


def freeze_process(node: str, container_id: str) -> None:
    """SIGSTOP to all processes of a container: alive, holding its sockets, doing nothing."""
    _signal_all(node, container_id, "STOP")


def thaw_process(node: str, container_id: str) -> None:
    """SIGCONT to all processes of a container."""
    _signal_all(node, container_id, "CONT")


def signal_program(node: str, container_id: str, program: str, signal: str) -> list[int]:
    """Send a signal to those processes of a container whose name is `program`.

    Returns their ids in the node. For a child that a supervisor in the container has started.
    """
    pids = [
        pid for pid in _process_ids(node, container_id) if _process_name(node, pid) == program[:15]
    ]
    if not pids:
        raise LookupError(f"no process {program} in container {container_id} on {node}")
    _kill(node, signal, pids)
    return pids


def kill_first(node: str, container_id: str) -> None:
    """When memory runs out, the kernel takes the processes of this container before all others."""
    for pid in _process_ids(node, container_id):
        _on(node, "sh", "-c", f"echo 1000 > /proc/{pid}/oom_score_adj")


def _signal_all(node: str, container_id: str, signal: str) -> None:
    """Send a signal to each process of a container, also to those that start meanwhile."""
    told: set[int] = set()
    while new := set(_process_ids(node, container_id)) - told:
        _kill(node, signal, sorted(new))
        told |= new


def _kill(node: str, signal: str, pids: list[int]) -> None:
    try:
        _on(node, "kill", f"-{signal.removeprefix('SIG')}", *map(str, pids))
    except CommandFailed:
        # One of several may have ended by itself meanwhile; a lone one was meant.
        if len(pids) == 1:
            raise


def _process_ids(node: str, container_id: str) -> list[int]:
    """Ids, in the node, of a container's processes."""
    listed = _on(node, "ctr", "--namespace=k8s.io", "task", "ps", container_id)
    return [int(line.split()[0]) for line in listed.splitlines()[1:]]


def _process_name(node: str, pid: int) -> str:
    try:
        return _on(node, "cat", f"/proc/{pid}/comm").strip()
    except CommandFailed:
        return ""  # ended meanwhile


# Nodes


def kill_node(node: str) -> None:
    """Power off: all of the node's processes are gone at once."""
    _docker("kill", node)


def start_node(node: str) -> None:
    """Power on after `kill_node`; it comes back with the same address."""
    _docker("start", node)


def pause_node(node: str) -> None:
    """A hung node: nothing in it runs, connections stay open."""

    def is_paused() -> bool:
        # A version 1 cgroup in which processes are being started often cannot be frozen. runc then
        # thaws it again and gives up; "a game of chances", says its source.
        try:
            _docker("pause", node)
        except CommandFailed as failed:
            if "unable to freeze" not in str(failed):
                raise
            return False
        return True

    wait_until(f"Docker can freeze {node}", is_paused, 120)


def unpause_node(node: str) -> None:
    _docker("unpause", node)


# Network


def cut_pod(
    node: str,
    container_id: str,
    peer: str,
    directions: tuple[PodDirection, ...],
    how: PodCut = "DROP",
) -> None:
    """Cut the pod of a container from one address, inside the pod's own network."""
    for direction in directions:
        chain, end = ("INPUT", "-s") if direction == "in" else ("OUTPUT", "-d")
        _in_pod(
            *(node, container_id, "-I", chain, end, peer, "-p", "tcp"),
            *("-m", "comment", "--comment", COMMENT, "-j", *how.split()),
        )


def heal_pod(node: str, container_id: str) -> None:
    """Take back all cuts made in the pod of a container."""
    for chain in ("INPUT", "OUTPUT"):
        for rule in _in_pod(node, container_id, "-S", chain).splitlines():
            words = rule.replace('"', "").split()
            if words[0] == "-A" and COMMENT in words:
                _in_pod(node, container_id, "-D", *words[1:])


def _in_pod(node: str, container_id: str, *iptables: str) -> str:
    pid = _process_ids(node, container_id)[0]
    return _on(node, "nsenter", f"--net=/proc/{pid}/ns/net", "iptables", "-w", *iptables)


# Control plane


def _control_plane_of(node: str) -> str:
    label = "io.x-k8s.kind.cluster"
    name = _docker("inspect", "--format", f'{{{{index .Config.Labels "{label}"}}}}', node).strip()
    filters = (f"label={label}={name}", "label=io.x-k8s.kind.role=control-plane")
    listed = _docker(
        "ps", "--format", "{{.Names}}", *(word for rule in filters for word in ("--filter", rule))
    )
    return listed.split()[0]


def stop_api_server(cluster: Cluster) -> None:
    """Take the API server's static pod away; returns when nothing answers any more."""
    control_plane = _control_plane_of(cluster.nodes()[0])
    _on(control_plane, "mv", API_SERVER, API_SERVER_AWAY)
    wait_until("the API server is away", lambda: not answers(cluster), 60)


def start_api_server(cluster: Cluster) -> None:
    """Put the API server's static pod back; returns when it answers."""
    control_plane = _control_plane_of(cluster.nodes()[0])
    _on(
        control_plane,
        "sh",
        "-c",
        f"[ ! -e {API_SERVER_AWAY} ] || mv {API_SERVER_AWAY} {API_SERVER}",
    )
    wait_until("the API server answers", lambda: answers(cluster), 120)


def answers(cluster: Cluster) -> bool:
    """Whether the API server says that it is ready."""
    try:
        cluster.kubectl("get", "--raw=/readyz", "--request-timeout=2s", timeout=20)
    except CommandFailed:
        return False
    return True


# How


def wait_until(what: str, holds: Callable[[], bool], seconds: float, every: float = 0.5) -> float:
    """Seconds it took until a condition held; AssertionError with its name when it never did."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if holds():
            return time.monotonic() - started
        time.sleep(every)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def _docker(*args: str) -> str:
    return docker.need_running().docker(*args, timeout=120)


def _on(node: str, *command: str) -> str:
    return _docker("exec", node, *command)
