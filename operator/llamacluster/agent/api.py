"""The agents' HTTP: a few fixed paths for the operator, the leader and the kubelet.

Sizes, the wait for each read and the number of connections are bounded, so a stranger on the port
cannot fill the memory. Who holds all connections still keeps the kubelet's probes out: the port is
for the operator, the group and the kubelet alone (docs/security.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SO_REUSEADDR, SOL_SOCKET, socket
from threading import BoundedSemaphore, Thread

MAX_BODY_BYTES = 64 << 10
MAX_CONNECTIONS = 32
SECONDS_PER_READ = 5.0


@dataclass(frozen=True)
class Answer:
    """Status code and body. A `str` goes as text, anything else as JSON."""

    code: int
    body: object


Route = Callable[[bytes], Answer]
"""Gets the request's body."""


class Api:
    """Serves `routes` (method and path, as in "GET /status") until `close`."""

    def __init__(self, host: str, port: int, routes: Mapping[str, Route]) -> None:
        self._server = _Server((host, port), _handler(routes))
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


def _handler(routes: Mapping[str, Route]) -> type[BaseHTTPRequestHandler]:
    paths = {route.split(" ")[1] for route in routes}

    class Handler(BaseHTTPRequestHandler):
        timeout = SECONDS_PER_READ
        protocol_version = "HTTP/1.1"
        server_version = "llamacluster-agent"
        sys_version = ""

        def do_GET(self) -> None:
            self._answer(self._routed(b""))

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > MAX_BODY_BYTES:
                self._answer(Answer(413, f"Content-Length must be 0 to {MAX_BODY_BYTES}"))
                return
            self._answer(self._routed(self.rfile.read(int(length))))

        def _routed(self, body: bytes) -> Answer:
            path = self.path.partition("?")[0]
            route = routes.get(f"{self.command} {path}")
            if route:
                return route(body)
            return Answer(405, "method not allowed") if path in paths else Answer(404, "not found")

        def _answer(self, answer: Answer) -> None:
            text = isinstance(answer.body, str)
            body = (str(answer.body) + "\n" if text else json.dumps(answer.body)).encode()
            self.send_response(answer.code)
            self.send_header("Content-Type", "text/plain" if text else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass  # probes every few seconds are no news

    return Handler
