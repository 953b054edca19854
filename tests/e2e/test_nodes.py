"""Nodes that go away: for good, without a word, or by a drain."""

from __future__ import annotations

import copy
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Thread

import pytest

from tests.e2e.live import TINY, Json, Live, eventually
from tests.kind import faults
from tests.kind.cluster import Cluster, tool
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
    cluster.kubectl("uncordon", node)
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


def nodes(group: Live) -> dict[str, str | None]:
    """The node of each pod; none as long as the scheduler has not placed it."""
    return {name: pod["spec"].get("nodeName") for name, pod in group.pods().items()}


def is_off(group: Live, node: str) -> bool:
    return not {node, None} & set(nodes(group).values())


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
    for group in (of_worker, of_leader):
        [told] = group.get()["status"]["groups"]
        assert told["recoveries"] == 1
        assert told["lastRecovery"]["seconds"] > 0
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


def test_a_drain_takes_one_whole_group_at_a_time(fresh: Live, victim: str) -> None:
    """Two groups, each with its workers on the node that is drained."""
    manifest = placed("tiny", victim, leader_on_it=False)
    manifest["spec"]["replicas"] = 2
    fresh.apply(manifest)
    fresh.wait_until_ready()
    on_it = {name for name, node in nodes(fresh).items() if node == victim}
    assert len(on_it) == 4
    eventually(lambda: allowed(fresh) == 1, "a pod may be evicted")
    with watching(fresh) as serving:
        drain = ("drain", victim, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=200s")
        fresh.cluster.kubectl(*drain)
        drained = time.monotonic()
        # The leader of the last group may not have noticed yet.
        eventually(lambda: serving.losses() == {0: 1, 1: 1}, "each group goes down once")
        fresh.wait_for("Ready", "True", "Ready")
    print(f"drained {drained - serving.began:.0f} s, at least {min(serving.counts)} groups served")
    print(f"groups went down {serving.losses()} times")
    assert not on_it & {name for name, node in nodes(fresh).items() if node == victim}
    assert min(serving.counts) == 1
    assert serving.losses() == {0: 1, 1: 1}


def allowed(group: Live) -> int:
    found: int = group.read("pdb", group.name)["status"].get("disruptionsAllowed", 0)
    return found


@dataclass
class Serving:
    """Which groups were Ready, as the API server's watch told it."""

    began: float = field(default_factory=time.monotonic)
    ready: dict[int, bool] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def saw(self, leader: Json) -> None:
        group = int(leader["metadata"]["labels"]["leaderworkerset.sigs.k8s.io/group-index"])
        conditions = leader["status"].get("conditions", [])
        now = "deletionTimestamp" not in leader["metadata"] and any(
            c["type"] == "Ready" and c["status"] == "True" for c in conditions
        )
        if self.ready.get(group) and not now:
            self.lost.append(group)
        self.ready[group] = now
        if len(self.ready) == 2:
            self.counts.append(sum(self.ready.values()))

    def losses(self) -> dict[int, int]:
        """How often each group went down."""
        return {group: self.lost.count(group) for group in self.ready}


@contextmanager
def watching(live: Live) -> Iterator[Serving]:
    """What happens to the leaders meanwhile."""
    serving = Serving()
    leaders = f"llamacluster.dev/cluster={live.name},leaderworkerset.sigs.k8s.io/worker-index=0"
    process = subprocess.Popen(
        [
            *(tool("kubectl"), f"--kubeconfig={live.cluster.kubeconfig}", "get", "pods", "-l"),
            *(leaders, f"--namespace={live.namespace}", "--watch", "-o", "json"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )

    def read() -> None:
        # One pretty-printed object after another.
        text: list[str] = []
        for line in process.stdout or ():
            text.append(line)
            if line == "}\n":
                serving.saw(json.loads("".join(text)))
                text.clear()

    Thread(target=read, daemon=True).start()
    try:
        eventually(lambda: len(serving.ready) == 2, "both leaders are seen")
        yield serving
    finally:
        process.kill()
        process.wait()


def events(group: Live) -> set[str]:
    found = group.read("events", f"--field-selector=involvedObject.name={group.name}")
    return {event["reason"] for event in found["items"]}
