"""The engine's own accounting: what llama-server says that it will allocate, before it does.

With `--fit on` llama-server first builds its graphs without memory for them, to see whether they
fit. RPC servers on loopback stand in for the workers, a file with the header alone for the model,
and it is killed as soon as it has told the sum. The command line is the leader's own, so
whatever an architecture, a build or a flag does with memory is in the numbers. (llama-fit-params
does not know how few logits a server keeps: a quarter GiB more for a large vocabulary.)

One thing the engine does allocate meanwhile: recurrent state, which hybrid models have for each
request slot. Where that is large, fewer slots are asked for and the context is scaled up, which is
linear in the slots.
"""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Final, Literal

from llamacluster.agent.contract import LeaderOptions
from llamacluster.agent.engine import server_argv
from llamacluster.agent.engine_log import EngineLog
from llamacluster.agent.process import Child, Launcher, stop
from llamacluster.planning.account import Account, Memory, Settings
from llamacluster.planning.gguf import Header
from llamacluster.planning.reasons import GroupError, Reason

RUN_SECONDS = 120.0
START_SECONDS = 30.0
MAX_STATE_BYTES = 256 << 20
"""Of recurrent state, in the RPC servers here."""

_ROW = re.compile(
    r"memory_breakdown_print: \| +- (?P<device>RPC\d+|Host)\b.*"
    r"= +(?P<model>\d+) \+ +(?P<context>\d+) \+ +(?P<compute>\d+)\b"
)
_MIB: Final = 1 << 20


class EngineAccountant:
    """An Accountant that asks the engine. A context manager: it runs the RPC servers meanwhile."""

    method: Literal["Engine", "Formula"] = "Engine"
    error_percent = 0

    def __init__(
        self,
        server_program: str,
        rpc_program: str,
        model: Path,
        header: Header,
        launcher: Launcher,
        state_bytes: int = 0,
    ) -> None:
        """`model` is a file with the header, `state_bytes` the recurrent state of one slot."""
        self._server_program = server_program
        self._rpc_program = rpc_program
        self._model = model
        self._header = header
        self._launcher = launcher
        self._state_bytes = state_bytes
        self._servers: list[tuple[str, Child]] = []

    def __enter__(self) -> EngineAccountant:
        return self

    def __exit__(self, *error: object) -> None:
        for _, server in self._servers:
            stop(server, 0)

    def account(self, layers: Sequence[int], settings: Settings) -> Account:
        """See Accountant."""
        slots = settings.parallel
        if self._state_bytes * slots > MAX_STATE_BYTES:
            slots = max(1, MAX_STATE_BYTES // self._state_bytes)
        rows = self._ask(layers, replace(settings, parallel=slots))
        return Account(
            tuple(
                replace(row, context=row.context * settings.parallel // slots)
                for row in (rows[f"RPC{index}"] for index in range(len(layers)))
            ),
            rows["Host"],
        )

    def _ask(self, layers: Sequence[int], settings: Settings) -> dict[str, Memory]:
        """What llama-server says, by device."""
        while len(self._servers) < len(layers):
            self._start_server()
        rows: dict[str, Memory] = {}
        log, told = EngineLog(), Event()

        def line(text: str) -> None:
            log.add(text)
            if row := _ROW.search(text):
                sizes = (int(row[part]) * _MIB for part in ("model", "context", "compute"))
                rows[row["device"]] = Memory(*sizes)
                if row["device"] == "Host":  # the last row
                    told.set()

        child = self._launcher.start(
            server_argv(
                self._server_program,
                _leader_options(layers, settings),
                self._model,
                self._header,
                [endpoint for endpoint, _ in self._servers[: len(layers)]],
                threads=1,
                port=_free_port(),
                dry_run=True,
            ),
            line,
            told.set,
        )
        try:
            in_time = told.wait(RUN_SECONDS)
            code = child.exit_code()
        finally:
            child.send(signal.SIGKILL)  # before it allocates and loads
            child.wait(START_SECONDS)
        if {f"RPC{index}" for index in range(len(layers))} | {"Host"} <= rows.keys():
            return rows
        if code is not None:
            raise log.why_it_ended(code)
        raise GroupError(
            Reason.EngineFailed,
            "llama-server does not say what it would allocate"
            + ("" if in_time else f" within {RUN_SECONDS:g} s")
            + ": the image needs a build with --fit, such as that of images/engine",
        )

    def _start_server(self) -> None:
        port = _free_port()
        server = self._launcher.start(
            [self._rpc_program, "-H", "127.0.0.1", "-p", str(port), "-t", "1"],
            lambda _: None,
            lambda: None,
        )
        self._servers.append((f"127.0.0.1:{port}", server))
        deadline = time.monotonic() + START_SECONDS
        while server.exit_code() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise GroupError(Reason.EngineFailed, "an RPC server for the accounting does not start")


def _leader_options(layers: Sequence[int], settings: Settings) -> LeaderOptions:
    return LeaderOptions(
        model_uri="",
        model_name="plan",
        layers=tuple(layers),
        context_size=settings.context_size,
        parallel=settings.parallel,
        batch_size=settings.batch_size,
        ubatch_size=settings.ubatch_size,
        cache_type_k=settings.cache_type_k,
        cache_type_v=settings.cache_type_v,
        embeddings=settings.embeddings,
        extra_args=settings.extra_args,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
