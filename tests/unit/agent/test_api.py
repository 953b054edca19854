"""The agents' HTTP answers its paths and bounds what strangers can do."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from llamacluster.agent import api
from llamacluster.agent.api import Answer, Api


@pytest.fixture
def server() -> Iterator[Api]:
    running = Api(
        "127.0.0.1",
        0,
        {
            "GET /json": lambda _: Answer(200, {"a": 1}),
            "GET /text": lambda _: Answer(503, "not yet"),
            "POST /echo": lambda body: Answer(200, body.decode()),
        },
    )
    yield running
    running.close()


def ask(
    server: Api, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    answer = response.status, response.read().decode()
    connection.close()
    return answer


def test_objects_go_as_json_and_words_as_text(server: Api) -> None:
    code, body = ask(server, "GET", "/json?x=1")
    assert (code, json.loads(body)) == (200, {"a": 1})
    assert ask(server, "GET", "/text") == (503, "not yet\n")
    assert ask(server, "POST", "/echo", b"hello") == (200, "hello\n")


def test_other_paths_and_methods_are_refused(server: Api) -> None:
    assert ask(server, "GET", "/")[0] == 404
    assert ask(server, "GET", "/echo")[0] == 405
    assert ask(server, "DELETE", "/json")[0] == 501


@pytest.mark.parametrize("length", [str(api.MAX_BODY_BYTES + 1), "-1", "many", str(10**30)])
def test_large_and_odd_bodies_are_refused_unread(server: Api, length: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(f"POST /echo HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_silent_connection_is_closed(server: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server._server.RequestHandlerClass, "timeout", 0.05)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        assert connection.recv(1) == b""


def test_silent_connections_do_not_pile_up(server: Api) -> None:
    held = [
        socket.create_connection(("127.0.0.1", server.port), timeout=5)
        for _ in range(api.MAX_CONNECTIONS)
    ]
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as one_more:
        assert one_more.recv(1) == b""
    for connection in held:
        connection.close()
