"""The leader's way to its workers' agents."""

from __future__ import annotations

import http.client
import json
import socket
from typing import TypeGuard

from llamacluster.agent.contract.messages import AttachRequest, WorkerStatus
from llamacluster.agent.contract.places import (
    AGENT_PORT,
    ATTACH,
    LEAD,
    RPC_PORT,
    STATUS,
    TUNNEL_PORT,
    TUNNELLED_AGENT_PORT,
    TUNNELLED_RPC_PORT,
    tunnel_address,
)
from llamacluster.agent.token import SCHEME, ControlToken

MAX_ANSWER_BYTES = 64 << 10
STATUS_SECONDS = 2.0
LEAD_SECONDS = 30.0
"""It takes a look into the DNS."""


class PeerError(Exception):
    """A worker's agent gave no usable answer. The message says what it did instead."""


class Peers:
    """Talks to workers by their names, and shows them the group's token if there is one."""

    def __init__(self, token: ControlToken | None = None) -> None:
        self._token = token

    agent_port = AGENT_PORT
    rpc_port = RPC_PORT

    def address(self, host: str) -> str:
        """The IPv4 address of a name: the engine speaks nothing else. Raises PeerError."""
        return address_of(host)

    def status(self, address: str, epoch: str = "") -> WorkerStatus:
        """What the worker says of itself. By the epoch under which it is attached it knows that its
        leader is there. Raises PeerError."""
        path = f"{STATUS}?{epoch}" if epoch else STATUS
        return self._ask(address, "GET", path, None, STATUS_SECONDS)

    def attach(self, address: str, request: AttachRequest, seconds: float) -> WorkerStatus:
        """Has the worker start a clean RPC server; returns when that listens. Raises PeerError."""
        return self._ask(address, "POST", ATTACH, request, seconds)

    def _ask(
        self, address: str, method: str, path: str, body: AttachRequest | None, seconds: float
    ) -> WorkerStatus:
        code, data = 0, b""
        # With a token that the worker does not know yet, or no more, it does nothing.
        tokens = self._token.known() if self._token else []
        for token in tokens or [""]:
            code, data = _answer(address, self.agent_port, method, path, body, token, seconds)
            if code != 401:
                break
        if code != 200:
            raise PeerError(_words(data))
        try:
            answer: object = json.loads(data)
        except ValueError:
            answer = None
        if not _is_worker_status(answer):
            raise PeerError("its answer is not that of a worker's agent: is it the same image?")
        return answer


class TunnelledPeers(Peers):
    """Talks to them through this pod's tunnel, where each has a loopback address of its own."""

    agent_port = TUNNELLED_AGENT_PORT
    rpc_port = TUNNELLED_RPC_PORT

    def address(self, host: str) -> str:
        """The tunnel's address for a name; the tunnel leads to where the name is now. Raises
        PeerError."""
        index = int(host.partition(".")[0].rpartition("-")[2])
        try:
            code, data = _answer(
                "127.0.0.1", TUNNEL_PORT, "POST", f"{LEAD}/{index}", None, "", LEAD_SECONDS
            )
        except PeerError as error:
            raise PeerError(f"the tunnel to it is not there: {error}") from error
        if code != 200:
            raise PeerError(_words(data))
        return tunnel_address(index)


def address_of(host: str) -> str:
    """The IPv4 address of a worker's name. Raises PeerError."""
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise PeerError(
            "its name has no address yet: the pod does not exist, or has not started"
        ) from error
    return str(found[0][4][0])


def _answer(
    address: str,
    port: int,
    method: str,
    path: str,
    body: AttachRequest | None,
    token: str,
    seconds: float,
) -> tuple[int, bytes]:
    """Code and body of the agent's answer; an empty token is not shown. Raises PeerError when there
    is no answer."""
    connection = http.client.HTTPConnection(address, port, timeout=seconds)
    headers = {"Authorization": f"{SCHEME}{token}"} if token else {}
    try:
        sent = None if body is None else json.dumps(body).encode()
        connection.request(method, path, sent, headers)
        response = connection.getresponse()
        return response.status, response.read(MAX_ANSWER_BYTES)
    except TimeoutError as error:
        raise PeerError(f"its agent does not answer within {seconds:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise PeerError("its agent does not answer") from error
    finally:
        connection.close()


def _words(data: bytes) -> str:
    """Why the answer is a refusal."""
    return data[:300].decode("utf-8", "replace").strip()


def _is_worker_status(value: object) -> TypeGuard[WorkerStatus]:
    return (
        isinstance(value, dict)
        and value.get("role") == "worker"
        and isinstance(value.get("name"), str)
        and isinstance(value.get("listening"), bool)
        and isinstance(value.get("stopping"), bool)
        and isinstance(value.get("threads"), int)
        and isinstance(value.get("engine"), dict)
        and isinstance(value["engine"].get("build"), str)
        and "epoch" in value
        and "memoryLimitBytes" in value
        and "memory" in value
        and isinstance(value.get("message"), str)
    )
