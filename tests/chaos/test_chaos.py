"""Each kind of fault once, on several groups at a time: the short form of `make chaos`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from random import Random

import pytest

from tests.chaos.faults import ENCRYPTED, KINDS, Kind, Target
from tests.chaos.laws import first_law
from tests.chaos.stage import (
    put_controllers_on_control_plane,
    serve_model,
    serving,
    settle,
    settle_cluster,
    struck,
)
from tests.chaos.strike import Outcome, strike
from tests.chaos.table import HEAD, row
from tests.conftest import fresh_namespace
from tests.e2e.live import HOSTNAME, Json, Live, eventually, placed
from tests.kind import faults
from tests.kind.cluster import Cluster
from tests.kind.images import BuiltImages

# All faults are in the setting up of the first test.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

SEED = 1
LANES = {
    "worker": ("worker:",),
    "cut": ("cut:",),
    "leader": ("leader:",),
    "other": ("leader and worker:", "for good:"),
    "encrypted": ("encrypted:",),
}
"""The groups, and how the kinds of faults begin that strike each."""
CONTROLLERS = [kind for kind in KINDS if kind.name.endswith("away")]
"""They strike all groups: one after the other, when the lanes are done."""
SHORT = [
    *(kind for kind in KINDS if kind not in CONTROLLERS and "node" not in kind.name),
    *ENCRYPTED,
]
"""Kubernetes takes a minute to notice that a node is lost: one is, for several groups at once."""
PATIENCE = 6.0
"""Times as long as `make chaos` a fault may take here: a busy machine is no failure."""
PATIENT_SECONDS = 600


@dataclass(frozen=True)
class Seen:
    """What became of the faults."""

    outcomes: dict[str, Outcome]
    """By the name of the kind."""
    lanes: dict[str, Future[None]]
    """That in which a kind struck, by its name: says why there is no outcome."""
    lost_node: Future[None]

    def of(self, kind: Kind) -> Outcome:
        if kind.name not in self.outcomes:
            self.lanes[kind.name].result()
        return self.outcomes[kind.name]


@pytest.fixture(scope="module")
def seen(kind_cluster: Cluster, images: BuiltImages) -> Iterator[Seen]:
    """All faults: in lanes, each with a group of its own, while a node is lost on which those have
    nothing."""
    victim = kind_cluster.worker_nodes()[-1]
    with ExitStack() as stack:
        put_controllers_on_control_plane(kind_cluster, images)
        namespace = stack.enter_context(fresh_namespace(kind_cluster))
        serve_model(kind_cluster, images, namespace)
        pool = stack.enter_context(ThreadPoolExecutor())
        print(f"\n{HEAD}")
        seen = Seen({}, {}, pool.submit(lose_a_node, kind_cluster, namespace, victim))

        def live_through(kinds: list[Kind], group: str) -> None:
            chance = Random(f"{SEED}{group}")  # noqa: S311
            manifest = off(struck(group, encrypted=group == "encrypted"), victim)
            with serving(kind_cluster, images, namespace, manifest) as witness:
                for number, kind in enumerate(kinds, 1):
                    settle(witness)
                    outcome = strike(Target(witness.live, chance), kind, witness, PATIENCE)
                    print(row(number, outcome))
                    seen.outcomes[kind.name] = outcome
                seen.outcomes[kinds[-1].name].broken += first_law(witness.unjudged())

        for group, begins in LANES.items():
            kinds = [kind for kind in SHORT if kind.name.startswith(begins)]
            lane = pool.submit(live_through, kinds, group)
            seen.lanes.update((kind.name, lane) for kind in kinds)
        wait([seen.lost_node, *seen.lanes.values()])
        settle_cluster(kind_cluster)
        # No container of this one ended: none waits before it is started again.
        lane = pool.submit(live_through, CONTROLLERS, "cut")
        seen.lanes.update((kind.name, lane) for kind in CONTROLLERS)
        wait([lane])
        yield seen


def off(manifest: Json, node: str) -> Json:
    """A group with nothing on a node."""
    term = {"matchExpressions": [{"key": HOSTNAME, "operator": "NotIn", "values": [node]}]}
    away = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    for role in ("leader", "workers"):
        manifest["spec"][role] = {**manifest["spec"][role], "affinity": {"nodeAffinity": away}}
    return manifest


@pytest.mark.parametrize("kind", [*SHORT, *CONTROLLERS], ids=lambda kind: kind.name)
def test_a_group_lives_through(kind: Kind, seen: Seen) -> None:
    outcome = seen.of(kind)
    assert outcome.noticed is not None, "nobody noticed the fault"
    assert not outcome.broken


def test_groups_come_back_from_a_lost_node_by_themselves(seen: Seen) -> None:
    seen.lost_node.result()


def lose_a_node(cluster: Cluster, namespace: str, victim: str) -> None:
    """A node hangs that has a group's workers, another's leader, one's leader with its claim, and
    the workers of one that is patient."""
    of_worker, of_leader, claimed, patient = groups = [
        Live(cluster, namespace, name) for name in ("of-worker", "of-leader", "claimed", "patient")
    ]
    storage: Json = {"storage": {"size": "64Mi"}}
    of_worker.apply(placed(victim, leader_on_it=False))
    of_leader.apply(placed(victim, leader_on_it=True))
    claimed.apply(placed(victim, leader_on_it=True, **storage))
    slow = placed(victim, leader_on_it=False)
    slow["spec"]["recovery"] = {"lostNodeSeconds": PATIENT_SECONDS}
    patient.apply(slow)
    for group in groups:
        group.wait_until_ready()
    before = {group.name: group.uids() for group in groups}
    assert victim in of_worker.nodes().values()
    assert victim in patient.nodes().values()
    assert of_leader.nodes()["of-leader-group-0"] == victim
    assert claimed.nodes()["claimed-group-0"] == victim

    faults.pause_node(victim)
    try:
        lost = time.monotonic()
        found = claimed.wait_for("Degraded", "True", "NodeLost")
        assert "--force" in found["message"]
        patient.wait_for("Ready", "False", "NodeLost")
        for group in (of_worker, of_leader):
            eventually(partial(is_off, group, victim), f"{group.name} is on other nodes")
            group.wait_for("Ready", "True", "Ready")
            print(f"{group.name}: Ready {time.monotonic() - lost:.0f} s after the node was lost")
        assert of_worker.uids()["of-worker-group-0"] == before["of-worker"]["of-worker-group-0"]
        assert "NodeLost" in of_worker.events()
        for group in (of_worker, of_leader):
            [told] = group.get()["status"]["groups"]
            assert told["recoveries"] >= 1  # a busy machine may add another
            assert told["lastRecovery"]["seconds"] > 0
        # What only a person can know is left as it is, and heals when the node comes back.
        assert claimed.uids()["claimed-group-0"] == before["claimed"]["claimed-group-0"]
    finally:
        faults.unpause_node(victim)
    for group in (claimed, patient):
        group.wait_for("Ready", "True", "Ready")
    assert patient.uids() == before["patient"]
    # The former leader was there again, until its kubelet learned that it has a successor, and got
    # no worker. (On a busy machine the successor may have formed more than once.)
    leader, *workers = sorted(of_leader.pods())
    assert set().union(*(epochs(of_leader, pod) for pod in workers)) <= epochs(of_leader, leader)
    for group in groups:
        group.kubectl("delete", "llc", group.name, "--wait=false")


def epochs(group: Live, pod: str) -> set[str]:
    """Under which a pod's agent attached or was attached, by its log."""
    [container] = (
        it for it in group.pods()[pod]["status"]["containerStatuses"] if it["name"] != "gate"
    )
    logs = [group.kubectl("logs", pod, "-c", container["name"], "--tail=-1")]
    if container["restartCount"]:
        logs.append(group.kubectl("logs", pod, "-c", container["name"], "--tail=-1", "--previous"))
    found = set(re.findall(r"\bepoch=([0-9a-f]+)", "".join(logs)))
    assert found
    return found


def is_off(group: Live, node: str) -> bool:
    return not {node, None} & set(group.nodes().values())
