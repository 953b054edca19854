"""Each kind of fault that a group must live through: how it is made, and how it is taken back.

All are real and made from outside (tests/kind/faults.py). Some are over once they are made (a
process is killed); the others last until they are taken back (a frozen process, a cut, a node).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, Protocol

from tests.chaos import bounds
from tests.e2e.live import Live
from tests.kind import faults
from tests.kind.cluster import LWS_NAMESPACE
from tests.kind.command import CommandFailed
from tests.kind.product import OPERATOR, SYSTEM_NAMESPACE

LWS_MANAGER = "deployment/lws-controller-manager"
RPC_SERVER, LLAMA_SERVER = "ggml-rpc-server", "llama-server"
HOG = """
import os, time
for _ in range(200):
    if os.fork() == 0:
        held = b"x" * (8 << 20)
        break
time.sleep(60)
"""
"""Takes more memory than a container of a group here may have, in processes that are each smaller
than those of the group: the kernel ends the largest first."""


class Fault(Protocol):
    """Something that goes wrong."""

    def inject(self) -> None: ...

    def undo(self) -> None:
        """Nothing for what is over once it is made; twice does no harm."""


@dataclass
class Program:
    """A program in a container of a pod gets a signal."""

    live: Live
    pod: str
    container: str
    program: str
    signal: Literal["KILL", "STOP"]
    at: faults.RunningContainer | None = None

    def inject(self) -> None:
        self.at = faults.find_container(
            self.live.cluster, self.live.namespace, self.pod, self.container
        )
        faults.signal_program(self.at.node, self.at.container_id, self.program, self.signal)

    def undo(self) -> None:
        """A stopped one is left so: its agent has to see it, end it and start another."""


@dataclass
class ContainerKilled:
    """SIGKILL to the first process of a container: the agent, and all that it runs."""

    live: Live
    pod: str
    container: str

    def inject(self) -> None:
        at = faults.find_container(self.live.cluster, self.live.namespace, self.pod, self.container)
        faults.kill_process(at.node, at.container_id)

    def undo(self) -> None:
        pass


@dataclass
class OutOfMemory:
    """The kernel kills a container's processes at the limit of its cgroup.

    What takes the memory is not ours, so ours are made the first to be killed.
    """

    live: Live
    pod: str
    container: str

    def inject(self) -> None:
        at = faults.find_container(self.live.cluster, self.live.namespace, self.pod, self.container)
        faults.kill_first(at.node, at.container_id)
        with contextlib.suppress(CommandFailed):  # it is killed too
            self.live.kubectl(*("exec", self.pod, "-c", self.container, "--", "python3", "-c", HOG))

    def undo(self) -> None:
        pass


@dataclass
class Frozen:
    """SIGSTOP to all processes of a container, the agent among them."""

    live: Live
    pod: str
    container: str
    at: faults.RunningContainer | None = None

    def inject(self) -> None:
        self.at = faults.find_container(
            self.live.cluster, self.live.namespace, self.pod, self.container
        )
        faults.freeze_process(self.at.node, self.at.container_id)

    def undo(self) -> None:
        if self.at:
            with contextlib.suppress(CommandFailed):  # the kubelet may have ended it
                faults.thaw_process(self.at.node, self.at.container_id)
            self.at = None


@dataclass
class PodDeleted:
    """As a person or a controller deletes a pod: told to stop, with its grace."""

    live: Live
    pod: str

    def inject(self) -> None:
        self.live.kubectl("delete", "pod", self.pod, "--wait=false")

    def undo(self) -> None:
        pass


@dataclass
class NodeLost:
    """The node of a pod hangs, or has no power. It is away until the group is whole without it."""

    live: Live
    pod: str
    how: Literal["hangs", "off"]
    node: str | None = None

    def inject(self) -> None:
        found = self.live.read("pod", self.pod)
        self.node = found["spec"]["nodeName"]
        (faults.pause_node if self.how == "hangs" else faults.kill_node)(self.node)

    def undo(self) -> None:
        if self.node is None:
            return
        (faults.unpause_node if self.how == "hangs" else faults.start_node)(self.node)
        self.live.cluster.kubectl(
            "wait", "--for=condition=Ready", f"node/{self.node}", "--timeout=120s"
        )
        self.node = None


@dataclass
class Cut:
    """No packet passes from one pod to another, silently or with a reset; or neither way."""

    live: Live
    leader: str
    worker: str
    directions: tuple[faults.PodDirection, ...]
    how: faults.PodCut

    def inject(self) -> None:
        address = self.live.read("pod", self.worker)["status"]["podIP"]
        at = faults.find_container(self.live.cluster, self.live.namespace, self.leader)
        faults.cut_pod(at.node, at.container_id, address, self.directions, self.how)

    def undo(self) -> None:
        with contextlib.suppress(LookupError):  # the cut went with the pod
            at = faults.find_container(self.live.cluster, self.live.namespace, self.leader)
            faults.heal_pod(at.node, at.container_id)


@dataclass
class Away:
    """A controller does not run, and something else goes wrong meanwhile."""

    live: Live
    namespace: str
    deployment: str
    meanwhile: Fault
    replicas: int = 0

    def inject(self) -> None:
        found = self.live.cluster.kubectl(
            *("get", self.deployment, "-n", self.namespace, "-o", "jsonpath={.spec.replicas}")
        )
        self.replicas = int(found)
        self._scale(0)
        self.live.cluster.kubectl(
            *("wait", "-n", self.namespace, "pods", "--all", "--for=delete", "--timeout=90s")
        )
        self.meanwhile.inject()

    def undo(self) -> None:
        self.meanwhile.undo()
        if self.replicas:
            self._scale(self.replicas)
            self.live.cluster.kubectl(
                *("rollout", "status", self.deployment, "-n", self.namespace, "--timeout=120s")
            )
            self.replicas = 0

    def _scale(self, replicas: int) -> None:
        self.live.cluster.kubectl(
            "scale", self.deployment, "-n", self.namespace, f"--replicas={replicas}"
        )


@dataclass
class ApiServerAway:
    """The API server does not run, and a container is killed meanwhile."""

    live: Live
    pod: str
    container: str
    is_away: bool = False

    def inject(self) -> None:
        at = faults.find_container(self.live.cluster, self.live.namespace, self.pod, self.container)
        self.is_away = True
        faults.stop_api_server(self.live.cluster)
        faults.kill_process(at.node, at.container_id)

    def undo(self) -> None:
        if self.is_away:
            faults.start_api_server(self.live.cluster)
            self.is_away = False


@dataclass
class Together:
    """Several at once."""

    parts: Sequence[Fault]

    def inject(self) -> None:
        first, *others = self.parts
        first.inject()
        for part in others:
            with contextlib.suppress(LookupError):  # the first one took it with it
                part.inject()

    def undo(self) -> None:
        for part in self.parts:
            part.undo()


@dataclass(frozen=True)
class Target:
    """The group that is struck, and chance."""

    live: Live
    chance: Random

    @property
    def leader(self) -> str:
        return f"{self.live.name}-group-0"

    def worker(self) -> str:
        """One of the two."""
        return f"{self.leader}-{self.chance.choice((1, 2))}"


@dataclass(frozen=True)
class Kind:
    """A kind of fault."""

    name: str
    make: Callable[[Target], Fault]
    lasts: bool = False
    """It is taken back once the group has noticed it; else the group has to heal beside it."""
    noticed: float = bounds.NOTICED_SECONDS
    """How long it may take until it is noticed."""
    more: float = 0.0
    """What recovery may take beyond the time of an ordinary one."""
    hides: Literal["operator", "API server"] | None = None
    """Who does not tell of the group's readiness meanwhile."""


def _program(role: str, signal: Literal["KILL", "STOP"]) -> Callable[[Target], Fault]:
    def make(target: Target) -> Fault:
        if role == "leader":
            return Program(target.live, target.leader, role, LLAMA_SERVER, signal)
        return Program(target.live, target.worker(), role, RPC_SERVER, signal)

    return make


def _cut(how: faults.PodCut, *directions: faults.PodDirection) -> Callable[[Target], Fault]:
    return lambda t: Cut(t.live, t.leader, t.worker(), directions, how)


def _two(target: Target) -> Fault:
    """Different parts of the group, or the same in two ways."""
    makers = (
        _program("worker", "KILL"),
        _program("leader", "KILL"),
        lambda t: ContainerKilled(t.live, t.worker(), "worker"),
        lambda t: PodDeleted(t.live, t.worker()),
        lambda t: ContainerKilled(t.live, t.leader, "leader"),
    )
    # The one that leaves nothing to find for the other comes last.
    one, other = sorted(target.chance.sample(range(len(makers)), 2))
    return Together([makers[one](target), makers[other](target)])


def _lost_node(name: str, make: Callable[[Target], Fault]) -> Kind:
    return Kind(
        name,
        make,
        noticed=bounds.NODE_NOTICED_SECONDS,
        more=bounds.NODE_REPLACED_SECONDS,
    )


_RESET: faults.PodCut = "REJECT --reject-with tcp-reset"

KINDS = (
    Kind("worker: engine killed", _program("worker", "KILL")),
    Kind("worker: engine frozen", _program("worker", "STOP")),
    Kind("worker: container killed", lambda t: ContainerKilled(t.live, t.worker(), "worker")),
    Kind("worker: out of memory", lambda t: OutOfMemory(t.live, t.worker(), "worker")),
    Kind("worker: frozen", lambda t: Frozen(t.live, t.worker(), "worker"), lasts=True),
    Kind("worker: pod deleted", lambda t: PodDeleted(t.live, t.worker())),
    _lost_node("worker: node hangs", lambda t: NodeLost(t.live, t.worker(), "hangs")),
    _lost_node("worker: node off", lambda t: NodeLost(t.live, t.worker(), "off")),
    Kind("cut: both ways, silent", _cut("DROP", "in", "out"), lasts=True),
    Kind("cut: both ways, reset", _cut(_RESET, "in", "out"), lasts=True),
    Kind("cut: to the worker, silent", _cut("DROP", "out"), lasts=True),
    Kind("cut: to the worker, reset", _cut(_RESET, "out"), lasts=True),
    Kind("cut: from the worker, silent", _cut("DROP", "in"), lasts=True),
    Kind("cut: from the worker, reset", _cut(_RESET, "in"), lasts=True),
    Kind("leader: engine killed", _program("leader", "KILL")),
    Kind("leader: engine frozen", _program("leader", "STOP")),
    Kind("leader: container killed", lambda t: ContainerKilled(t.live, t.leader, "leader")),
    Kind("leader: out of memory", lambda t: OutOfMemory(t.live, t.leader, "leader")),
    Kind("leader: frozen", lambda t: Frozen(t.live, t.leader, "leader"), lasts=True),
    Kind("leader: gate killed", lambda t: ContainerKilled(t.live, t.leader, "gate")),
    Kind("leader: pod deleted", lambda t: PodDeleted(t.live, t.leader)),
    _lost_node("leader: node hangs", lambda t: NodeLost(t.live, t.leader, "hangs")),
    Kind("leader and worker: two at once", _two),
    Kind(
        "for good: worker frozen",
        lambda t: Frozen(t.live, t.worker(), "worker"),
        more=bounds.FROZEN_FOR_GOOD_SECONDS,
    ),
    Kind(
        "worker: deleted, LWS away",
        lambda t: Away(t.live, LWS_NAMESPACE, LWS_MANAGER, PodDeleted(t.live, t.worker())),
        lasts=True,
    ),
    Kind(
        "worker: killed, operator away",
        lambda t: Away(
            t.live, SYSTEM_NAMESPACE, OPERATOR, ContainerKilled(t.live, t.worker(), "worker")
        ),
        hides="operator",
    ),
    Kind(
        "worker: killed, API away",
        lambda t: ApiServerAway(t.live, t.worker(), "worker"),
        hides="API server",
    ),
)

ENCRYPTED = tuple(
    replace(kind, name=f"encrypted: {kind.name}")
    for kind in KINDS
    if kind.name
    in (
        "worker: engine killed",
        "worker: engine frozen",
        "worker: frozen",
        "cut: both ways, silent",
        "cut: both ways, reset",
        "leader: engine killed",
    )
)
"""Those for a group with RPC encryption in which another program, the tunnel, stands between the
leader's engine and what goes wrong."""
