"""Nodes that are drained. Those that are lost: tests/chaos."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.e2e.live import Json, Live, eventually, placed
from tests.kind.command import listening_to
from tests.kind.product import SYSTEM_NAMESPACE

pytestmark = pytest.mark.e2e


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
    cluster.kubectl("uncordon", node)


def test_a_drain_takes_one_whole_group_at_a_time(fresh: Live, victim: str) -> None:
    """Two groups, each with its workers on the node that is drained."""
    manifest = placed(victim, leader_on_it=False)
    manifest["spec"]["replicas"] = 2
    fresh.apply(manifest)
    fresh.wait_until_ready()
    on_it = {name for name, node in fresh.nodes().items() if node == victim}
    assert len(on_it) == 4
    eventually(lambda: allowed(fresh) == 1, "a pod may be evicted")
    with watching(fresh) as serving:
        drain = ("drain", victim, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=200s")
        fresh.cluster.kubectl(*drain)
        drained = time.monotonic()
        # The leader of the last group may not have noticed yet.
        eventually(lambda: min(formations(fresh)) >= 2, "each group has formed anew")
        fresh.wait_for("Ready", "True", "Ready")
    print(f"drained {drained - serving.began:.0f} s, at least {min(serving.counts)} groups served")
    assert not on_it & {name for name, node in fresh.nodes().items() if node == victim}
    assert min(serving.counts) == 1
    assert formations(fresh) == [2, 2]  # each went down once


def formations(live: Live) -> list[int]:
    """How often each group has formed."""
    return [live.leader_status(group)["formations"] for group in range(2)]


def allowed(group: Live) -> int:
    found: int = group.read("pdb", group.name)["status"].get("disruptionsAllowed", 0)
    return found


@dataclass
class Serving:
    """Which groups were Ready, as the API server's watch told it."""

    began: float = field(default_factory=time.monotonic)
    ready: dict[int, bool] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)

    def saw(self, leader: Json) -> None:
        group = int(leader["metadata"]["labels"]["leaderworkerset.sigs.k8s.io/group-index"])
        conditions = leader["status"].get("conditions", [])
        now = "deletionTimestamp" not in leader["metadata"] and any(
            c["type"] == "Ready" and c["status"] == "True" for c in conditions
        )
        self.ready[group] = now
        if len(self.ready) == 2:
            self.counts.append(sum(self.ready.values()))


@contextmanager
def watching(live: Live) -> Iterator[Serving]:
    """What happens to the leaders meanwhile."""
    serving = Serving()
    leaders = f"llamacluster.dev/cluster={live.name},leaderworkerset.sigs.k8s.io/worker-index=0"
    command = live.cluster.kubectl_command(
        *("get", "pods", "-l", leaders, f"--namespace={live.namespace}", "--watch", "-o", "json")
    )
    text: list[str] = []

    def hear(line: str) -> None:
        # One pretty-printed object after another.
        text.append(line)
        if line == "}":
            serving.saw(json.loads("".join(text)))
            text.clear()

    with listening_to(command, hear):
        eventually(lambda: len(serving.ready) == 2, "both leaders are seen")
        yield serving
