"""The engine in this image: its programs, its build, its command lines, its HTTP."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from llamacluster.agent.contract.messages import EngineBuild
from llamacluster.agent.contract.options import LeaderOptions
from llamacluster.agent.contract.places import ENGINE_PORT
from llamacluster.planning.gguf import Header
from llamacluster.planning.plan import CHECKPOINTS
from llamacluster.planning.reasons import GroupError, Reason
from llamacluster.planning.split import tensor_split

SERVER = "llama-server"
RPC_SERVERS = ("ggml-rpc-server", "rpc-server")
"""The worker's program and its name in older releases."""

_LIBRARIES = ("libggml", "libllama", "libmtmd")


def server_program() -> str:
    """Path of llama-server. Raises GroupError if the image has none."""
    return _program(SERVER)


def rpc_program() -> str:
    """Path of the RPC server. Raises GroupError if the image has none."""
    return _program(*RPC_SERVERS)


def _program(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    raise GroupError(
        Reason.EngineFailed,
        f"the image has no {' or '.join(names)} on its PATH: use an image made from images/engine",
    )


def identity() -> EngineBuild:
    """Which build of the engine this image has.

    The RPC protocol checks only its version number, so the digest covers both programs and all
    libraries of llama.cpp that they may load, all CPU variants included: nodes may differ in CPU.
    """
    programs = [path for name in (SERVER, *RPC_SERVERS) if (path := shutil.which(name))]
    files = {Path(program).resolve() for program in programs}
    files |= {library for program in programs for library in _linked(program)}
    folders = {file.parent for file in files}
    for folder in folders:
        files |= {path.resolve() for path in folder.glob("libggml-*.so*")}
        files |= {path.resolve() for path in folder.glob("ggml/*/libggml-*.so*")}
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    server = shutil.which(SERVER)
    told = version(server) if server else None
    return {"version": told or "unknown", "build": digest.hexdigest()[:16]}


def _linked(program: str) -> list[Path]:
    # What ldd does: the loader prints what it would load and runs nothing.
    listing = subprocess.run(
        [program],
        env={**os.environ, "LD_TRACE_LOADED_OBJECTS": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    ).stdout
    words = (word for line in listing.splitlines() for word in line.split())
    paths = (Path(word) for word in words if word.startswith("/"))
    return [path.resolve() for path in paths if path.name.startswith(_LIBRARIES)]


def version(program: str) -> str | None:
    """What a program of the engine says of its version; None if it says nothing."""
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    for line in (done.stderr + done.stdout).splitlines():
        if line.startswith("version: "):
            return line.removeprefix("version: ")
    return None


def rpc_argv(program: str, host: str, port: int, threads: int) -> list[str]:
    """Command line of a worker's RPC server."""
    return [program, "-H", host, "-p", str(port), "-t", str(threads)]


def server_argv(
    program: str,
    options: LeaderOptions,
    model: Path,
    header: Header,
    endpoints: Sequence[str],
    threads: int,
    *,
    port: int = ENGINE_PORT,
    dry_run: bool = False,
) -> list[str]:
    """Command line of the leader's llama-server; with `dry_run`, of one that first says what it
    would allocate where.

    What the engine would otherwise choose by the host's
    memory and CPUs is said explicitly; the user's own arguments come last and win.
    """
    argv = [
        program,
        *("--rpc", ",".join(endpoints)),
        *("--model", str(model)),
        *("--alias", options.model_name or model.stem),
        # The gate is in front of it, and the agent asks it; nobody else reaches it.
        *("--host", "127.0.0.1"),
        *("--port", str(port)),
        *("--threads-http", str(options.parallel + 8)),
        *("--fit", "on" if dry_run else "off"),
        *("--n-gpu-layers", str(header.block_count + 1)),
        *("--tensor-split", ",".join(f"{weight:g}" for weight in tensor_split(options.layers))),
        *("--ctx-size", str(options.context_size * options.parallel)),
        *("--parallel", str(options.parallel)),
        *("--batch-size", str(options.batch_size)),
        *("--ubatch-size", str(options.ubatch_size)),
        *("--cache-type-k", options.cache_type_k),
        *("--cache-type-v", options.cache_type_v),
        *("--threads", str(threads)),
        *("--cache-ram", "0"),  # 8 GiB of the leader's memory by default
        *("--ctx-checkpoints", str(CHECKPOINTS)),  # 32 for each slot by default
        "--metrics",
        # The levels at which the sizes of its buffers, and those of a dry run, are told.
        *("--log-verbosity", "5" if dry_run else "4"),
    ]
    if options.embeddings:
        argv.append("--embeddings")
        if f"{header.architecture}.pooling_type" not in header.values:
            argv += ["--pooling", "mean"]  # /v1/embeddings answers only pooled
    if options.chat_template:
        argv += ["--chat-template", options.chat_template]
    return [*argv, *options.extra_args]


class EngineHttp:
    """The running llama-server, over its own HTTP."""

    def __init__(self, port: int = ENGINE_PORT) -> None:
        self._port = port

    def is_healthy(self) -> bool:
        """True when the engine says that it has loaded. Its word alone: it says so even when a
        worker is gone."""
        try:
            code, _ = self._ask("GET", "/health", None, seconds=2)
        except (OSError, http.client.HTTPException):
            return False
        return code == 200

    def metrics(self, seconds: float) -> str | None:
        """Its metrics, if it tells them within so many seconds."""
        return self._told("/metrics", seconds)

    def slots(self, seconds: float) -> str | None:
        """What its slots hold, as JSON."""
        return self._told("/slots", seconds)

    def _told(self, path: str, seconds: float) -> str | None:
        try:
            code, answer = self._ask("GET", path, None, seconds)
        except (OSError, http.client.HTTPException):
            return None
        return answer if code == 200 else None

    def make_first_token(self, embeddings: bool, seconds: float) -> None:
        """Makes the smallest real request, which passes through every layer and thus every worker.

        Raises GroupError if the answer is not a good one.
        """
        path, body = (
            ("/embedding", {"content": "Hello"})
            if embeddings
            else ("/completion", {"prompt": "Hello", "n_predict": 1, "cache_prompt": False})
        )
        try:
            code, answer = self._ask("POST", path, body, seconds)
        except (OSError, http.client.HTTPException) as error:
            raise GroupError(
                Reason.EngineFailed,
                f"the engine has loaded but made no first token: {error or type(error).__name__}",
            ) from error
        if code != 200:
            raise GroupError(
                Reason.EngineFailed,
                f"the engine has loaded but answers the first request with {code}: {answer[:300]}",
            )

    def _ask(self, method: str, path: str, body: object, seconds: float) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=seconds)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read(1 << 20).decode("utf-8", "replace")
        finally:
            connection.close()
