"""`python3 -m llamacluster.agent {worker,leader,gate,tunnel,plan}`: a container's first process."""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from llamacluster import __version__
from llamacluster.agent import engine
from llamacluster.agent.access import Access
from llamacluster.agent.api import Answer, Api
from llamacluster.agent.clock import Clock
from llamacluster.agent.contract.messages import PlanFailure
from llamacluster.agent.contract.options import (
    GateOptions,
    LeaderOptions,
    PlanOptions,
    TunnelOptions,
    WorkerOptions,
    parse,
)
from llamacluster.agent.contract.places import (
    AGENT_PORT,
    API_KEYS_DIR,
    CLAIM_DIR,
    CREDENTIALS_DIR,
    ENGINE_PORT,
    GATE_DIR,
    GATE_STATUS_FILE,
    LEADER_ADDRESS_ENV,
    LIVEZ,
    MODEL_DIR,
    PROBE_PORT,
    READYZ,
    RPC_PORT,
    RPC_TLS_DIR,
    SCRATCH_DIR,
    SINCE_FILE,
    TLS_DIR,
    TUNNEL_PORT,
    TUNNELLED_AGENT_PORT,
    TUNNELLED_RPC_PORT,
)
from llamacluster.agent.credentials import mounted
from llamacluster.agent.drain import Drain
from llamacluster.agent.fetch import ModelStore
from llamacluster.agent.gate import Gate
from llamacluster.agent.gatesockets import GateSockets
from llamacluster.agent.haproxy import SOCKET, Runtime, haproxy_program
from llamacluster.agent.leader import Leader
from llamacluster.agent.limits import Limits
from llamacluster.agent.listening import connections, is_listening
from llamacluster.agent.log import Log
from llamacluster.agent.peers import Peers, TunnelledPeers, address_of
from llamacluster.agent.plan import MESSAGE_CHARACTERS, as_message, make_plan
from llamacluster.agent.podstart import pod_since
from llamacluster.agent.process import Launcher
from llamacluster.agent.slowbodies import SlowBodies
from llamacluster.agent.source import Web
from llamacluster.agent.status import GroupStatus
from llamacluster.agent.token import ControlToken
from llamacluster.agent.tunnel import Tunnel
from llamacluster.agent.worker import Worker
from llamacluster.agent.workers import worker_hosts
from llamacluster.planning.reasons import GroupError
from llamacluster.planning.split import MAX_WORKERS

STOP_SECONDS = 8.0
"""For the engine to end once it is to; then the process leaves regardless."""
REAP_SECONDS = 10.0
TERMINATION_LOG = Path("/dev/termination-log")
"""What is written here when the container ends, Kubernetes keeps in the pod's status."""


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(sys.argv[1:] if argv is None else argv)
    if isinstance(options, PlanOptions):
        return _plan(options)
    role = {
        WorkerOptions: "worker",
        LeaderOptions: "leader",
        GateOptions: "gate",
        TunnelOptions: "tunnel",
    }[type(options)]
    signals = Signals()
    log, clock, launcher = Log(role), Clock(), Launcher()
    drain = Drain(options.grace_seconds, clock)
    part: Worker | Leader | Gate | Tunnel
    try:
        if isinstance(options, WorkerOptions):
            part = _worker(options, drain, launcher, clock, log)
        elif isinstance(options, LeaderOptions):
            part = _leader(options, drain, launcher, clock, log)
        elif isinstance(options, GateOptions):
            part = _gate(options, drain, launcher, clock, log)
        else:
            part = _tunnel(options, drain, launcher, clock, log)
    except GroupError as error:
        log.error(error.message, reason=error.reason)
        return 1
    if isinstance(part, Leader):
        # It shows its state and takes no orders: what asks for it, the operator, does not read the
        # token.
        Api(options.host, AGENT_PORT, part.routes())
    elif isinstance(part, Worker) and isinstance(options, WorkerOptions):
        _serve_worker(options, part, _token(options, clock))
    elif isinstance(part, Tunnel) and (routes := part.routes()):
        Api("127.0.0.1", TUNNEL_PORT, routes)
    log.info("agent started", version=__version__)
    return _live(part.run, part.stop, drain.seconds, signals, launcher, log)


def _plan(options: PlanOptions) -> int:
    """Says the plan, or why there is none, on standard output and to Kubernetes."""
    # The first process of a container gets no signal that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    let_in(signal.SIGTERM)
    log = Log("plan", sys.stderr)
    try:
        plan = make_plan(options, Path(CLAIM_DIR), Path(SCRATCH_DIR), _web(options), Launcher())
    except GroupError as error:
        log.error(error.message, reason=error.reason)
        failure: PlanFailure = {
            "reason": error.reason,
            "message": error.message[:MESSAGE_CHARACTERS],
        }
        _terminate_with(as_message(failure))
        return 1
    log.info(plan["message"], fits=plan["fits"], method=plan["method"])
    _terminate_with(as_message(plan))
    return 0


def _terminate_with(message: str) -> None:
    sys.stdout.write(f"{message}\n")
    sys.stdout.flush()
    with suppress(OSError):  # not in a pod
        TERMINATION_LOG.write_text(message)


def _worker(
    options: WorkerOptions, drain: Drain, launcher: Launcher, clock: Clock, log: Log
) -> Worker:
    limits = Limits()
    threads = options.threads or limits.threads()
    host, port = options.host, RPC_PORT
    if options.encrypted:
        host, port = "127.0.0.1", TUNNELLED_RPC_PORT
    return Worker(
        name=_pod_name(),
        argv=engine.rpc_argv(engine.rpc_program(), host, port, threads),
        listening=lambda: is_listening(host, port),
        connected=lambda: connections(port) > 0,
        engine=engine.identity(),
        threads=threads,
        memory_limit_bytes=limits.memory_bytes(),
        held_memory=limits.held_memory,
        drain=drain,
        launcher=launcher,
        clock=clock,
        log=log,
    )


def _leader(
    options: LeaderOptions, drain: Drain, launcher: Launcher, clock: Clock, log: Log
) -> Leader:
    limits = Limits()
    threads = options.threads or limits.threads()
    build = engine.identity()
    stopping = Event()
    return Leader(
        options,
        address=os.environ[LEADER_ADDRESS_ENV],
        program=engine.server_program(),
        threads=threads,
        build=build,
        status=GroupStatus(_pod_name(), build, threads, limits.memory_bytes(), clock),
        store=ModelStore(
            Path(MODEL_DIR),
            Path(CLAIM_DIR),
            Path(SCRATCH_DIR),
            log,
            stopping,
            _web(options),
        ),
        peers=(TunnelledPeers if options.encrypted else Peers)(_token(options, clock)),
        launcher=launcher,
        http=engine.EngineHttp(),
        sockets=GateSockets(options.server_port, Path(GATE_STATUS_FILE)),
        held_memory=limits.held_memory,
        drain=drain,
        pool=ThreadPoolExecutor(MAX_WORKERS),
        clock=clock,
        log=log,
        stopping=stopping,
        since=pod_since(Path(SINCE_FILE), clock),
    )


def _gate(options: GateOptions, drain: Drain, launcher: Launcher, clock: Clock, log: Log) -> Gate:
    runtime = Runtime(Path(GATE_DIR) / SOCKET)
    return Gate(
        options,
        program=haproxy_program(),
        folder=Path(GATE_DIR),
        access=Access(
            options,
            keys=Path(API_KEYS_DIR),
            certificate=Path(TLS_DIR),
            folder=Path(GATE_DIR),
            status_file=Path(GATE_STATUS_FILE),
            runtime=runtime,
            clock=clock,
            log=log,
        ),
        bodies=SlowBodies(runtime, clock, log),
        running_requests=lambda: connections(ENGINE_PORT),
        drain=drain,
        launcher=launcher,
        clock=clock,
        log=log,
    )


def _web(options: LeaderOptions | PlanOptions) -> Web:
    secret = options.credentials_secret
    if secret is None:
        return Web(options.allow_local_addresses)
    return Web(options.allow_local_addresses, lambda: mounted(secret, Path(CREDENTIALS_DIR)))


def _token(options: WorkerOptions | LeaderOptions, clock: Clock) -> ControlToken | None:
    file = options.control_token_file
    return ControlToken(Path(file), clock) if file else None


def _tunnel(
    options: TunnelOptions, drain: Drain, launcher: Launcher, clock: Clock, log: Log
) -> Tunnel:
    if options.workers is None:
        names: list[str] = []
        agent = ("127.0.0.1", TUNNELLED_AGENT_PORT)
    else:
        _, names = worker_hosts(os.environ[LEADER_ADDRESS_ENV], options.workers)
        agent = ("0.0.0.0", AGENT_PORT)
    return Tunnel(
        options,
        names,
        program=haproxy_program(),
        folder=Path(SCRATCH_DIR),
        tls_folder=Path(RPC_TLS_DIR),
        agent_listens=lambda: is_listening(*agent),
        address_of=address_of,
        runtime=Runtime(Path(SCRATCH_DIR) / SOCKET),
        drain=drain,
        launcher=launcher,
        clock=clock,
        log=log,
    )


def _serve_worker(options: WorkerOptions, worker: Worker, token: ControlToken | None) -> None:
    routes = worker.routes()
    if not options.encrypted:
        Api(options.host, AGENT_PORT, routes, token)
        return
    Api("127.0.0.1", TUNNELLED_AGENT_PORT, routes, token)

    def readiness(body: bytes) -> Answer:
        if not is_listening(options.host, RPC_PORT):
            return Answer(503, "the tunnel does not listen: see the log of the container tunnel")
        return routes[f"GET {READYZ}"](body)

    probes = {f"GET {LIVEZ}": routes[f"GET {LIVEZ}"], f"GET {READYZ}": readiness}
    Api(options.host, PROBE_PORT, probes)


def _pod_name() -> str:
    # Kubernetes sets HOSTNAME to the pod's name, and so the host name.
    return os.environ.get("HOSTNAME") or socket.gethostname()


def let_in(*signals: signal.Signals) -> None:
    """The image's entry point holds them back until there are handlers."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


class Signals:
    """The signals that arrive, as bytes on a pipe: safe whatever they interrupt."""

    STOP = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (*self.STOP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        let_in(*self.STOP)

    def wait(self, seconds: float) -> bool:
        """Waits for any signal; True if it is one that asks to stop."""
        readable, _, _ = select.select([self._read], [], [], seconds)
        return bool(readable) and any(n in self.STOP for n in os.read(self._read, 4096))


def _live(
    run: Callable[[], None],
    stop: Callable[[], None],
    drain_seconds: float,
    signals: Signals,
    launcher: Launcher,
    log: Log,
) -> int:
    """Runs the agent in a thread until it has stopped as a signal asked it to; the exit code.

    It may go on with what it has begun for `drain_seconds`, unless a second signal comes.
    An agent that breaks down takes the container with it: Kubernetes starts it anew.
    """
    failed = True
    ended = Event()

    def life() -> None:
        nonlocal failed
        try:
            run()
            failed = False
        except Exception:  # noqa: BLE001 - whatever it is: the process ends, and says why before
            traceback.print_exc()
        finally:
            ended.set()
            os.kill(os.getpid(), signal.SIGCHLD)  # wakes the loop below

    thread = Thread(target=life, daemon=True)
    thread.start()
    leaves_at = math.inf
    while not ended.is_set() and (left := leaves_at - time.monotonic()) > 0:
        if signals.wait(min(left, REAP_SECONDS)):
            told_again = leaves_at < math.inf
            log.info("stopping at once" if told_again else "stopping")
            stop()
            leaves_at = time.monotonic() + STOP_SECONDS + (0 if told_again else drain_seconds)
        launcher.reap_orphans()
    code = 1 if failed and ended.is_set() else 0
    log.info("stopped", code=code)
    sys.stdout.flush()
    os._exit(code)  # not held up by threads that wait for the network


if __name__ == "__main__":
    sys.exit(main())
