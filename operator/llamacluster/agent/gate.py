"""The gate: HAProxy in front of the engine, in a container of its own in the leader's pod.

llama-server takes every request at once, whatever its slots, shows whoever asks what others ask
it, and does not drain. The gate is the only thing that listens on the API's port, and it

- gives the engine as many requests as it has slots, keeps a few waiting, and turns the others away
  with 429: a flood fills neither the engine's memory nor its queue;
- lets through the paths of the API that are listed here, and no others: each release of the engine
  brings new ones, and some tell of other clients' requests (/slots, /v1/streams/lookup) or run
  tools for whoever asks;
- answers /health with the group's readiness: the engine's own is 200 beside a dead worker;
- asks for an API key and speaks TLS, where the LlamaCluster names the Secrets for it: the engine
  would take neither anew while it runs, and would let everybody in with a file without a key;
- drains: told to stop, it soon takes no new connections and ends with its last client.

HAProxy runs as one plain process. Its master and workers are for reloads, and nothing in this
configuration changes while the pod lives but keys and certificate, which HAProxy is told as it runs
(access.py).
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Event

from llamacluster.agent.access import CERTIFICATE_FILE, KEYS_FILE, Access
from llamacluster.agent.clock import Clock
from llamacluster.agent.contract.options import GateOptions
from llamacluster.agent.contract.places import (
    AGENT_PORT,
    ENGINE_PORT,
    GATE_DIR,
    GATE_PORT,
    QUEUE_PER_SLOT,
    SERVING,
    WELCOMING,
)
from llamacluster.agent.drain import Drain
from llamacluster.agent.haproxy import SOCKET, STOP_SECONDS, HAProxy
from llamacluster.agent.log import Log
from llamacluster.agent.process import Child, Launcher, stop
from llamacluster.agent.slowbodies import SlowBodies
from llamacluster.planning.bodies import QUICK_REQUESTS, max_body_bytes

LOOK_SECONDS = 1.0
"""Between two looks at the Secrets of the API."""
QUIET_SECONDS = 1.0
"""Without a request in the engine after which, when no new one is taken, all have their answers."""

RECEIVE_BYTES = 16 << 10
"""Of a client, in the kernel. No more, because cgroup v2 counts what the kernel keeps for 1,000
clients to the gate's memory."""
MAX_CONNECTIONS = 1000
"""Of clients, idle ones too. Others wait in the kernel until one of these goes."""
MAX_COUNTS = 8
"""Of those who ask what the gate counts: beside the clients, a flood of whom is counted too."""
HEALTH = ("/health", "/v1/health")
GENERATING = (
    *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
    *("/v1/embeddings", "/v1/rerank", "/v1/reranking", "/v1/audio/transcriptions"),
    *("/chat/completions", "/completions", "/completion", "/responses", "/infill"),
    *("/embeddings", "/embedding", "/rerank", "/reranking"),
)
"""POST: what takes one of the engine's slots."""
COUNTING = (
    *("/v1/chat/completions/input_tokens", "/v1/responses/input_tokens"),
    *("/v1/messages/count_tokens", "/tokenize", "/detokenize", "/apply-template"),
)
"""POST: what is answered beside the slots."""
LISTING = ("/v1/models", "/models")
"""GET, answered beside the slots."""


class Gate:
    """The gate's container. `run` keeps HAProxy running until `stop`, and then until its last
    client has its answer."""

    def __init__(
        self,
        options: GateOptions,
        program: str,
        folder: Path,
        access: Access,
        bodies: SlowBodies,
        running_requests: Callable[[], int],
        drain: Drain,
        launcher: Launcher,
        clock: Clock,
        log: Log,
    ) -> None:
        self._haproxy = HAProxy(
            program, folder / "haproxy.cfg", configuration(options, folder), launcher, clock, log
        )
        self._access = access
        self._bodies = bodies
        self._running_requests = running_requests
        self._drain = drain
        self._clock = clock
        self._log = log
        self._wake = Event()  # HAProxy ended, or all is to stop

    def run(self) -> None:
        """Keeps HAProxy running until `stop`."""
        while not self._drain.has_begun:
            self._wake.clear()
            self._access.refresh()
            if not self._access.has_certificate:
                self._clock.wait(self._wake, LOOK_SECONDS)
                continue
            child = self._haproxy.start(self._wake.set)
            self._wait(child, self._keeps_up)
            if self._drain.has_begun:
                self._let_the_last_go(child)
                return
            self._clock.wait(self._wake, self._haproxy.ended(child.exit_code()))

    def stop(self) -> None:
        """Makes `run` return once the last client has its answer; called again, at once."""
        self._drain.tell()
        self._wake.set()

    def _keeps_up(self) -> bool:
        """Keeps up with what changes while HAProxy runs; True once the gate is told to stop."""
        self._access.refresh()
        self._bodies.look()
        return self._drain.has_begun

    def _let_the_last_go(self, child: Child) -> None:
        closes = self._clock.monotonic() + self._drain.linger_seconds
        self._wait(child, lambda: self._drain.is_at_its_end or self._clock.monotonic() >= closes)
        if child.exit_code() is None:
            self._log.info("no new connections; the running requests finish")
            child.send(signal.SIGUSR1)
        quiet_since = self._clock.monotonic()

        def is_done() -> bool:
            # HAProxy closes connections that are idle when it is told, but keeps one on which a
            # stream ends after that for the client's next request.
            nonlocal quiet_since
            now = self._clock.monotonic()
            if self._running_requests():
                quiet_since = now
            return self._drain.is_at_its_end or now - quiet_since >= QUIET_SECONDS

        self._wait(child, is_done)
        if child.exit_code() is None:
            if self._running_requests():
                self._log.warning("the grace is over: what still runs is cut off")
            stop(child, STOP_SECONDS)

    def _wait(self, child: Child, until: Callable[[], bool]) -> None:
        """Waits until that is so, or HAProxy has ended."""
        while child.exit_code() is None and not until():
            self._clock.wait(self._wake, 0.1 if self._drain.has_begun else LOOK_SECONDS)
            self._wake.clear()


def configuration(options: GateOptions, folder: Path = Path(GATE_DIR)) -> str:
    """HAProxy's configuration. It uses nothing that is newer than HAProxy 2.6.

    `folder` is the gate's own, in which are the keys and the certificate.

    Why its times are what they are: a request waits for its first byte as long as the prompt takes,
    and without streaming for its whole answer, which on CPUs may be an hour. That the engine hangs
    is for the leader to see, which knows its progress; so the gate gives it a day. It is the client
    that is held to times: to send its request, and to take what there is of the answer. A client
    that closes its connection or vanishes (TCP's keepalive) frees its slot, or its place in the
    queue, at once.
    """
    slots = options.parallel
    queue = QUEUE_PER_SLOT * slots if options.queue is None else options.queue
    body = max_body_bytes(options.context_size)
    own_words = "\n    ".join(
        f"http-error {answer}"
        for answer in (
            _refusal(400, "invalid_request_error", "bad_request", "this is no HTTP request"),
            _refusal(408, "invalid_request_error", "timeout", "the request came too slowly"),
            _refusal(500, "server_error", "internal", "the gate failed"),
            _refusal(502, "server_error", "engine_lost", "the engine ended before it answered", 10),
            _refusal(
                *(503, "unavailable_error", "unavailable"),
                "the engine is not ready, or no slot became free in time: try again later",
                10,
            ),
            _refusal(504, "server_error", "timeout", "the engine did not answer"),
        )
    )
    unready = _refusal(503, "unavailable_error", "unavailable", "the group is not ready", 10)
    closed = _refusal(
        *(404, "invalid_request_error", "not_found"),
        "there is no such path here for this method",
    )
    unbounded = _refusal(
        411, "invalid_request_error", "length_required", "a Content-Length is needed"
    )
    too_large = _refusal(
        *(413, "invalid_request_error", "body_too_large"),
        f"the body is larger than {body} bytes, and no prompt that fits the context is",
    )
    full = _refusal(
        *(429, "rate_limit_error", "queue_full"),
        f"{slots} requests are worked on and {queue} wait: try again later",
        5,
    )
    tls = tls_versions = check_key = ""
    if options.tls_secret:
        tls = f" ssl crt {folder / CERTIFICATE_FILE} alpn http/1.1"
        tls_versions = "ssl-default-bind-options ssl-min-ver TLSv1.2"
    if options.api_keys_secret:
        # The first line is for OpenAI's clients, the second for Anthropic's; the engine takes both.
        # A browser asks with OPTIONS, and then without a key, what it may ask.
        unknown = _refusal(
            *(401, "invalid_request_error", "invalid_api_key"),
            "a valid API key is needed: Authorization: Bearer KEY",
        )
        check_key = f"""
    acl has_key var(txn.key) -m found
    acl known_key var(txn.key) -m str -f {folder / KEYS_FILE}
    http-request set-var(txn.key) http_auth_bearer,sha2(256),hex
    http-request set-var(txn.key) req.fhdr(x-api-key),sha2(256),hex unless has_key
    http-request return {unknown} {_ASK_FOR_KEY} unless known_key or preflight
"""
    check = f"check addr 127.0.0.1 port {AGENT_PORT} {_CHECK_TIMES}"
    return f"""\
global
    maxconn {MAX_CONNECTIONS + MAX_COUNTS}
    # One thread is enough, and counts exactly.
    nbthread 1
    stats socket {folder / SOCKET} mode 600 level admin
    # What the kernel holds for a client is the container's memory too.
    tune.rcvbuf.client {RECEIVE_BYTES}
    {tls_versions}

defaults
    mode http
    timeout connect 5s
    timeout http-request 15s
    timeout http-keep-alive 75s
    timeout client 60s
    timeout server 24h
    timeout queue {options.queue_seconds}s
    timeout check 2s
    retries 1
    # A client that goes away takes its request with it.
    option abortonclose
    # Each request has a connection to the engine of its own, which ends with it: the leader counts.
    option http-server-close
    # Each token at once.
    option http-no-delay
    {own_words}

frontend api
    bind {options.host}:{options.server_port} proto h1 tcp-ut 60s{tls}
    maxconn {MAX_CONNECTIONS}
    option clitcpka
    clitcpka-idle 60s
    clitcpka-intvl 20s
    clitcpka-cnt 3

    acl health path {" ".join(HEALTH)}
    acl generating path {" ".join(GENERATING)}
    acl counting path {" ".join(COUNTING)}
    acl listing path {" ".join(LISTING)}
    acl reads method GET HEAD
    acl posts method POST
    acl preflight method OPTIONS

    http-request return {_HEALTHY} if health reads {{ nbsrv(group) gt 0 }}
    http-request return {unready} if health reads
{check_key}
    # What the engine need not know.
    http-request del-header authorization
    http-request del-header x-api-key

    http-request set-var(txn.open) bool(true) if generating posts or counting posts or listing reads
    http-request set-var(txn.open) bool(true) if preflight generating or preflight counting
    http-request return {closed} unless {{ var(txn.open) -m bool }}
    http-request return {unbounded} if {{ req.hdr(transfer-encoding) -m found }}
    # HAProxy takes the number modulo 2^32: a longer one is seen by its digits.
    http-request return {too_large} if {{ req.hdr(content-length) -m len gt 9 }}
    http-request return {too_large} if {{ req.hdr_val(content-length) gt {body} }}

    # A body that does not begin to arrive takes no slot.
    http-request wait-for-body time 15s if posts

    # What waited for a slot in vain has been too many as well.
    http-request set-var(txn.came) date
    http-after-response set-status 429 if {{ status 503 }} \
{{ date,sub(txn.came) ge {options.queue_seconds} }}

    use_backend engine if generating posts
    default_backend quick

backend engine
    http-request return {full} if {{ be_conn gt {slots + queue} }}
    option httpchk
    http-check send meth GET uri {SERVING}
    http-check expect status 200
    server engine 127.0.0.1:{ENGINE_PORT} maxconn {slots} {check}

backend quick
    timeout queue 10s
    http-request return {full} if {{ be_conn gt {2 * QUICK_REQUESTS} }}
    server engine 127.0.0.1:{ENGINE_PORT} maxconn {QUICK_REQUESTS} track engine/engine

# Asked for its health alone.
backend group
    option httpchk
    http-check send meth GET uri {WELCOMING}
    http-check expect status 200
    server leader 127.0.0.1:{AGENT_PORT} {check}

# What it counts, for the leader's agent in another container. Not by a socket of the runtime API:
# even at its lowest level that shows the hashes of the keys and takes new ones.
listen counts
    bind 127.0.0.1:{GATE_PORT}
    maxconn {MAX_COUNTS}
    stats enable
    stats uri /
    stats scope api
    stats scope engine
"""


_HEALTHY = 'status 200 content-type application/json string \'{"status":"ok"}\''
_ASK_FOR_KEY = "hdr WWW-Authenticate 'Bearer realm=\"llamacluster\"'"
_CHECK_TIMES = "inter 1s fastinter 200ms downinter 300ms fall 2 rise 1"


def _refusal(
    status: int, kind: str, code: str, message: str, retry_after: int | None = None
) -> str:
    """An answer in the shape of OpenAI's errors. The texts have no quote of their own."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    answer = f"status {status} content-type application/json string '{json.dumps(body)}'"
    return answer if retry_after is None else f"{answer} hdr Retry-After {retry_after}"
