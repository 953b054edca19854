"""The agents' HTTP: a few fixed paths for the operator, the leader and the kubelet.

Sizes, times and the number of connections are bounded, so a stranger on the port cannot fill the
memory. Who holds all connections still keeps the kubelet's probes out: the port is for the
operator, the group and the kubelet alone (docs/security.md).
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SO_REUSEADDR, SOL_SOCKET, socket
from threading import BoundedSemaphore, Thread

from llamacluster.agent.contract.places import LIVEZ, READYZ
from llamacluster.agent.token import ControlToken

MAX_HEAD_BYTES = 16 << 10
MAX_BODY_BYTES = 64 << 10
MAX_CONNECTIONS = 32
REQUEST_SECONDS = 10.0
"""For the whole request to arrive; and again for the answer to be taken."""
FOR_EVERYBODY = (LIVEZ, READYZ)
"""Paths that ask for no token: the kubelet has none."""


@dataclass(frozen=True)
class Answer:
    """Status code and body. A `str` goes as text, anything else as JSON."""

    code: int
    body: object
    text_type: str = "text/plain"


Route = Callable[[bytes], Answer]
"""Gets the request's body; of a GET, what stands behind the question mark of its path."""


class Api:
    """Serves `routes` (method and path, as in "GET /status") until `close`. With a `token`, all but
    FOR_EVERYBODY are for those who show it."""

    def __init__(
        self,
        host: str,
        port: int,
        routes: Mapping[str, Route],
        token: ControlToken | None = None,
    ) -> None:
        self._server = _Server((host, port), _handler(routes, token))
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


_Request = socket | tuple[bytes, socket]
_Address = object


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._free = BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # Not HTTPServer's, which looks its own name up in the DNS.
        self.socket.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "agent", self.server_address[1]

    def process_request(self, request: _Request, client_address: _Address) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: _Request, client_address: _Address) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: _Request, client_address: _Address) -> None:
        pass  # a client that went away


class _Arriving(io.RawIOBase):
    """The bytes of one request, as far as its size and its time allow."""

    def __init__(self, connection: socket, seconds: float) -> None:
        self._connection = connection
        self._ends = time.monotonic() + seconds
        self._left = MAX_HEAD_BYTES + MAX_BODY_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Raises TimeoutError when the time is over, and OSError when it is too large."""
        seconds = self._ends - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        if self._left == 0:
            raise OSError("the request is too large")
        self._connection.settimeout(seconds)
        count = self._connection.recv_into(buffer[: self._left])
        self._left -= count
        return count


def _handler(
    routes: Mapping[str, Route], token: ControlToken | None
) -> type[BaseHTTPRequestHandler]:
    paths = {route.split(" ")[1] for route in routes}

    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_SECONDS
        protocol_version = "HTTP/1.1"
        server_version = "llamacluster-agent"
        sys_version = ""

        def setup(self) -> None:
            super().setup()
            self.rfile = io.BufferedReader(_Arriving(self.connection, self.timeout))

        def do_GET(self) -> None:
            self._answer(self._refused() or self._routed(None))

        def do_POST(self) -> None:
            if refused := self._refused():
                self._answer(refused)
                return
            length = self.headers.get("Content-Length", "")
            if not re.fullmatch("[0-9]{1,9}", length) or int(length) > MAX_BODY_BYTES:
                self._answer(Answer(413, f"Content-Length must be 0 to {MAX_BODY_BYTES}"))
                return
            self._answer(self._routed(self.rfile.read(int(length))))

        def _refused(self) -> Answer | None:
            if token is None or self.path in FOR_EVERYBODY:
                return None
            if token.accepts(self.headers.get("Authorization", "")):
                return None
            return Answer(401, "this is for the group's own leader: its token is not the one here")

        def _routed(self, body: bytes | None) -> Answer:
            path, _, query = self.path.partition("?")
            route = routes.get(f"{self.command} {path}")
            if route:
                return route(query.encode() if body is None else body)
            return Answer(405, "method not allowed") if path in paths else Answer(404, "not found")

        def _answer(self, answer: Answer) -> None:
            text = isinstance(answer.body, str)
            body = (str(answer.body) + "\n" if text else json.dumps(answer.body)).encode()
            self.connection.settimeout(REQUEST_SECONDS)
            self.send_response(answer.code)
            if answer.code == 401:
                self.send_header("WWW-Authenticate", "Bearer")
            self.send_header("Content-Type", answer.text_type if text else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass  # probes every few seconds are no news

    return Handler
