"""A model of the world for real agents: pods that die, freeze, are cut off and come again.

Leader and workers are the real ones, from `run` to their routes; processes, sockets, the network
and the time are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from threading import Event, Thread

from llamacluster.agent.contract.messages import AttachRequest, WorkerStatus
from llamacluster.agent.contract.options import LeaderOptions
from llamacluster.agent.contract.places import READYZ, SERVING, STATUS, WELCOMING
from llamacluster.agent.drain import Drain
from llamacluster.agent.fetch import ModelStore
from llamacluster.agent.leader import Leader
from llamacluster.agent.log import Log
from llamacluster.agent.peers import PeerError, Peers
from llamacluster.agent.process import Child
from llamacluster.agent.source import Web
from llamacluster.agent.status import GroupStatus
from llamacluster.agent.worker import Worker
from llamacluster.planning.reasons import GroupError
from tests.unit.agent.fakes import (
    BUILD,
    HELD,
    FakeChild,
    FakeHttp,
    FakeLauncher,
    FakeSockets,
)
from tests.unit.agent.turns import OneAtATime, TurnClock

LAYERS = (3, 2)
LOAD_SECONDS = 3.0
GRACE_SECONDS = 60
STEP_SECONDS = 0.5
NEVER = Event()


@dataclass
class Pod:
    """Processes of one pod, and whether the network reaches it."""

    name: str
    launcher: FakeLauncher
    drain: Drain
    reached: bool = True
    answers: bool = True
    """False: frozen as a whole; connections to it hang."""
    thread: Thread | None = None
    error: BaseException | None = None

    @property
    def alive(self) -> list[FakeChild]:
        return [child for _, child in self.launcher.started if child.exit_code() is None]

    @property
    def has_ended(self) -> bool:
        return self.thread is None or not self.thread.is_alive()

    def start(self, run: Callable[[], None]) -> None:
        def life() -> None:
            try:
                run()
            except BaseException as error:
                self.error = error
                raise

        self.thread = Thread(target=life, daemon=True, name=self.name)
        self.thread.start()


@dataclass
class WorkerPod(Pod):
    worker: Worker = field(init=False)


@dataclass
class LeaderPod(Pod):
    leader: Leader = field(init=False)
    status: GroupStatus = field(init=False)
    http: EngineOf = field(init=False)
    sockets: FakeSockets = field(default_factory=FakeSockets)
    used: list[Child] = field(default_factory=list)
    """The workers' processes that the last engine was started with."""
    told_at: float | None = None

    @property
    def is_ready(self) -> bool:
        return not self.has_ended and self.leader.routes()[f"GET {READYZ}"](b"").code == 200


class EngineOf(FakeHttp):
    """llama-server's HTTP: healthy when it has loaded; it hangs when told to."""

    def __init__(self, pod: LeaderPod, clock: TurnClock) -> None:
        self._pod = pod
        self._clock = clock
        self.began = 0.0
        self.hangs = False
        self.stalls = False
        """Its load gets no further."""
        self.token: GroupError | None = None

    def is_healthy(self) -> bool:
        loaded = self._clock.monotonic() - self.began >= LOAD_SECONDS
        return bool(self._pod.alive) and loaded and not self.stalls

    def metrics(self, seconds: float) -> str | None:
        if self.hangs:
            self._clock.wait(NEVER, seconds)
        return None if self.hangs else ""


class Network(Peers):
    """Leads to the pods that have the names now."""

    def __init__(self, world: World, asker: Callable[[], LeaderPod]) -> None:
        self._world = world
        self._asker = asker

    def address(self, host: str) -> str:
        name = host.partition(".")[0]
        if name not in self._world.workers:
            raise PeerError("its name has no address yet")
        return name

    def status(self, address: str, epoch: str = "") -> WorkerStatus:
        answer = self._reach(address, 2.0).routes()[f"GET {STATUS}"](epoch.encode())
        return answer.body  # type: ignore[return-value]

    def attach(self, address: str, request: AttachRequest, seconds: float) -> WorkerStatus:
        answer = self._reach(address, seconds).attach(request)
        if answer.code != 200:
            raise PeerError(str(answer.body))
        self._reach(address, seconds)  # the answer has its way, too
        self._world.attached.append((address, request["epoch"]))
        return answer.body  # type: ignore[return-value]

    def _reach(self, address: str, seconds: float) -> Worker:
        pod = self._world.workers.get(address)
        if pod is None or not pod.reached or not self._asker().reached or not pod.answers:
            self._world.clock.wait(NEVER, seconds)
            raise PeerError(f"its agent does not answer within {seconds:g} s")
        if pod.has_ended:
            raise PeerError("its agent does not answer")
        return pod.worker


class World:
    """One group, x-0 with two workers."""

    def __init__(self, model: Path) -> None:
        self.clock = TurnClock()
        self.log = StringIO()
        self._model = model
        self.workers: dict[str, WorkerPod] = {}
        self.attached: list[tuple[str, str]] = []
        self.leaders: list[LeaderPod] = []
        """The last is the group's; before it those of lost nodes, which Kubernetes has replaced and
        which may still run."""
        self.gone: list[Pod] = []
        self.broken_since: float | None = None
        for index in range(1, len(LAYERS) + 1):
            self.make_worker(f"x-0-{index}")
        self.make_leader()

    def make_worker(self, name: str) -> None:
        launcher, drain = FakeLauncher(), Drain(GRACE_SECONDS, self.clock)
        pod = WorkerPod(name, launcher, drain)
        pod.worker = Worker(
            name,
            ["rpc"],
            listening=lambda: bool(pod.alive),
            connected=lambda: self._is_connected(pod),
            engine=BUILD,
            threads=1,
            memory_limit_bytes=None,
            held_memory=lambda _: HELD,
            drain=drain,
            launcher=launcher,
            clock=self.clock,
            log=Log(name, self.log),
        )
        self.workers[name] = pod
        pod.start(pod.worker.run)
        self.clock.settle()

    def make_leader(self, clock_is_behind_seconds: float = 0) -> None:
        """`clock_is_behind_seconds`: that of its node, as seen from the others."""
        started = self.clock.now().timestamp() - clock_is_behind_seconds
        drain, stopping, log = Drain(GRACE_SECONDS, self.clock), Event(), Log("x-0", self.log)
        pod = LeaderPod("x-0", FakeLauncher(), drain)
        pod.http = EngineOf(pod, self.clock)
        pod.status = GroupStatus("x-0", BUILD, 1, None, self.clock)

        def begin(_: FakeChild) -> None:
            pod.http.began = self.clock.monotonic()
            pod.http.hangs = pod.http.stalls = False
            pod.used = [each.launcher.last for each in self.workers.values()]

        pod.launcher.begin = begin
        folder = self._model.parent
        pod.leader = Leader(
            LeaderOptions(f"file://{self._model}", LAYERS, 1024, 1, grace_seconds=GRACE_SECONDS),
            "x-0.x.ns",
            "llama-server",
            threads=1,
            build=BUILD,
            status=pod.status,
            store=ModelStore(folder, folder, folder, log, stopping, Web()),
            peers=Network(self, lambda: pod),
            launcher=pod.launcher,
            http=pod.http,
            sockets=pod.sockets,
            held_memory=lambda _: HELD,
            drain=drain,
            pool=OneAtATime(),
            clock=self.clock,
            log=log,
            stopping=stopping,
            since=int(1000 * started),
        )
        self.leaders.append(pod)
        pod.start(pod.leader.run)
        self.clock.settle()

    @property
    def leader(self) -> LeaderPod:
        return self.leaders[-1]

    @property
    def pods(self) -> list[Pod]:
        return [*self.workers.values(), *self.leaders, *self.gone]

    def is_whole(self) -> bool:
        """Whether a request would be answered, whatever anybody says."""
        leader = self.leader
        return (
            leader.reached
            and not leader.http.hangs
            and bool(leader.alive)
            and not leader.alive[0].frozen
            and all(
                pod.reached
                and pod.answers
                and pod.alive == [used]
                and not pod.alive[0].frozen
                and pod.worker.status()["epoch"] == leader.status.epoch
                for pod, used in zip(self.workers.values(), leader.used, strict=True)
            )
        )

    def pass_time(self, seconds: float, look: Callable[[], None] = lambda: None) -> None:
        """With a look, and the gate's question, after every step."""
        end = self.clock.monotonic() + seconds
        while (left := end - self.clock.monotonic()) > 1e-9:
            self.clock.pass_time(min(left, STEP_SECONDS))
            now = self.clock.monotonic()
            for pod in self.leaders:
                if pod.told_at is not None and now - pod.told_at > 1.5:
                    pod.sockets.listens = False
                if not pod.has_ended:
                    for path in (SERVING, WELCOMING):
                        pod.leader.routes()[f"GET {path}"](b"")
            if self.is_whole():
                self.broken_since = None
            elif self.broken_since is None:
                self.broken_since = now
            look()

    def end(self, pod: Pod) -> None:
        """All of its processes at once, as when its node loses power; its thread is ended too."""
        pod.reached = False
        for child in pod.alive:
            child.end(137)
        self._tell(pod)
        self._tell(pod)
        self.remove(pod)

    def remove(self, pod: Pod) -> None:
        """It is no part of the group any more."""
        self.gone.append(pod)
        if isinstance(pod, LeaderPod):
            self.leaders.remove(pod)

    def tell(self, pod: Pod) -> None:
        """SIGTERM."""
        if isinstance(pod, LeaderPod) and pod.told_at is None:
            pod.told_at = self.clock.monotonic()
        self._tell(pod)

    def _tell(self, pod: Pod) -> None:
        if isinstance(pod, LeaderPod):
            pod.leader.stop()
        elif isinstance(pod, WorkerPod):
            pod.worker.stop()

    def _is_connected(self, pod: WorkerPod) -> bool:
        return any(
            leader.alive and any(child in leader.used for child in pod.alive)
            for leader in self.leaders
        )
