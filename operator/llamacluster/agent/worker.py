"""The worker: keeps one RPC server of the engine running, clean for each leader that comes.

An RPC server whose leader vanished holds its memory and lets the next leader hang, so each leader,
each time that it forms the group, has it restarted (`attach`) under an epoch of its own. A server
that ended by itself is started again but belongs to no epoch: the leader sees that and forms anew.

Told to stop, it says so in its status and serves its leader on until that closes the connection:
either the leader is told to stop too and finishes its requests, or it finishes them because it sees
this worker leaving. A worker that no leader is connected to, or whose leader has not looked at it
for some seconds (a lost node closes no connection), stops at once.

Two pods may take themselves for the leader: one whose node was lost, and its successor. The one
that started first is refused for as long as the other is there. Should clocks that differ have put
them in the wrong order, that ends with the one that Kubernetes has given up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from threading import Event, Lock

from llamacluster.agent.api import Answer, Route
from llamacluster.agent.backoff import Backoff
from llamacluster.agent.clock import Clock
from llamacluster.agent.contract.messages import (
    AttachRequest,
    EngineBuild,
    HeldMemory,
    WorkerStatus,
)
from llamacluster.agent.contract.places import ATTACH, LIVEZ, READYZ, STATUS
from llamacluster.agent.drain import Drain
from llamacluster.agent.log import Log
from llamacluster.agent.process import Child, Launcher, stop

ATTACH_SECONDS = 20.0
STOP_SECONDS = 1.0
"""The RPC server has no state to save, and one in the midst of a request may not end by itself."""
STABLE_SECONDS = 60.0
LEADER_SILENT_SECONDS = 10.0
"""A leader looks at its workers every 2 seconds; after this long without a look it is gone."""
MAX_SINCE = 2**63
_LOOK_SECONDS = 0.02


class Worker:
    """One worker pod. `run` keeps the server up; the routes are served from other threads."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        listening: Callable[[], bool],
        connected: Callable[[], bool],
        engine: EngineBuild,
        threads: int,
        memory_limit_bytes: int | None,
        held_memory: Callable[[int], HeldMemory | None],
        drain: Drain,
        launcher: Launcher,
        clock: Clock,
        log: Log,
    ) -> None:
        self._name = name
        self._argv = argv
        self._listening = listening
        self._connected = connected
        self._engine = engine
        self._threads = threads
        self._memory_limit_bytes = memory_limit_bytes
        self._held_memory = held_memory
        self._drain = drain
        self._launcher = launcher
        self._clock = clock
        self._log = log

        self._wake = Event()  # the child ended, a leader asked to attach, or all is to stop
        self._looked_at = clock.monotonic()  # by its leader
        self._lock = Lock()  # guards what follows
        self._request: AttachRequest | None = None
        self._epoch: str | None = None
        self._leader: str | None = None
        self._leader_since = 0
        self._child: Child | None = None
        self._started = 0.0
        self._restarts = 0
        self._message = "starting"

    def run(self) -> None:
        """Keeps the RPC server running until `stop`, and then until its leader is done with it."""
        backoff = Backoff(0.5, 10.0)
        while not self._drain.has_begun:
            child = self._start()
            self._wait_while_it_runs(child)
            code, frozen = child.exit_code(), child.is_frozen()
            stop(child, STOP_SECONDS if self._drain.has_begun else 0)
            if self._drain.has_begun or self._request:
                continue
            if self._clock.monotonic() - self._started > STABLE_SECONDS:
                backoff.reset()
            self._lost(
                "RPC server was stopped by a signal, and is started anew"
                if frozen
                else f"RPC server ended with {_explained(code)}"
            )
            self._pause(backoff.next_seconds())

    def stop(self) -> None:
        """Makes `run` end the RPC server and return once no leader needs it; called again, at
        once."""
        self._drain.tell()
        self._wake.set()

    def _start(self) -> Child:
        self._wake.clear()
        with self._lock:
            request, self._request = self._request, None
            self._epoch = request["epoch"] if request else None
            self._leader = request["leader"] if request else None
            self._child = self._launcher.start(self._argv, self._log.passed_through, self._wake.set)
            self._started = self._clock.monotonic()
            if request:
                self._message = f"attached to {self._leader}"
            elif not self._restarts:
                self._message = "waiting for a leader"
        self._log.info(
            "started RPC server",
            pid=self._child.pid,
            threads=self._threads,
            epoch=self._epoch,
            leader=self._leader,
        )
        return self._child

    def _wait_while_it_runs(self, child: Child) -> None:
        while child.exit_code() is None and not child.is_frozen() and not self._request:
            if self._drain.is_over(busy=self._is_needed()):
                return
            self._clock.wait(self._wake, 0.2 if self._drain.has_begun else 1.0)
            self._wake.clear()

    def _is_needed(self) -> bool:
        return self._is_looked_at() and self._connected()

    def _is_looked_at(self) -> bool:
        return self._clock.monotonic() - self._looked_at < LEADER_SILENT_SECONDS

    def _lost(self, message: str) -> None:
        self._log.error(message, epoch=self._epoch)
        with self._lock:
            self._child, self._epoch, self._leader = None, None, None
            self._restarts += 1
            self._message = message

    def _pause(self, seconds: float) -> None:
        end = self._clock.monotonic() + seconds
        while (left := end - self._clock.monotonic()) > 0:
            if self._drain.has_begun or self._request:
                return
            self._clock.wait(self._wake, left)
            self._wake.clear()

    def attach(self, request: AttachRequest) -> Answer:
        """Restarts the RPC server for this leader; 200 with the status once it listens."""
        if request["worker"] != self._name:
            return Answer(421, f"this is {self._name}, not {request['worker']}")
        if self._drain.has_begun:
            return Answer(409, f"{self._name} was told to stop")
        with self._lock:
            refused = request["leaderSince"] < self._leader_since and self._is_looked_at()
            if not refused:
                self._request, self._leader_since = request, request["leaderSince"]
                self._looked_at = self._clock.monotonic()
        if refused:
            return Answer(409, f"{self._name} is with a leader that started after this one")
        self._log.info("attaching", leader=request["leader"], epoch=request["epoch"])
        self._wake.set()
        deadline = self._clock.monotonic() + ATTACH_SECONDS
        never = Event()
        while self._clock.monotonic() < deadline and not self._drain.has_begun:
            with self._lock:
                pending, ours = self._request is request, self._epoch == request["epoch"]
            if not pending and not ours:
                return Answer(409, f"not attached any more: {self._message}")
            if ours and self._listening():
                return Answer(200, self.status())
            self._clock.wait(never, _LOOK_SECONDS)
        return Answer(503, f"the RPC server does not listen: {self._message}")

    def status(self) -> WorkerStatus:
        with self._lock:
            child = self._child
            return {
                "role": "worker",
                "name": self._name,
                "epoch": self._epoch,
                "leader": self._leader,
                "stopping": self._drain.has_begun,
                "listening": child is not None and self._listening(),
                "message": self._message,
                "threads": self._threads,
                "memoryLimitBytes": self._memory_limit_bytes,
                "memory": self._held_memory(child.pid) if child else None,
                "engine": self._engine,
                "child": {
                    "pid": child.pid,
                    "uptimeSeconds": round(self._clock.monotonic() - self._started, 3),
                    "restarts": self._restarts,
                    "cpuSeconds": child.cpu_seconds(),
                }
                if child
                else None,
            }

    def routes(self) -> dict[str, Route]:
        return {
            f"GET {LIVEZ}": lambda _: Answer(200, "ok"),
            f"GET {READYZ}": lambda _: self._readiness(),
            f"GET {STATUS}": self._looked,
            f"POST {ATTACH}": self._attach_from,
        }

    def _looked(self, epoch: bytes) -> Answer:
        status = self.status()
        if epoch.decode() == status["epoch"]:
            self._looked_at = self._clock.monotonic()
        return Answer(200, status)

    def _readiness(self) -> Answer:
        status = self.status()
        if status["stopping"]:
            return Answer(503, f"{self._name} was told to stop")
        if status["listening"]:
            return Answer(200, "ok")
        return Answer(503, f"the RPC server does not listen: {status['message']}")

    def _attach_from(self, body: bytes) -> Answer:
        try:
            value: object = json.loads(body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            return Answer(400, "the body must be a JSON object")
        words = [value.get(key) for key in ("epoch", "leader", "worker")]
        if not all(isinstance(word, str) and 0 < len(word) <= 253 for word in words):
            return Answer(400, "epoch, leader and worker must be texts of 1 to 253 characters")
        since = value.get("leaderSince")
        if not isinstance(since, int) or not 0 < since < MAX_SINCE:
            return Answer(400, "leaderSince must be a number of milliseconds")
        epoch, leader, worker = map(str, words)
        return self.attach(
            {"epoch": epoch, "leader": leader, "leaderSince": since, "worker": worker}
        )


def _explained(code: int | None) -> str:
    if code == 137:
        return "137 (killed: most likely over the pod's memory limit)"
    if code == 0:
        return "0 (it does so when it cannot listen or does not know a flag)"
    return str(code)
