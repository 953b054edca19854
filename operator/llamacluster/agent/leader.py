"""The leader: forms the group out of its workers and keeps it serving.

`Leader.run` tries until told to stop; one try is `_form_and_serve`, from the model's file to the
group's end. Whatever goes wrong in it is a GroupError, which is said in the status and in the log,
and after a wait the next try begins at the top. What is there already (the model's file, the
workers' agents) costs a try nothing.

    Waiting ──► Attaching ──► Loading ──► Verifying ──► Serving ──► Draining
       ▲            │            │            │            │            │
       └────────────┴────────────┴── Failed ──┴────────────┴────────────┘

Which of the many things that may happen once the engine is started counts, says `moves`.

Two things end a group that serves and yet let its requests finish. When the leader is told to stop,
it keeps the engine until the gate, which is told at the same time, has let its last client go. When
a worker alone is told to stop, the gate is told to turn new requests away, and the group forms anew
when the engine has answered what it has.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread

from llamacluster.agent.api import Answer, Route
from llamacluster.agent.backoff import Backoff
from llamacluster.agent.clock import Clock
from llamacluster.agent.contract.messages import EngineBuild, HeldMemory, Phase
from llamacluster.agent.contract.options import LeaderOptions
from llamacluster.agent.contract.places import (
    LIVEZ,
    METRICS,
    READYZ,
    SERVING,
    STATUS,
    WELCOMING,
)
from llamacluster.agent.drain import Drain
from llamacluster.agent.engine import EngineHttp, server_argv
from llamacluster.agent.engine_log import EngineLog
from llamacluster.agent.fetch import ModelStore, Stopped
from llamacluster.agent.gatesockets import GateSockets
from llamacluster.agent.log import Log
from llamacluster.agent.metrics import CONTENT_TYPE, EngineTold, exposition, kv_cache
from llamacluster.agent.modelfile import FoundModel, find_model
from llamacluster.agent.moves import Move, Seen, next_move
from llamacluster.agent.peers import Peers
from llamacluster.agent.process import Child, Launcher, stop
from llamacluster.agent.progress import Pace
from llamacluster.agent.pulse import Load, Pulse, gets_on
from llamacluster.agent.status import GroupStatus
from llamacluster.agent.workers import (
    WATCH_SECONDS,
    Found,
    Search,
    Watch,
    attach,
    compare_builds,
    new_epoch,
    pod_of,
    seen,
    unseen,
    worker_hosts,
)
from llamacluster.planning.reasons import GroupError, Reason
from llamacluster.planning.split import assigned_device, tensor_split

SEARCH_SECONDS = 0.5
"""Between two looks for workers that are not there yet."""
HEALTH_SECONDS = 0.25
"""Between two questions whether the engine has loaded: so seldom that to answer them takes a slow
CPU less than `pulse.LOADING_IDLE_CPUS`, or a load that stands still would seem to work."""
FIRST_TOKEN_SECONDS = 300.0
STOP_SECONDS = 5.0
DRAIN_LOOK_SECONDS = 0.2
"""Between two looks at whether the last request has ended."""
GATE_CLOSES_SECONDS = 3.5
"""After its linger, by when a gate that was told to stop together with the leader is sure to listen
no more."""
SLOTS_SECONDS = 1.0
"""For the engine to say what its slots hold, when it has just answered something else: no longer,
because a hang that begins here is noticed by so much later."""
STABLE_SECONDS = 10.0
"""A group that has served for so long is formed anew at once, however often it was lost before:
what strikes it each minute is nothing that it has to be kept from."""
FIRST_BACKOFF_SECONDS, MOST_BACKOFF_SECONDS = 0.5, 30.0


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
        pool: Executor,
        clock: Clock,
        log: Log,
        stopping: Event,
        since: int,
    ) -> None:
        """`pool` asks the workers, all at the same time; `since` as in AttachRequest."""
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
        self._pool = pool
        self._clock = clock
        self._log = log
        self._stopping = stopping
        self._since = since
        self._wake = Event()  # something happened that the current wait should look at
        self._ready_since = math.inf
        self._serving = False  # the engine takes requests
        self._gate_knows: set[str] = set()  # what it has asked since the engine takes requests
        self._leaving_since = math.inf  # a worker is told to stop
        self._engine_now: _Engine | None = None

    def run(self) -> None:
        """Forms the group, again and again, until `stop`."""
        backoff = Backoff(FIRST_BACKOFF_SECONDS, MOST_BACKOFF_SECONDS)
        while not self._stopping.is_set():
            self._ready_since = self._leaving_since = math.inf
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
            Phase.Draining,
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
        model = find_model(self._options, self._store, self._status, self._clock, self._log)
        found = self._wait_for_workers()
        began = self._clock.monotonic()
        epoch, workers = self._attach(found)
        compare_builds(self._build, workers)
        watch = Watch(workers, epoch, self._peers, self._pool, self._wake.set)
        with self._engine(model, workers) as engine, watch.looking(self._clock):
            self._wait_until_loaded(engine, model, watch)
            self._make_first_token(engine, watch)
            self._let_the_gate_open(engine, watch)
            # The engine writes its log in the background: its last lines on the load may come
            # after it has said that it has loaded.
            self._tell_placement(engine, model, workers)
            self._status.formed_seconds = round(self._clock.monotonic() - began, 3)
            self._become_ready()
            self._serve(engine, watch)

    # The workers.

    def _wait_for_workers(self) -> list[Found]:
        search = Search(self._hosts, self._peers, self._pool)
        while (found := search.look()) is None:
            self._status.workers = search.rows
            self._enter(
                Phase.Waiting,
                Reason.WaitingForWorkers,
                f"{len(search.missing)} of {len(self._hosts)} workers missing: "
                + "; ".join(f"{pod_of(host)}: {why}" for host, why in search.missing.items()),
            )
            if self._clock.wait(self._stopping, SEARCH_SECONDS):
                raise Stopped
        self._status.workers = search.rows
        return found

    def _attach(self, found: Sequence[Found]) -> tuple[str, list[Found]]:
        epoch = self._status.epoch = new_epoch()
        self._enter(
            Phase.Attaching, Reason.Attaching, f"attaching {len(found)} workers", epoch=epoch
        )
        answers = attach(found, self._name, self._since, epoch, self._peers, self._pool)
        self._status.workers = [
            seen(answer, attached=True)
            if isinstance(answer, Found)
            else unseen(worker.name, answer)
            for worker, answer in zip(found, answers, strict=True)
        ]
        failed = [row for row in self._status.workers if not row["attached"]]
        if failed:
            raise GroupError(
                Reason.WorkerLost,
                "; ".join(f"{row['name']} did not attach: {row['message']}" for row in failed),
            )
        return epoch, [answer for answer in answers if isinstance(answer, Found)]

    # The engine.

    @contextmanager
    def _engine(self, model: FoundModel, workers: Sequence[Found]) -> Iterator[_Engine]:
        log = EngineLog()

        def line(text: str) -> None:
            log.add(text)
            self._log.passed_through(text)

        argv = server_argv(
            self._program,
            self._options,
            model.files.path,
            model.header,
            [worker.endpoint for worker in workers],
            self._threads,
        )
        if self._stopping.is_set():
            raise Stopped
        self._enter(
            Phase.Loading,
            Reason.Loading,
            f"loading {model.files.bytes} bytes into {len(workers)} workers",
        )
        self._log.info("starting engine", argv=shlex.join(argv))
        started = self._clock.monotonic()
        engine = _Engine(self._launcher.start(argv, line, self._wake.set), log, started)
        self._engine_now = engine
        try:
            yield engine
        except GroupError as error:
            self._status.fail(error)  # unready at once, before the engine is gone
            raise
        finally:
            # An engine whose worker is lost may hang for ever: no grace for it.
            self._serving = False
            self._status.placement, self._status.leader, self._status.memory = [], None, None
            self._status.progress = None
            self._engine_now = None
            stop(engine.child, STOP_SECONDS if self._drain.has_begun else 0)

    def _wait_until_loaded(self, engine: _Engine, model: FoundModel, watch: Watch) -> None:
        pace = Pace(self._clock)
        load = Load(_cpu(engine, watch), self._options.hung_engine_seconds, self._clock)

        def is_loaded() -> bool:
            if model.sent_bytes:
                received = min(watch.received_bytes, model.sent_bytes)
                self._status.progress = pace.at(received, model.sent_bytes)
            return self._http.is_healthy()

        def stands_still() -> GroupError | None:
            return load.error(engine.child.read_bytes() + watch.received_bytes)

        self._wait(engine, watch, until=is_loaded, hung=stands_still)
        self._status.progress = None
        self._status.load_seconds = round(self._clock.monotonic() - engine.started, 3)

    def _make_first_token(self, engine: _Engine, watch: Watch) -> None:
        self._enter(Phase.Verifying, Reason.Probing, "making a first token through all workers")
        token = self._pool.submit(
            self._http.make_first_token, self._options.embeddings, FIRST_TOKEN_SECONDS
        )
        token.add_done_callback(lambda _: self._wake.set())
        with self._pulse(engine, watch) as pulse:
            self._wait(engine, watch, until=token.done, hung=lambda: pulse.error)
        token.result()

    def _let_the_gate_open(self, engine: _Engine, watch: Watch) -> None:
        self._gate_knows.clear()
        self._serving = True
        self._enter(Phase.Verifying, Reason.Probing, "waiting for the gate to let requests in")
        self._wait(engine, watch, until=lambda: self._gate_knows == {SERVING, WELCOMING})

    def _tell_placement(self, engine: _Engine, model: FoundModel, workers: Sequence[Found]) -> None:
        devices = assigned_device(tensor_split(self._options.layers), model.header.block_count)
        self._status.placement = engine.log.placement(
            [worker.name for worker in workers], [worker.endpoint for worker in workers], devices
        )
        self._status.leader = engine.log.leader_memory(devices)
        for row in self._status.placement:
            self._log.info("placed", **row)

    def _become_ready(self) -> None:
        self._ready_since = self._clock.monotonic()
        self._enter(Phase.Serving, Reason.Ready, f"serving with {len(self._hosts)} workers")
        self._log.info(
            "ready",
            formed_seconds=self._status.formed_seconds,
            load_seconds=self._status.load_seconds,
        )

    def _serve(self, engine: _Engine, watch: Watch) -> None:
        """Serves for as long as the group is whole. Ends only by an exception."""
        with self._pulse(engine, watch) as pulse:
            self._wait(engine, watch, until=lambda: False, hung=lambda: pulse.error)

    @contextmanager
    def _pulse(self, engine: _Engine, watch: Watch) -> Iterator[Pulse]:
        """Feels it again and again, from a thread of its own."""
        done = Event()
        pulse = Pulse(
            lambda seconds: self._gets_on(engine, seconds, done),
            _working_cpu(engine, watch),
            self._options.hung_engine_seconds,
        )

        def look_again_and_again() -> None:
            while not self._clock.wait(done, WATCH_SECONDS) and not pulse.stopped:
                pulse.look()
            self._wake.set()

        Thread(target=look_again_and_again, daemon=True).start()
        try:
            yield pulse
        finally:
            done.set()

    def _gets_on(self, engine: _Engine, seconds: float, done: Event) -> bool:
        """Whether it says so within so many seconds; keeps what it tells, for /metrics."""
        deadline = self._clock.monotonic() + seconds
        while True:
            series = self._http.metrics(max(SLOTS_SECONDS, deadline - self._clock.monotonic()))
            if series is None:
                return False
            before, slots = engine.told, self._http.slots(SLOTS_SECONDS)
            kv = kv_cache(slots) if slots else (before.kv if before else None)
            engine.told = EngineTold(self._clock.monotonic(), series, kv)
            if before is None or gets_on(before.series, series):
                return True
            if self._clock.monotonic() >= deadline or self._clock.wait(done, WATCH_SECONDS):
                return False

    def _wait(
        self,
        engine: _Engine,
        watch: Watch,
        until: Callable[[], bool],
        hung: Callable[[], GroupError | None] = lambda: None,
    ) -> None:
        """Waits until that is so. Raises GroupError as soon as the group is broken, and Stopped
        when it is told to stop and has finished what runs."""
        while True:
            move = next_move(self._look(engine, watch, until, hung))
            if isinstance(move, GroupError):
                raise move
            if move is Move.Stop:
                raise Stopped
            if move is Move.Advance:
                return
            if move is Move.Drain:
                self._enter(
                    Phase.Draining,
                    Reason.WorkerLeaving,
                    f"{watch.leaving} is being stopped: {self._sockets.running_requests()} running"
                    " requests finish, then the group forms anew",
                )
            self._status.tokens_per_second = engine.log.tokens_per_second
            self._status.memory = self._held_memory(engine.child.pid)
            self._status.workers = [
                {**row, "memory": watch.held[row["name"]]} for row in self._status.workers
            ]
            self._clock.wait(self._wake, self._seconds_to_wait())
            self._wake.clear()

    def _look(
        self,
        engine: _Engine,
        watch: Watch,
        until: Callable[[], bool],
        hung: Callable[[], GroupError | None],
    ) -> Seen:
        draining, stop_at_once = self._drain.has_begun, self._stopping.is_set()
        leaving, now = watch.leaving, self._clock.monotonic()
        if leaving:
            self._leaving_since = min(self._leaving_since, now)
        ended = engine.child.exit_code()
        whole = not stop_at_once and ended is None and not watch.lost
        return Seen(
            stop_at_once=stop_at_once,
            lost=watch.lost,
            ended=None if ended is None else self._why_it_ended(engine, ended, watch),
            frozen=engine.child.is_frozen(),
            arrived=whole and not draining and until(),
            serving=self._serving,
            hung=hung(),
            draining=draining,
            drained=draining and self._drain.is_over(busy=self._has_requests()),
            leaving=leaving,
            leaving_seconds=now - self._leaving_since if leaving else 0.0,
            running=self._sockets.running_requests() if leaving else 0,
        )

    def _has_requests(self) -> bool:
        """Whether a leader that was told to stop still has some to come or to finish."""
        if self._gate_stays_open():
            return self._sockets.running_requests() > 0
        return self._sockets.gate_is_open()

    def _gate_stays_open(self) -> bool:
        """Whether the leader was told to stop alone, not the pod: its liveness probe failed."""
        closed = self._drain.linger_seconds + GATE_CLOSES_SECONDS
        return self._drain.lasts > closed and self._sockets.gate_listens()

    def _seconds_to_wait(self) -> float:
        if self._status.is_ready:
            return WATCH_SECONDS
        return DRAIN_LOOK_SECONDS if self._serving else HEALTH_SECONDS

    def _why_it_ended(self, engine: _Engine, code: int, watch: Watch) -> GroupError:
        error = engine.log.why_it_ended(code)
        if error.reason is Reason.WorkerLost:
            watch.look(misses=1)  # it names the worker
            return watch.lost or error
        return error

    def _enter(self, phase: Phase, reason: Reason, message: str, **told: object) -> None:
        if self._status.enter(phase, reason, message):
            self._log.info(message, phase=phase, reason=reason, **told)

    # What others ask.

    def routes(self) -> dict[str, Route]:
        return {
            f"GET {LIVEZ}": lambda _: Answer(200, "ok"),
            f"GET {READYZ}": lambda _: self._readiness(),
            f"GET {SERVING}": lambda _: self._lets_requests_in(),
            f"GET {WELCOMING}": lambda _: self._welcomes_requests(),
            f"GET {STATUS}": lambda _: Answer(200, self._status.snapshot(self._sockets.told())),
            f"GET {METRICS}": lambda _: self._metrics(),
        }

    def _metrics(self) -> Answer:
        engine = self._engine_now
        text = exposition(
            self._status.snapshot(),
            ready=self._readiness().code == 200,
            recoveries=self._status.recoveries,
            wanted=len(self._hosts),
            slots=self._options.parallel,
            gate=self._sockets.load(),
            engine=engine.told if engine else None,
            now=self._clock.monotonic(),
        )
        return Answer(200, text, CONTENT_TYPE)

    def _readiness(self) -> Answer:
        if not self._status.is_ready:
            return Answer(503, self._status.summary)
        if closed := self._closed():
            return closed  # no place in the Service; a rollout does not go on to the next group
        if not self._sockets.gate_listens():
            return Answer(503, "the gate does not listen: see the log of the container gate")
        return Answer(200, "ok")

    def _lets_requests_in(self) -> Answer:
        # Told to stop, the gate itself lets nobody in, but those in its queue go on to the engine.
        if self._drain.has_begun:
            wanted = not self._gate_stays_open()
        else:
            wanted = self._leaving_since == math.inf
        if not (self._serving and wanted):
            return Answer(503, self._status.summary)
        self._gate_learns(SERVING)
        return Answer(200, "ok")

    def _welcomes_requests(self) -> Answer:
        if not self._serving or self._drain.has_begun or self._leaving_since < math.inf:
            return Answer(503, self._status.summary)
        self._gate_learns(WELCOMING)
        return self._closed() or Answer(200, "ok")

    def _gate_learns(self, path: str) -> None:
        if path not in self._gate_knows:
            self._gate_knows.add(path)
            self._wake.set()

    def _closed(self) -> Answer | None:
        """The gate's own reason to let nobody in."""
        told = self._sockets.told()
        if told and (closed := told["closed"]):
            return Answer(503, f"{closed['reason']}: {closed['message']}")
        return None


@dataclass
class _Engine:
    """One run of llama-server."""

    child: Child
    log: EngineLog
    started: float
    told: EngineTold | None = None
    """Kept here: who waits for its word may get it when another engine runs."""


def _cpu(engine: _Engine, watch: Watch) -> Callable[[], float]:
    """CPU seconds that the processes of the group have taken."""
    return lambda: engine.child.cpu_seconds() + sum(watch.cpu.values())


def _working_cpu(engine: _Engine, watch: Watch) -> Callable[[], float]:
    """The same without what goes beside the computation. llama-server computes in its first thread,
    with others that help it; the rest answer HTTP, and do so (/tokenize) when it hangs."""
    return lambda: engine.child.main_cpu_seconds() + sum(watch.cpu.values())
