"""Nodes that go away: for good, without a word, or by a drain."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from tests.e2e.live import TINY, Json, Live, eventually
from tests.kind import faults
from tests.kind.cluster import Cluster
from tests.kind.command import CommandFailed
from tests.kind.product import SYSTEM_NAMESPACE

pytestmark = pytest.mark.e2e

HOSTNAME = "kubernetes.io/hostname"
FOUND_LOST_SECONDS = 60
"""Kubernetes finds a silent node lost after 40 to 55 s."""


@pytest.fixture
def victim(fresh: Live) -> Iterator[str]:
    """A node that runs nothing of what the tests need while it is away."""
    cluster, node = fresh.cluster, fresh.cluster.worker_nodes()[-1]
    needed = [(SYSTEM_NAMESPACE, ""), ("lws-system", ""), (fresh.namespace, "tiny-model")]
    cluster.kubectl("cordon", node)
    try:
        for namespace, prefix in needed:
            on_it = f"--field-selector=spec.nodeName={node}"
            found = cluster.kubectl("get", "pods", f"-n{namespace}", on_it, "-o", "name").split()
            for pod in found:
                if pod.startswith(f"pod/{prefix}"):
                    cluster.kubectl("delete", f"-n{namespace}", pod)
        for namespace, _ in needed:
            cluster.kubectl(
                *("wait", f"-n{namespace}", "deployment", "--all", "--timeout=120s"),
                "--for=condition=Available",
            )
    finally:
        cluster.kubectl("uncordon", node)
    yield node
    with suppress(CommandFailed):  # as a rule the test has done so
        faults.unpause_node(node)
    wait_until_ready(cluster, node)


def wait_until_ready(cluster: Cluster, node: str) -> None:
    cluster.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=120s")


def placed(name: str, victim: str, *, leader_on_it: bool, **model: Json) -> Json:
    """A group with its leader, or with its workers, on a node as long as that is there."""
    term = {"matchExpressions": [{"key": HOSTNAME, "operator": "NotIn", "values": [victim]}]}
    away = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    here = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [victim]}]}
    there = {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": here}]
    }
    manifest = copy.deepcopy(TINY)
    manifest["metadata"]["name"] = name
    manifest["spec"]["model"] |= model
    for role, is_there in (("leader", leader_on_it), ("workers", not leader_on_it)):
        manifest["spec"][role] |= {
            "affinity": {"nodeAffinity": there if is_there else away},
            "topologySpreadConstraints": [],
        }
    return manifest


def uids(group: Live) -> dict[str, str]:
    return {name: pod["metadata"]["uid"] for name, pod in group.pods().items()}


def nodes(group: Live) -> dict[str, str]:
    return {name: pod["spec"]["nodeName"] for name, pod in group.pods().items()}


def is_off(group: Live, node: str) -> bool:
    return node not in nodes(group).values()


def test_groups_come_back_from_a_lost_node_by_themselves(fresh: Live, victim: str) -> None:
    of_worker = Live(fresh.cluster, fresh.namespace, "of-worker")
    of_leader = Live(fresh.cluster, fresh.namespace, "of-leader")
    claimed = Live(fresh.cluster, fresh.namespace, "claimed")
    storage: Json = {"storage": {"size": "64Mi"}}
    fresh.apply(placed("of-worker", victim, leader_on_it=False))
    fresh.apply(placed("of-leader", victim, leader_on_it=True))
    fresh.apply(placed("claimed", victim, leader_on_it=True, **storage))
    groups = (of_worker, of_leader, claimed)
    for group in groups:
        group.wait_until_ready()
    before = {group.name: uids(group) for group in groups}
    assert victim in nodes(of_worker).values()
    assert nodes(of_leader)["of-leader-group-0"] == victim
    assert nodes(claimed)["claimed-group-0"] == victim

    faults.pause_node(victim)
    lost = time.monotonic()
    found = claimed.wait_for("Degraded", "True", "NodeLost")
    assert "--force" in found["message"]
    for group in (of_worker, of_leader):
        eventually(partial(is_off, group, victim), f"{group.name} is on other nodes")
        group.wait_for("Ready", "True", "Ready")
        print(f"{group.name}: Ready again {time.monotonic() - lost:.0f} s after the node was lost")
    assert uids(of_worker)["of-worker-group-0"] == before["of-worker"]["of-worker-group-0"]
    assert "NodeLost" in events(of_worker)
    # What only a person can know is left as it is, and heals when the node comes back.
    assert uids(claimed)["claimed-group-0"] == before["claimed"]["claimed-group-0"]
    faults.unpause_node(victim)
    claimed.wait_for("Ready", "True", "Ready")


def test_a_slow_node_loses_no_pod(fresh: Live, victim: str) -> None:
    manifest = placed("tiny", victim, leader_on_it=False)
    manifest["spec"]["recovery"] = {"lostNodeSeconds": 120}
    fresh.apply(manifest)
    fresh.wait_until_ready()
    before = uids(fresh)
    faults.pause_node(victim)
    fresh.cluster.kubectl(
        "wait",
        "--for=condition=Ready=Unknown",
        f"node/{victim}",
        f"--timeout={FOUND_LOST_SECONDS}s",
    )
    fresh.wait_for("Ready", "False", "NodeLost")
    faults.unpause_node(victim)
    fresh.wait_for("Ready", "True", "Ready")
    assert uids(fresh) == before


def events(group: Live) -> set[str]:
    found = group.read("events", f"--field-selector=involvedObject.name={group.name}")
    return {event["reason"] for event in found["items"]}
