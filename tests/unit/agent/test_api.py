"""The agents' HTTP answers its paths and bounds what strangers can do."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from llamacluster.agent import api
from llamacluster.agent.api import Answer, Api
from llamacluster.agent.clock import Clock
from llamacluster.agent.token import ControlToken


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


ODD = (str(10**30), "9" * 5000, "\xb2")
"""Numbers to some that are none to others."""


@pytest.mark.parametrize("length", [str(api.MAX_BODY_BYTES + 1), "-1", "many", *ODD])
def test_large_and_odd_bodies_are_refused_unread(server: Api, length: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        head = f"POST /echo HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode("latin-1"))
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_silent_connection_is_closed(server: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server._server.RequestHandlerClass, "timeout", 0.05)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        assert connection.recv(1) == b""


def test_a_request_that_comes_byte_by_byte_is_cut_off(
    server: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server._server.RequestHandlerClass, "timeout", 0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")

        def drip() -> None:
            for _ in range(1000):  # each of them in time
                connection.sendall(b"x")
                time.sleep(0.01)

        with pytest.raises(OSError, match=r"(?i)reset|pipe"):
            drip()


def test_headers_without_end_fill_no_memory(server: Api) -> None:
    whole = api.MAX_HEAD_BYTES + api.MAX_BODY_BYTES
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        line = b"X: " + b"x" * 1000 + b"\r\n"
        with suppress(OSError):  # it may be closed meanwhile
            connection.sendall(b"GET /json HTTP/1.1\r\n" + line * (2 * whole // len(line)))
        with suppress(ConnectionError):
            assert connection.recv(100) == b""


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Api]:
    (tmp_path / "token").write_text("right\n")
    routes = {
        "GET /livez": lambda _: Answer(200, "ok"),
        "GET /readyz": lambda _: Answer(200, "ok"),
        "GET /status": lambda _: Answer(200, {}),
        "POST /attach": lambda body: Answer(200, body.decode()),
    }
    running = Api("127.0.0.1", 0, routes, ControlToken(tmp_path / "token", Clock()))
    yield running
    running.close()


def test_with_a_token_all_but_the_probes_ask_for_it(closed: Api) -> None:
    for path in ("/livez", "/readyz"):
        assert ask(closed, "GET", path)[0] == 200
    for wrong in ("", "right", "Bearer", "Bearer ", "Bearer wrong", "Basic right", "Bearer é"):
        headers = {"Authorization": wrong}
        for path in ("/status", "/livez/../status", "/livez?", "/none"):
            assert ask(closed, "GET", path, None, **headers)[0] == 401
        assert ask(closed, "POST", "/attach", b"{}", **headers)[0] == 401
    right = {"Authorization": "Bearer right"}
    assert ask(closed, "GET", "/status", None, **right)[0] == 200
    assert ask(closed, "POST", "/attach", b"hello", **right) == (200, "hello\n")


def test_a_body_is_not_read_from_those_without_the_token(closed: Api) -> None:
    with socket.create_connection(("127.0.0.1", closed.port), timeout=5) as connection:
        connection.sendall(b"POST /attach HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


def test_silent_connections_do_not_pile_up(server: Api) -> None:
    held = [
        socket.create_connection(("127.0.0.1", server.port), timeout=5)
        for _ in range(api.MAX_CONNECTIONS)
    ]
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as one_more:
        assert one_more.recv(1) == b""
    for connection in held:
        connection.close()
