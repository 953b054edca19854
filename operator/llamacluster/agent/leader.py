"""The leader: forms the group out of its workers and keeps it serving.

`Leader.run` tries until told to stop; one try is `_form_and_serve`, from the model's file to the
group's end. Whatever goes wrong in it is a GroupError, which is said in the status and in the log,
and after a wait the next try begins at the top. What is there already (the model's file, the
workers' agents) costs a try nothing.

Two things end a group that serves and yet let its requests finish. When the leader is told to stop,
it keeps the engine until the gate, which is told at the same time, has let its last client go. When
a worker alone is told to stop, the gate is told to turn new requests away, and the group forms anew
when the engine has answered what it has.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import repeat
from threading import Event, Thread

from llamacluster.agent.api import Answer, Route
from llamacluster.agent.backoff import Backoff
from llamacluster.agent.clock import Clock
from llamacluster.agent.contract import (
    ENGINE_PORT,
    LIVEZ,
    MAX_WORKERS,
    READYZ,
    RPC_PORT,
    SERVING,
    STATUS,
    AttachedWorker,
    AttachRequest,
    EngineBuild,
    HeldMemory,
    LeaderOptions,
    Phase,
    WorkerStatus,
)
from llamacluster.agent.drain import Drain
from llamacluster.agent.engine import EngineHttp, server_argv
from llamacluster.agent.engine_log import EngineLog
from llamacluster.agent.fetch import ModelFiles, ModelStore, Stopped
from llamacluster.agent.headers import check_whole
from llamacluster.agent.listening import connections, is_in_use, is_listening
from llamacluster.agent.log import Log
from llamacluster.agent.peers import PeerError, Peers
from llamacluster.agent.process import Child, Launcher, stop
from llamacluster.agent.pulse import Pulse
from llamacluster.agent.source import shown
from llamacluster.agent.status import GroupStatus
from llamacluster.planning.gguf import GgufError, Header, read_header
from llamacluster.planning.reasons import GroupError, Reason
from llamacluster.planning.split import assigned_device, tensor_split

SEARCH_SECONDS = 0.5
"""Between two looks for workers that are not there yet."""
ATTACH_SECONDS = 25.0
"""A little more than the worker gives itself."""
WATCH_SECONDS = 2.0
"""Between two looks at each worker."""
MISSES = 2
"""Looks in a row without an answer after which a worker is lost."""
HEALTH_SECONDS = 0.1
FIRST_TOKEN_SECONDS = 300.0
STOP_SECONDS = 5.0
DRAIN_LOOK_SECONDS = 0.2
"""Between two looks at whether the last request has ended."""
GATE_CLOSES_SECONDS = 5.0
"""After which a gate that was told to stop together with the leader listens no more."""
GATE_NOTICES_SECONDS = 2.5
"""After which the gate is sure to have seen, by its checks, that it must let nobody in."""
STABLE_SECONDS = 10.0
"""A group that has served for so long is formed anew at once, however often it was lost before:
what strikes it each minute is nothing that it has to be kept from."""


@dataclass(frozen=True)
class Found:
    """A worker whose agent answers."""

    host: str
    """Its name in the group's headless Service."""
    address: str
    """IPv4 address that the name had when its agent answered."""
    status: WorkerStatus

    @property
    def name(self) -> str:
        """Pod name."""
        return _pod(self.host)

    @property
    def endpoint(self) -> str:
        """For the engine, which looks a name up again for each of its many connections: DNS caches
        may still lead some of them to a worker's predecessor, and a connection to nobody takes
        134 s to fail. So it gets the address at which the worker's agent answered by its name."""
        return f"{self.address}:{RPC_PORT}"


class Leader:
    """One leader pod. `run` is the group's life; the routes are served from other threads."""

    def __init__(
        self,
        options: LeaderOptions,
        address: str,
        program: str,
        threads: int,
        build: EngineBuild,
        status: GroupStatus,
        store: ModelStore,
        peers: Peers,
        launcher: Launcher,
        http: EngineHttp,
        sockets: GateSockets,
        held_memory: Callable[[int], HeldMemory | None],
        drain: Drain,
        clock: Clock,
        log: Log,
        stopping: Event,
    ) -> None:
        self._options = options
        self._name, self._hosts = worker_hosts(address, len(options.layers))
        self._program = program
        self._threads = threads
        self._build = build
        self._status = status
        self._store = store
        self._peers = peers
        self._launcher = launcher
        self._http = http
        self._sockets = sockets
        self._drain = drain
        self._held_memory = held_memory
        self._clock = clock
        self._log = log
        self._stopping = stopping
        self._wake = Event()  # something happened that the current wait should look at
        self._ready_since = float("inf")
        self._serving = False  # the engine takes requests
        self._gate_knows = Event()  # that the engine takes requests
        self._leaving_since = float("inf")  # a worker is told to stop
        self._pool = ThreadPoolExecutor(MAX_WORKERS)

    def run(self) -> None:
        """Forms the group, again and again, until `stop`."""
        backoff = Backoff(0.5, 30.0)
        while not self._stopping.is_set():
            self._ready_since = self._leaving_since = float("inf")
            try:
                self._form_and_serve()
            except GroupError as error:
                if self._drain.has_begun:
                    return
                self._status.fail(error)
                # A long load that fails each time is not stable: only serving counts.
                if self._clock.monotonic() - self._ready_since > STABLE_SECONDS:
                    backoff.reset()
                wait = backoff.next_seconds()
                self._log.error(error.message, reason=error.reason, retry_seconds=f"{wait:.1f}")
                self._clock.wait(self._stopping, wait)
            except Stopped:
                return

    def stop(self) -> None:
        """Makes `run` end the engine and return, once the running requests are finished; called
        again, at once. The group is unready from now on."""
        self._status.enter(
            Phase.Stopping,
            Reason.Stopping,
            "the leader was told to stop" + ("; running requests finish" if self._serving else ""),
        )
        self._drain.tell()
        if not self._serving or self._drain.is_at_its_end:
            self._stopping.set()
        self._wake.set()

    def _form_and_serve(self) -> None:
        """One life of the group. Ends only by an exception."""
        self._status.begin_try()
        model = self._get_model()
        header = self._read_header(model)
        found = self._wait_for_workers()
        began = self._clock.monotonic()
        epoch, workers = self._attach(found)
        self._compare_builds(workers)
        with (
            self._engine(model, header, workers) as engine,
            self._watched(workers, epoch) as watch,
        ):
            self._wait_until_loaded(engine, watch)
            self._tell_placement(engine, header, workers)
            self._make_first_token(engine, watch)
            self._let_the_gate_open(engine, watch)
            self._status.formed_seconds = round(self._clock.monotonic() - began, 3)
            self._become_ready()
            self._serve(engine, watch)

    # The model.

    def _get_model(self) -> ModelFiles:
        self._enter(Phase.Fetching, Reason.Starting, "looking for the model")
        try:
            return self._store.obtain(
                self._options.model_uri,
                self._options.model_sha256,
                _ModelProgress(self._status, self._log, self._clock),
            )
        except OSError as error:
            raise _unreadable(error) from error
        finally:
            self._status.download = None

    def _read_header(self, model: ModelFiles) -> Header:
        """The model's header, which must be of the model that the layers were planned for."""
        try:
            with model.path.open("rb") as file:
                header = read_header(file)
            block_count, context = header.block_count, header.context_length
        except GgufError as error:
            raise GroupError(Reason.ModelInvalid, f"{model.path.name}: {error}") from error
        except OSError as error:
            raise _unreadable(error) from error
        self._status.model = {
            "uri": shown(self._options.model_uri),
            "file": str(model.path),
            "bytes": model.bytes,
            "architecture": header.architecture,
            "layers": block_count,
            "contextTrain": context,
            "name": header.name,
        }
        self._check_whole(model, header)
        planned = sum(self._options.layers)
        if planned != block_count + 1:
            raise GroupError(
                Reason.ModelChanged,
                f"{model.path.name} has {block_count} layers and an output layer, but the plan is"
                f" for {planned}: the file at model.uri is not the one that was planned for; set"
                " model.sha256 so that it is planned anew",
            )
        return header

    def _check_whole(self, model: ModelFiles, header: Header) -> None:
        if header.split_count != len(model.files):
            raise GroupError(
                Reason.ModelInvalid,
                f"{model.path.name} is one of {header.split_count} files of its model, but"
                f" {len(model.files)} were found: name the first NAME-00001-of-0000N.gguf",
            )
        with suppress(GgufError):  # a tensor's type is newer than this agent: the engine will judge
            check_whole(model.path.name, header, model.path.stat().st_size)

    # The workers.

    def _wait_for_workers(self) -> list[Found]:
        found: dict[str, Found] = {}
        while True:
            missing: dict[str, str] = {}
            asked = [host for host in self._hosts if host not in found]
            for host, answer in zip(asked, self._pool.map(self._look_for, asked), strict=True):
                if isinstance(answer, Found):
                    found[host] = answer
                else:
                    missing[host] = answer
            self._status.workers = [
                _seen(found[host]) if host in found else _unseen(host, missing[host])
                for host in self._hosts
            ]
            if not missing:
                return [found[host] for host in self._hosts]
            self._enter(
                Phase.Forming,
                Reason.WaitingForWorkers,
                f"{len(missing)} of {len(self._hosts)} workers missing: "
                + "; ".join(f"{_pod(host)}: {why}" for host, why in missing.items()),
            )
            if self._clock.wait(self._stopping, SEARCH_SECONDS):
                raise Stopped

    def _look_for(self, host: str) -> Found | str:
        try:
            address = self._peers.address(host)
            status = self._peers.status(address)
        except PeerError as error:
            return str(error)
        if status["name"] != _pod(host):
            return f"its name still leads to {status['name']}"
        if status["stopping"]:
            return "its pod is being stopped"
        return Found(host, address, status)

    def _attach(self, found: Sequence[Found]) -> tuple[str, list[Found]]:
        epoch = uuid.uuid4().hex
        self._status.epoch = epoch
        self._enter(Phase.Forming, Reason.Attaching, f"attaching {len(found)} workers")

        def attach(worker: Found) -> Found | str:
            request: AttachRequest = {
                "epoch": epoch,
                "leader": self._name,
                "worker": worker.name,
            }
            try:
                status = self._peers.attach(worker.address, request, ATTACH_SECONDS)
            except PeerError as error:
                return str(error)
            return replace(worker, status=status)

        answers = list(self._pool.map(attach, found))
        self._status.workers = [
            _seen(answer, attached=True)
            if isinstance(answer, Found)
            else _unseen(worker.name, answer)
            for worker, answer in zip(found, answers, strict=True)
        ]
        failed = [row for row in self._status.workers if not row["attached"]]
        if failed:
            raise GroupError(
                Reason.WorkerLost,
                "; ".join(f"{row['name']} did not attach: {row['message']}" for row in failed),
            )
        return epoch, [answer for answer in answers if isinstance(answer, Found)]

    def _compare_builds(self, workers: Sequence[Found]) -> None:
        other = {
            worker.name: worker.status["engine"]
            for worker in workers
            if worker.status["engine"]["build"] != self._build["build"]
        }
        if other:
            raise GroupError(
                Reason.EngineMismatch,
                f"the leader has llama.cpp {_told(self._build)} but "
                + ", ".join(f"{name} has {_told(build)}" for name, build in other.items())
                + ": all pods of a group need the same image",
            )

    # The engine.

    @contextmanager
    def _engine(
        self,
        model: ModelFiles,
        header: Header,
        workers: Sequence[Found],
    ) -> Iterator[_Engine]:
        log = EngineLog()
        engine = _Engine(log, self._clock.monotonic())

        def line(text: str) -> None:
            log.add(text)
            self._log.passed_through(text)

        argv = server_argv(
            self._program,
            self._options,
            model.path,
            header,
            [worker.endpoint for worker in workers],
            self._threads,
        )
        self._enter(
            Phase.Loading,
            Reason.Loading,
            f"loading {model.bytes} bytes into {len(workers)} workers",
        )
        self._log.info("starting engine", argv=shlex.join(argv))
        engine.child = self._launcher.start(argv, line, self._wake.set)
        try:
            yield engine
        except GroupError as error:
            self._status.fail(error)  # unready at once, before the engine is gone
            raise
        finally:
            # An engine whose worker is lost may hang for ever: no grace for it.
            self._serving = False
            self._status.placement, self._status.leader, self._status.memory = [], None, None
            stop(engine.child, STOP_SECONDS if self._drain.has_begun else 0)

    def _wait_until_loaded(self, engine: _Engine, watch: _Watch) -> None:
        self._wait(engine, watch, until=self._http.is_healthy)
        self._status.load_seconds = round(self._clock.monotonic() - engine.started, 3)

    def _make_first_token(self, engine: _Engine, watch: _Watch) -> None:
        self._enter(Phase.Loading, Reason.Probing, "making a first token through all workers")
        token = self._pool.submit(
            self._http.make_first_token, self._options.embeddings, FIRST_TOKEN_SECONDS
        )
        token.add_done_callback(lambda _: self._wake.set())
        self._wait(engine, watch, until=token.done)
        token.result()

    def _has_requests(self) -> bool:
        """Whether a leader that was told to stop still has some to come or to finish."""
        if self._gate_stays_open():
            return self._sockets.running_requests() > 0
        return self._sockets.gate_is_open()

    def _gate_stays_open(self) -> bool:
        """Whether the leader was told to stop alone, not the pod: its liveness probe failed."""
        return self._drain.lasts > GATE_CLOSES_SECONDS and self._sockets.gate_listens()

    def _let_the_gate_open(self, engine: _Engine, watch: _Watch) -> None:
        self._enter(Phase.Loading, Reason.Probing, "waiting for the gate to let requests in")
        self._gate_knows.clear()
        self._serving = True
        self._wait(engine, watch, until=self._gate_knows.is_set)

    def _tell_placement(self, engine: _Engine, header: Header, workers: Sequence[Found]) -> None:
        devices = assigned_device(tensor_split(self._options.layers), header.block_count)
        self._status.placement = engine.log.placement(
            [worker.name for worker in workers], [worker.endpoint for worker in workers], devices
        )
        self._status.leader = engine.log.leader_memory(devices)
        for row in self._status.placement:
            self._log.info("placed", **row)

    def _become_ready(self) -> None:
        self._ready_since = self._clock.monotonic()
        self._enter(Phase.Ready, Reason.Ready, f"serving with {len(self._hosts)} workers")
        self._log.info(
            "ready",
            formed_seconds=self._status.formed_seconds,
            load_seconds=self._status.load_seconds,
        )

    def _serve(self, engine: _Engine, watch: _Watch) -> None:
        """Serves for as long as the group is whole. Ends only by an exception."""
        pulse = Pulse(
            self._http.is_responsive, lambda: engine.cpu_seconds() + sum(watch.cpu.values())
        )
        done = Event()

        def look_again_and_again() -> None:
            while not self._clock.wait(done, WATCH_SECONDS) and not pulse.stopped:
                pulse.look()
            self._wake.set()

        Thread(target=look_again_and_again, daemon=True).start()
        try:
            self._wait(engine, watch, until=lambda: pulse.stopped or self._is_drained(watch))
        finally:
            done.set()
        if not pulse.stopped:
            raise Stopped
        raise GroupError(
            Reason.EngineHung,
            "a request is under way, and neither the engine nor any worker works on it: a worker"
            " does not answer the engine; the group forms anew",
        )

    def _wait(self, engine: _Engine, watch: _Watch, until: Callable[[], bool]) -> None:
        """Waits until that is so. Raises GroupError as soon as the group is broken."""
        assert engine.child is not None  # noqa: S101 - started
        while True:
            if self._stopping.is_set():
                raise Stopped
            if watch.lost:
                raise watch.lost
            if (code := engine.child.exit_code()) is not None:
                raise self._why_it_ended(engine, code, watch)
            if engine.child.is_frozen():
                raise GroupError(
                    Reason.EngineHung,
                    "the engine was stopped by a signal (SIGSTOP); the group forms anew",
                )
            if until():
                return
            self._status.tokens_per_second = engine.log.tokens_per_second
            self._status.memory = self._held_memory(engine.child.pid)
            self._status.workers = [
                {**row, "memory": watch.held[row["name"]]} for row in self._status.workers
            ]
            self._clock.wait(self._wake, self._seconds_to_wait())
            self._wake.clear()

    def _seconds_to_wait(self) -> float:
        if self._status.is_ready:
            return WATCH_SECONDS
        return DRAIN_LOOK_SECONDS if self._serving else HEALTH_SECONDS

    def _is_drained(self, watch: _Watch) -> bool:
        """Whether a leader that was told to stop has served its last request. Raises GroupError
        when a group with a worker that was told to stop has."""
        if self._drain.has_begun:
            return self._drain.is_over(busy=self._has_requests())
        if watch.leaving:
            now = self._clock.monotonic()
            self._leaving_since = min(self._leaving_since, now)
            running = self._sockets.running_requests()
            self._enter(
                Phase.Draining,
                Reason.WorkerLeaving,
                f"{watch.leaving} is being stopped: {running} running requests finish, then the"
                " group forms anew",
            )
            if not running and now - self._leaving_since >= GATE_NOTICES_SECONDS:
                raise GroupError(
                    Reason.WorkerLeaving,
                    f"{watch.leaving} is being stopped; the group forms anew with its successor",
                )
        return False

    def _why_it_ended(self, engine: _Engine, code: int, watch: _Watch) -> GroupError:
        error = engine.log.why_it_ended(code)
        if error.reason is Reason.WorkerLost:
            watch.look(misses=1)  # it names the worker
            return watch.lost or error
        return error

    @contextmanager
    def _watched(self, workers: Sequence[Found], epoch: str) -> Iterator[_Watch]:
        watch = _Watch(workers, epoch, self._peers, self._pool, self._wake.set)
        done = Event()

        def look_again_and_again() -> None:
            while not self._clock.wait(done, WATCH_SECONDS) and not watch.lost:
                watch.look()

        Thread(target=look_again_and_again, daemon=True).start()
        try:
            yield watch
        finally:
            done.set()

    def _enter(self, phase: Phase, reason: Reason, message: str) -> None:
        if self._status.enter(phase, reason, message):
            self._log.info(message, phase=phase, reason=reason)

    # What others ask.

    def routes(self) -> dict[str, Route]:
        return {
            f"GET {LIVEZ}": lambda _: Answer(200, "ok"),
            f"GET {READYZ}": lambda _: self._readiness(),
            f"GET {SERVING}": lambda _: self._lets_requests_in(),
            f"GET {STATUS}": lambda _: Answer(200, self._status.snapshot()),
        }

    def _readiness(self) -> Answer:
        if not self._status.is_ready:
            return Answer(503, self._status.summary)
        if not self._sockets.gate_listens():
            return Answer(503, "the gate does not listen: see the log of the container gate")
        return Answer(200, "ok")

    def _lets_requests_in(self) -> Answer:
        # Told to stop, the gate itself lets nobody in, but those in its queue go on to the engine.
        if self._drain.has_begun:
            wanted = not self._gate_stays_open()
        else:
            wanted = self._leaving_since == float("inf")
        if self._serving and wanted:
            if not self._gate_knows.is_set():
                self._gate_knows.set()
                self._wake.set()
            return Answer(200, "ok")
        return Answer(503, self._status.summary)


class GateSockets:
    """What the pod's sockets tell of the gate, which runs in another container of the pod."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port

    def gate_listens(self) -> bool:
        """Whether the gate takes new clients."""
        return is_listening("0.0.0.0", self._server_port)

    def gate_is_open(self) -> bool:
        """Whether the gate listens for clients or still has one."""
        return is_in_use(self._server_port)

    def running_requests(self) -> int:
        """Requests that the engine works on: the gate opens a connection for each."""
        return connections(ENGINE_PORT)


@dataclass
class _Engine:
    """One run of llama-server."""

    log: EngineLog
    started: float
    child: Child | None = None

    def cpu_seconds(self) -> float:
        return self.child.cpu_seconds() if self.child else 0.0


class _Watch:
    """Looks at the attached workers and remembers the first loss."""

    def __init__(
        self,
        workers: Sequence[Found],
        epoch: str,
        peers: Peers,
        pool: ThreadPoolExecutor,
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
        self.held: dict[str, HeldMemory | None] = dict.fromkeys(self._missed)
        """What the engine of each worker holds, as last told."""

    def look(self, misses: int = MISSES) -> None:
        """Asks every worker once."""
        answers = self._pool.map(self._look_at, self._workers, repeat(misses))
        lost = [answer for answer in answers if answer]
        if lost and not self.lost:
            self.lost = GroupError(Reason.WorkerLost, "; ".join(lost) + "; the group forms anew")
            self._on_change()

    def _look_at(self, worker: Found, misses: int) -> str | None:
        """What is lost with this worker, if it is."""
        try:
            status = self._peers.status(worker.address)
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


class _ModelProgress:
    """Says how far the model is: in the status always, in the log now and then."""

    def __init__(self, status: GroupStatus, log: Log, clock: Clock) -> None:
        self._status = status
        self._log = log
        self._clock = clock
        self._said_at = float("-inf")
        self._said_bytes = 0

    def downloading(self, done_bytes: int, total_bytes: int | None) -> None:
        self._status.download = {"bytes": done_bytes, "total": total_bytes}
        self._status.enter(Phase.Fetching, Reason.Downloading, "downloading the model")
        self._say("downloading", done_bytes, total_bytes)

    def verifying(self, done_bytes: int, total_bytes: int) -> None:
        self._status.enter(Phase.Fetching, Reason.Verifying, "computing the model's sha256")
        self._say("verifying", done_bytes, total_bytes)

    def _say(self, what: str, done: int, total: int | None) -> None:
        now = self._clock.monotonic()
        step = total / 20 if total else float("inf")
        if now - self._said_at > 10 or (
            done - self._said_bytes >= step and now > self._said_at + 1
        ):
            self._log.info(what, bytes=done, total=total)
            self._said_at, self._said_bytes = now, done


def worker_hosts(leader_address: str, workers: int) -> tuple[str, list[str]]:
    """The leader's name and its workers' hosts, from `<leader pod>.<subdomain>.<namespace>`."""
    leader, _, domain = leader_address.partition(".")
    return leader, [f"{leader}-{index}.{domain}" for index in range(1, workers + 1)]


def _unreadable(error: OSError) -> GroupError:
    return GroupError(
        Reason.ModelInvalid,
        f"the model cannot be read ({error}): look at the volume and its node",
    )


def _pod(host: str) -> str:
    return host.partition(".")[0]


def _told(build: EngineBuild) -> str:
    return f"{build['version']} [{build['build']}]"


def _seen(worker: Found, attached: bool = False) -> AttachedWorker:
    return {
        "name": worker.name,
        "attached": attached,
        "threads": worker.status["threads"],
        "memoryLimitBytes": worker.status["memoryLimitBytes"],
        "memory": worker.status["memory"],
        "build": worker.status["engine"]["build"],
        "message": worker.status["message"],
    }


def _unseen(host: str, message: str) -> AttachedWorker:
    return {
        "name": _pod(host),
        "attached": False,
        "threads": None,
        "memoryLimitBytes": None,
        "memory": None,
        "build": None,
        "message": message,
    }
