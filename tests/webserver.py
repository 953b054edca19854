"""A web server, for the time of a test."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Quiet:
    """Tells nobody of its requests."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(
    handler: Callable[..., BaseHTTPRequestHandler],
    address: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> Iterator[int]:
    """The port at which `handler` answers; with TLS if that is given."""
    with ThreadingHTTPServer((address, 0), handler) as server:
        if tls:
            # Not at accept: a client that does not trust us would hold up the others.
            server.socket = tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
