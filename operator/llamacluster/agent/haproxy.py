"""The runtime API of the tunnel's HAProxy: one command, one answer, over loopback."""

from __future__ import annotations

import socket

from llamacluster.agent.contract import TUNNEL_PORT

SECONDS = 5.0
MAX_ANSWER_BYTES = 64 << 10


class HaproxyError(Exception):
    """HAProxy does not answer, or not as it should. The message says what it did."""


def ask(command: str, port: int = TUNNEL_PORT) -> str:
    """What HAProxy answers to `command`. Raises HaproxyError if it does not."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
            connection.sendall(command.encode() + b"\n")
            while part := connection.recv(4096):
                answer += part
                if len(answer) > MAX_ANSWER_BYTES:
                    break
    except OSError as error:
        raise HaproxyError(f"HAProxy does not answer: {error}") from error
    return answer.decode("utf-8", "replace").strip()
