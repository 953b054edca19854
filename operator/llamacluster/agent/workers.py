"""The workers of a group, as their leader finds, attaches and watches them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from threading import Event, Thread

from llamacluster.agent.clock import Clock
from llamacluster.agent.contract.messages import (
    AttachedWorker,
    AttachRequest,
    EngineBuild,
    HeldMemory,
    WorkerStatus,
)
from llamacluster.agent.peers import PeerError, Peers
from llamacluster.planning.reasons import GroupError, Reason

ATTACH_SECONDS = 25.0
"""A little more than the worker gives itself."""
WATCH_SECONDS = 2.0
"""Between two looks at each worker."""
MISSES = 2
"""Looks in a row without an answer after which a worker is lost."""


@dataclass(frozen=True)
class Found:
    """A worker whose agent answers."""

    host: str
    """Its name in the group's headless Service."""
    address: str
    """IPv4 address that the name had when its agent answered, or that of the tunnel to there."""
    rpc_port: int
    status: WorkerStatus

    @property
    def name(self) -> str:
        """Pod name."""
        return pod_of(self.host)

    @property
    def endpoint(self) -> str:
        """For the engine, which looks a name up again for each of its many connections: DNS caches
        may still lead some of them to a worker's predecessor, and a connection to nobody takes
        134 s to fail. So it gets the address at which the worker's agent answered by its name."""
        return f"{self.address}:{self.rpc_port}"


def worker_hosts(leader_address: str, workers: int) -> tuple[str, list[str]]:
    """The leader's name and its workers' hosts, from `<leader pod>.<subdomain>.<namespace>`."""
    leader, _, domain = leader_address.partition(".")
    return leader, [f"{leader}-{index}.{domain}" for index in range(1, workers + 1)]


def pod_of(host: str) -> str:
    return host.partition(".")[0]


class Search:
    """Looks for the workers until all are found; one that was found is not asked again."""

    def __init__(self, hosts: Sequence[str], peers: Peers, pool: Executor) -> None:
        self._hosts = hosts
        self._peers = peers
        self._pool = pool
        self._found: dict[str, Found] = {}
        self.missing: dict[str, str] = dict.fromkeys(hosts, "not looked for yet")
        """Why each worker that is not found is not."""

    def look(self) -> list[Found] | None:
        """Asks those that are missing once; all workers in their order when none is any more."""
        asked = list(self.missing)
        for host, answer in zip(asked, self._pool.map(self._look_for, asked), strict=True):
            if isinstance(answer, Found):
                self._found[host] = answer
                del self.missing[host]
            else:
                self.missing[host] = answer
        return None if self.missing else [self._found[host] for host in self._hosts]

    @property
    def rows(self) -> list[AttachedWorker]:
        return [
            seen(self._found[host]) if host in self._found else unseen(host, self.missing[host])
            for host in self._hosts
        ]

    def _look_for(self, host: str) -> Found | str:
        try:
            address = self._peers.address(host)
            status = self._peers.status(address)
        except PeerError as error:
            return str(error)
        if status["name"] != pod_of(host):
            return f"its name still leads to {status['name']}"
        if status["stopping"]:
            return "its pod is being stopped"
        return Found(host, address, self._peers.rpc_port, status)


def new_epoch() -> str:
    return uuid.uuid4().hex


def attach(
    found: Sequence[Found], leader: str, since: int, epoch: str, peers: Peers, pool: Executor
) -> list[Found | str]:
    """Has every worker start a clean RPC server under `epoch`: the worker as it is then, or why it
    did not."""

    def ask(worker: Found) -> Found | str:
        request: AttachRequest = {
            "epoch": epoch,
            "leader": leader,
            "leaderSince": since,
            "worker": worker.name,
        }
        try:
            status = peers.attach(worker.address, request, ATTACH_SECONDS)
        except PeerError as error:
            return str(error)
        return replace(worker, status=status)

    return list(pool.map(ask, found))


def compare_builds(own: EngineBuild, workers: Sequence[Found]) -> None:
    """Raises GroupError unless all have the leader's build of the engine."""
    other = {
        worker.name: worker.status["engine"]
        for worker in workers
        if worker.status["engine"]["build"] != own["build"]
    }
    if other:
        raise GroupError(
            Reason.EngineMismatch,
            f"the leader has llama.cpp {_told(own)} but "
            + ", ".join(f"{name} has {_told(build)}" for name, build in other.items())
            + ": all pods of a group need the same image",
        )


class Watch:
    """Looks at the attached workers and remembers the first loss."""

    def __init__(
        self,
        workers: Sequence[Found],
        epoch: str,
        peers: Peers,
        pool: Executor,
        on_change: Callable[[], None],
    ) -> None:
        self.lost: GroupError | None = None
        self.leaving: str | None = None
        """A worker that was told to stop and waits for its leader to let go."""
        self._workers = workers
        self._epoch = epoch
        self._peers = peers
        self._pool = pool
        self._on_change = on_change
        self._missed = dict.fromkeys((worker.name for worker in workers), 0)
        self.cpu = dict.fromkeys(self._missed, 0.0)
        """CPU seconds that the engine of each worker has taken, as last told."""
        self.held: dict[str, HeldMemory | None] = {
            worker.name: worker.status["memory"] for worker in workers
        }
        """What the engine of each worker holds, as last told."""
        self._held_before = self._held_bytes()

    @contextmanager
    def looking(self, clock: Clock) -> Iterator[Watch]:
        """Looks again and again, from a thread of its own, until a worker is lost."""
        done = Event()

        def look_again_and_again() -> None:
            while not clock.wait(done, WATCH_SECONDS) and not self.lost:
                self.look()

        Thread(target=look_again_and_again, daemon=True).start()
        try:
            yield self
        finally:
            done.set()

    def look(self, misses: int = MISSES) -> None:
        """Asks every worker once."""
        answers = self._pool.map(self._look_at, self._workers, repeat(misses))
        lost = [answer for answer in answers if answer]
        if lost and not self.lost:
            self.lost = GroupError(Reason.WorkerLost, "; ".join(lost) + "; the group forms anew")
            self._on_change()

    @property
    def received_bytes(self) -> int:
        """What the workers hold more than when they were attached: while the engine loads, the
        weights that they were sent."""
        return max(0, self._held_bytes() - self._held_before)

    def _held_bytes(self) -> int:
        return sum(memory["residentBytes"] for memory in self.held.values() if memory)

    def _look_at(self, worker: Found, misses: int) -> str | None:
        """What is lost with this worker, if it is."""
        try:
            status = self._peers.status(worker.address, self._epoch)
        except PeerError as error:
            self._missed[worker.name] += 1
            if self._missed[worker.name] < misses:
                return None
            return f"lost {worker.name}: {error}"
        self._missed[worker.name] = 0
        self.held[worker.name] = status["memory"]
        if status["child"]:
            self.cpu[worker.name] = status["child"]["cpuSeconds"]
        if status["epoch"] == self._epoch and status["name"] == worker.name:
            if status["stopping"] and not self.leaving:
                self.leaving = worker.name
                self._on_change()
            return None
        return f"lost {worker.name}: {status['message']}"


def seen(worker: Found, attached: bool = False) -> AttachedWorker:
    """A worker that answers, for the group's status."""
    return {
        "name": worker.name,
        "attached": attached,
        "threads": worker.status["threads"],
        "memoryLimitBytes": worker.status["memoryLimitBytes"],
        "memory": worker.status["memory"],
        "build": worker.status["engine"]["build"],
        "message": worker.status["message"],
    }


def unseen(host: str, message: str) -> AttachedWorker:
    """One that does not, and why."""
    return {
        "name": pod_of(host),
        "attached": False,
        "threads": None,
        "memoryLimitBytes": None,
        "memory": None,
        "build": None,
        "message": message,
    }


def _told(build: EngineBuild) -> str:
    return f"{build['version']} [{build['build']}]"
