"""Stand-ins for the edges: time, processes, the network."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event, Lock, get_ident

from llamacluster.agent.clock import Clock
from llamacluster.agent.contract.messages import (
    AttachRequest,
    EngineBuild,
    GateStatus,
    HeldMemory,
    WorkerStatus,
)
from llamacluster.agent.engine import EngineHttp
from llamacluster.agent.gatesockets import GateSockets
from llamacluster.agent.metrics import GateLoad
from llamacluster.agent.peers import PeerError, Peers
from llamacluster.agent.process import Child, Launcher
from llamacluster.planning.reasons import GroupError
from tests.unit.agent.realtime import until

BUILD: EngineBuild = {"version": "0.7.0", "build": "aaaa"}
HELD: HeldMemory = {"residentBytes": 3 << 20, "peakBytes": 4 << 20}


class FastClock(Clock):
    """Waiting moves the time on and costs a millisecond. Of several threads that wait each gets its
    turn: none is overtaken while the machine lets it stand."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._lock = Lock()
        self._due: dict[int, float] = {}
        """When the wait of each thread ends."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        return self._seconds

    @contextmanager
    def held(self) -> Iterator[Callable[[float], None]]:
        """Time stands still, but for the seconds by which the test moves it on: however long the
        machine lets the test stand, nothing is overdue."""
        test = 0  # no thread has this identifier
        with self._lock:
            self._due[test] = self._seconds

        def move_on(seconds: float) -> None:
            with self._lock:
                due = self._due[test] = self._seconds + seconds
            until(lambda: self._seconds >= due)

        try:
            yield move_on
        finally:
            with self._lock:
                del self._due[test]

    def wait(self, event: Event, seconds: float) -> bool:
        thread = get_ident()
        with self._lock:
            due = self._due[thread] = self._seconds + max(0.0, seconds)
        try:
            while not event.wait(0.001):
                with self._lock:
                    self._seconds = max(self._seconds, min(self._due.values()))
                    if self._seconds >= due:
                        return False
            return True
        finally:
            with self._lock:
                del self._due[thread]


class FakeChild:
    """A process that runs until it is told to end."""

    def __init__(self, pid: int, on_line: Callable[[str], None], on_exit: Callable[[], None]):
        self.pid = pid
        self.say = on_line
        self._on_exit = on_exit
        self._code: int | None = None
        self.frozen = False
        self.cpu = self.main_cpu = 0.0

    def end(self, code: int) -> None:
        if self._code is None:
            self._code = code
            self._on_exit()

    def exit_code(self) -> int | None:
        return self._code

    def send(self, signum: signal.Signals) -> None:
        self.end(128 + signum)

    def wait(self, seconds: float) -> int | None:  # noqa: ARG002
        return self._code

    def is_frozen(self) -> bool:
        return self.frozen and self._code is None

    def cpu_seconds(self) -> float:
        return self.cpu

    def main_cpu_seconds(self) -> float:
        return self.main_cpu

    def read_bytes(self) -> int:
        return 0


class FakeLauncher(Launcher):
    """Remembers what it started; `begin` decides how each child's life begins."""

    def __init__(self, begin: Callable[[FakeChild], None] = lambda _: None) -> None:
        super().__init__()
        self.begin = begin
        self.started: list[tuple[Sequence[str], FakeChild]] = []

    def start(
        self, argv: Sequence[str], on_line: Callable[[str], None], on_exit: Callable[[], None]
    ) -> Child:
        child = FakeChild(100 + len(self.started), on_line, on_exit)
        self.started.append((argv, child))
        self.begin(child)
        return child

    @property
    def last(self) -> FakeChild:
        return self.started[-1][1]


@dataclass
class FakePeers(Peers):
    """Workers at `addr-<pod>`; the `silent` do not answer, the `nameless` have no address, the
    `stopping` were told to stop."""

    silent: set[str] = field(default_factory=set)
    nameless: set[str] = field(default_factory=set)
    stopping: set[str] = field(default_factory=set)
    builds: dict[str, EngineBuild] = field(default_factory=dict)
    epochs: dict[str, str | None] = field(default_factory=dict)
    attached: list[AttachRequest] = field(default_factory=list)

    def address(self, host: str) -> str:
        name = host.partition(".")[0]
        if name in self.nameless:
            raise PeerError("its name has no address yet")
        return f"addr-{name}"

    def status(self, address: str, epoch: str = "") -> WorkerStatus:  # noqa: ARG002
        name = address.removeprefix("addr-")
        if name in self.silent:
            raise PeerError("its agent does not answer")
        return {
            "role": "worker",
            "name": name,
            "epoch": self.epochs.get(name),
            "leader": None,
            "stopping": name in self.stopping,
            "listening": True,
            "message": f"message of {name}",
            "threads": 2,
            "memoryLimitBytes": 1 << 30,
            "memory": HELD,
            "engine": self.builds.get(name, BUILD),
            "child": None,
        }

    def attach(
        self,
        address: str,
        request: AttachRequest,
        seconds: float,  # noqa: ARG002
    ) -> WorkerStatus:
        status = self.status(address)
        self.attached.append(request)
        self.epochs[request["worker"]] = request["epoch"]
        status["epoch"] = request["epoch"]
        return status


@dataclass
class FakeSockets(GateSockets):
    """A gate that lets in until told otherwise, and the requests behind it."""

    listens: bool = True
    clients: int = 0
    running: int = 0
    says: GateStatus | None = None
    counts: GateLoad | None = None

    def told(self) -> GateStatus | None:
        return self.says

    def load(self) -> GateLoad | None:
        return self.counts

    def gate_listens(self) -> bool:
        return self.listens

    def gate_is_open(self) -> bool:
        return self.listens or self.clients > 0

    def running_requests(self) -> int:
        return self.running


@dataclass
class FakeHttp(EngineHttp):
    """An engine that is healthy and answers, unless told otherwise."""

    healthy: bool = True
    responsive: bool = True
    gets_on: bool = True
    steps: int = 0
    token: GroupError | None = None
    asked: int = 0

    def is_healthy(self) -> bool:
        return self.healthy

    def metrics(self, seconds: float) -> str | None:  # noqa: ARG002
        self.steps += self.gets_on
        told = f"llamacpp:requests_processing 1\nllamacpp:n_decode_total {self.steps}\n"
        return told if self.responsive else None

    def slots(self, seconds: float) -> str | None:  # noqa: ARG002
        return '[{"n_ctx": 512, "is_processing": true, "n_prompt_tokens": 7}]'

    def make_first_token(self, embeddings: bool, seconds: float) -> None:  # noqa: ARG002
        self.asked += 1
        if self.token:
            raise self.token
