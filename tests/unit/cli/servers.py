"""Servers on loopback that the plug-in talks to: an API server with one LlamaCluster, a
llama-server, and a kubectl whose port-forward leads there."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import main_thread
from typing import Any

import yaml

from tests.build import Manifest
from tests.webserver import Quiet, answering

ANSWER = ["Blue", ", and", " wide."]
MAX_PROMPT = 4000
"""Characters."""
KUBECTL = """\
#!/bin/sh
echo "$@" > "$(dirname "$0")/kubectl.args"
test -n "$FORWARD_PORT" || { echo 'error: pods "x-group-1" not found' >&2; exit 1; }
echo "Forwarding from 127.0.0.1:$FORWARD_PORT -> 8080"
exec sleep 60
"""


@dataclass
class LlamaServer:
    """Answers like llama-server, as far as the plug-in asks: tests/groupapibehaviour.py holds both
    to the same."""

    key: str | None = None
    breaks_off: bool = False
    interrupts: bool = False
    """Presses Ctrl-C once, in the midst of an answer."""
    requests: list[tuple[str, Any]] = field(default_factory=list)
    """Paths and bodies."""
    running: int = 0
    most_running: int = 0

    def answer(self, path: str, body: Any, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append((path, body))
        if self.key and handler.headers["Authorization"] != f"Bearer {self.key}":
            _json(handler, 401, {"error": {"message": "Invalid API Key"}})
        elif path == "/tokenize":
            _json(handler, 200, {"tokens": list(range(len(body["content"].split())))})
        elif path == "/completion":
            self._complete(body, handler)
        elif sum(len(each["content"]) for each in body["messages"]) > MAX_PROMPT:
            message = "the request exceeds the available context size, try increasing it"
            _json(handler, 400, {"error": {"message": message}})
        else:
            self._chat(handler)

    def _complete(self, body: Any, handler: BaseHTTPRequestHandler) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        time.sleep(0.2)  # for requests to be there at the same time
        timings = {
            "prompt_n": len(body["prompt"]),
            "predicted_n": body["n_predict"],
            "predicted_per_second": 10.0,
        }
        self.running -= 1
        _json(handler, 200, {"content": "", "timings": timings})

    def _chat(self, handler: BaseHTTPRequestHandler) -> None:
        pieces: list[Any] = [
            {"choices": [{"delta": {"role": "assistant", "content": None}}]},
            *({"choices": [{"delta": {"content": text}}]} for text in ANSWER),
            {
                "choices": [{"delta": {}, "finish_reason": "stop"}],
                "timings": {"predicted_n": 3, "predicted_per_second": 12.34},
            },
        ]
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        cut = self.breaks_off or self.interrupts
        for piece in pieces[:2] if cut else pieces:
            handler.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
        if self.interrupts:
            self.interrupts = False
            signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)
            with suppress(ConnectionError):
                # A signal that comes just before the client waits in recv() does not end the
                # wait: more of the answer does, as in life.
                handler.wfile.write(b": more\n\n")
                handler.rfile.read(1)  # until the client closes
            return
        if not self.breaks_off:
            handler.wfile.write(b"data: [DONE]\n\n")


def _json(handler: BaseHTTPRequestHandler, status: int, body: Any) -> None:
    data = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


@contextmanager
def serving(server: LlamaServer) -> Iterator[int]:
    """The port at which it answers."""

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.answer(self.path, body, self)

    with answering(Handler) as port:
        yield port


@contextmanager
def api_server(folder: Path, *clusters: Manifest) -> Iterator[Path]:
    """A kubeconfig that leads to an API server with these LlamaClusters."""
    base = "/apis/llamacluster.dev/v1alpha1/namespaces/ns/llamaclusters"
    answers: dict[str, Any] = {f"{base}/{each['metadata']['name']}": each for each in clusters}
    answers[base] = {"items": list(clusters)}
    answers["/apis/llamacluster.dev/v1alpha1"] = {"kind": "APIResourceList"}

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            _json(self, 200 if found else 404, found or {"message": "not found"})

    with answering(Handler) as port:
        yield _kubeconfig(folder, port)


@contextmanager
def saying(folder: Path, status: int, body: str) -> Iterator[Path]:
    """A kubeconfig that leads to a server that gives everything the same answer."""

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

    with answering(Handler) as port:
        yield _kubeconfig(folder, port)


@contextmanager
def silent(folder: Path) -> Iterator[Path]:
    """A kubeconfig that leads to a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield _kubeconfig(folder, server.getsockname()[1])


def _kubeconfig(folder: Path, port: int) -> Path:
    kubeconfig = folder / "kubeconfig"
    context = {"cluster": "c", "user": "u", "namespace": "ns"}
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": context}],
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    return kubeconfig


@contextmanager
def agent(status: Manifest) -> Iterator[int]:
    """The port of a leader's agent that says this of its group."""

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _json(self, 200, status)

    with answering(Handler) as port:
        yield port


def put_kubectl(folder: Path, port: int | None) -> dict[str, str]:
    """The environment in which kubectl's port-forward leads to `port`, or fails."""
    program = folder / "kubectl"
    program.write_text(KUBECTL)
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "FORWARD_PORT": str(port or "")}
