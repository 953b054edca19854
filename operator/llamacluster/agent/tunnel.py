"""The tunnel: HAProxy between the pods of a group, in a container of its own in each of them.

With RPC encryption the engine's RPC and the worker's agent listen on loopback alone. What others
reach at their ports is the tunnel, which takes nobody without a certificate of the group (mutual
TLS 1.3). In the leader's pod it leads to each worker from a loopback address of that worker's own,
to the IPv4 address that the worker's name had when the leader's agent last asked for that.

The private key is for this container alone. Others of the pod share its network, among them the
engine, which reads what strangers send: all that they can ask for here is that a worker's name is
looked up once more.

It passes bytes and ends of connections and nothing else: it connects to the RPC server for a client
with a certificate alone, keeps a quiet connection for ever, and closes one side when the other is
closed, so that a dead worker is seen by the leader's engine as without it. A node that vanishes
closes nothing; TCP's keepalive finds that out, which the engine itself does not use.

Told to stop, it ends after the agent of its pod, whose last words go through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Event

from llamacluster.agent import certificates
from llamacluster.agent.api import Answer, Route
from llamacluster.agent.certificates import Certificates, Turnover
from llamacluster.agent.clock import Clock
from llamacluster.agent.contract.options import TunnelOptions
from llamacluster.agent.contract.places import (
    AGENT_PORT,
    LEAD,
    RPC_PORT,
    RPC_TLS_DIR,
    SCRATCH_DIR,
    TUNNELLED_AGENT_PORT,
    TUNNELLED_RPC_PORT,
    tunnel_address,
)
from llamacluster.agent.drain import Drain
from llamacluster.agent.haproxy import SOCKET, STOP_SECONDS, HAProxy, Runtime, RuntimeRefused
from llamacluster.agent.log import Log
from llamacluster.agent.peers import PeerError
from llamacluster.agent.process import Child, Launcher, stop

LOOK_SECONDS = 5.0
"""Between two looks at the certificates."""
MAX_CONNECTIONS = 200
"""A leader has one to each worker, and some short ones."""


class Tunnel:
    """The tunnel's container. `run` keeps HAProxy running until `stop`, and then until the pod's
    agent has ended."""

    def __init__(
        self,
        options: TunnelOptions,
        worker_names: Sequence[str],
        program: str,
        folder: Path,
        tls_folder: Path,
        agent_listens: Callable[[], bool],
        address_of: Callable[[str], str],
        runtime: Runtime,
        drain: Drain,
        launcher: Launcher,
        clock: Clock,
        log: Log,
    ) -> None:
        """`folder` is of this container alone. `address_of` a name raises PeerError."""
        text = configuration(options, worker_names, folder)
        self._haproxy = HAProxy(program, folder / "tunnel.cfg", text, launcher, clock, log)
        self._worker_names = worker_names
        self._leaf_delay_seconds = options.leaf_delay_seconds
        self._tls_folder = tls_folder
        self._agent_listens = agent_listens
        self._address_of = address_of
        self._runtime = runtime
        self._drain = drain
        self._clock = clock
        self._log = log
        self._wake = Event()  # HAProxy ended, or all is to stop

    def run(self) -> None:
        """Keeps HAProxy running until `stop`."""
        while not self._is_over():
            self._wake.clear()
            turnover = Turnover(certificates.read(self._tls_folder), self._leaf_delay_seconds)
            child = self._haproxy.start(self._wake.set)
            self._wait(child, turnover)
            code = child.exit_code()
            if code is None:
                stop(child, STOP_SECONDS)
                return
            self._clock.wait(self._wake, self._haproxy.ended(code))

    def stop(self) -> None:
        """Makes `run` return once the pod's agent has ended; called again, at once."""
        self._drain.tell()
        self._wake.set()

    def routes(self) -> dict[str, Route]:
        """Paths for the leader's agent, one for each worker."""
        return {
            f"POST {LEAD}/{index}": partial(self._lead, index, name)
            for index, name in enumerate(self._worker_names, 1)
        }

    def _lead(self, index: int, name: str, _: bytes) -> Answer:
        """Leads to where the worker's name is now. Connections that are there already stay where
        they lead. No address comes from who asks, who may be anybody in the pod."""
        try:
            address = self._address_of(name)
            self._runtime.lead_to([f"rpc-{index}/worker", f"agent-{index}/worker"], address)
        except PeerError as error:
            return Answer(503, str(error))
        except (OSError, RuntimeRefused) as error:
            return Answer(503, f"the tunnel to it is not there: HAProxy: {error}")
        return Answer(200, "ok")

    def _is_over(self) -> bool:
        return self._drain.is_over(busy=self._agent_listens())

    def _wait(self, child: Child, turnover: Turnover) -> None:
        """Waits until all is over or HAProxy has ended, and gives it new certificates meanwhile."""
        looked = self._clock.monotonic()
        while child.exit_code() is None and not self._is_over():
            self._clock.wait(self._wake, 0.2 if self._drain.has_begun else LOOK_SECONDS)
            self._wake.clear()
            now = self._clock.monotonic()
            if now - looked >= LOOK_SECONDS and child.exit_code() is None:
                looked = now
                self._renew(turnover, now)

    def _renew(self, turnover: Turnover, now: float) -> None:
        try:
            wanted = turnover.wanted(certificates.read(self._tls_folder), now)
            if wanted.authorities != turnover.used.authorities:
                self._runtime.replace_authorities(_AUTHORITIES, wanted.authorities)
                turnover.use(Certificates(wanted.authorities, turnover.used.leaf))
                self._log.info("trusts new authorities")
            if wanted.leaf != turnover.used.leaf:
                self._runtime.replace_certificate(_CERTIFICATE, wanted.leaf)
                turnover.use(wanted)
                self._log.info("shows a new certificate")
        except (OSError, RuntimeRefused) as error:
            self._log.error("the new certificates cannot be used", answer=error)


def configuration(
    options: TunnelOptions, worker_names: Sequence[str], folder: Path = Path(SCRATCH_DIR)
) -> str:
    """HAProxy's configuration, which uses nothing that is newer than HAProxy 3.0."""
    sections = (
        _before_a_worker(options.host)
        if options.workers is None
        else "\n".join(
            _to_worker(index, worker_names[index - 1]) for index in range(1, options.workers + 1)
        )
    )
    return f"""\
global
    maxconn {MAX_CONNECTIONS}
    nbthread 1
    stats socket {folder / SOCKET} mode 600 level admin
    # tls.key beside tls.crt.
    ssl-load-extra-del-ext
    # Who has been taken once is looked at again: no session outlives its certificate.
    tune.ssl.cachesize 0
    ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
    ssl-default-server-options ssl-min-ver TLSv1.3 no-tls-tickets

defaults
    mode tcp
    timeout connect 2s
    # Only who has shown a certificate may take its time.
    timeout client-hs 5s
    timeout client 0
    timeout server 0
    # The rest of a connection of which one end is closed: its other end may be a dead node.
    timeout client-fin 30s
    timeout server-fin 30s
    retries 0

{sections}"""


_AUTHORITIES = Path(RPC_TLS_DIR) / certificates.AUTHORITIES
_CERTIFICATE = Path(RPC_TLS_DIR) / certificates.CERTIFICATE
_TLS = f"ssl crt {_CERTIFICATE} ca-file {_AUTHORITIES} verify required"


def _before_a_worker(host: str) -> str:
    return "\n".join(
        f"""\
listen {name}
    bind {host}:{outside} {_TLS}
    option clitcpka
    clitcpka-idle 10s
    clitcpka-intvl 5s
    clitcpka-cnt 4
    server {name} 127.0.0.1:{inside}
"""
        for name, outside, inside in (
            ("rpc", RPC_PORT, TUNNELLED_RPC_PORT),
            ("agent", AGENT_PORT, TUNNELLED_AGENT_PORT),
        )
    )


def _to_worker(index: int, name: str) -> str:
    """Disabled until the leader's agent asks for it."""
    return "\n".join(
        f"""\
listen {port_name}-{index}
    bind {tunnel_address(index)}:{inside}
    option srvtcpka
    srvtcpka-idle 10s
    srvtcpka-intvl 5s
    srvtcpka-cnt 4
    server worker 127.0.0.1:{outside} disabled {_TLS} verifyhost {name} sni str({name}) no-ssl-reuse
"""
        for port_name, outside, inside in (
            ("rpc", RPC_PORT, TUNNELLED_RPC_PORT),
            ("agent", AGENT_PORT, TUNNELLED_AGENT_PORT),
        )
    )
