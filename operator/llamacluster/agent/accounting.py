"""The engine's own accounting: what llama-server says that it will allocate, before it does.

With `--fit on` llama-server first builds its graphs without memory for them, to see whether they
fit. RPC servers on loopback stand in for the workers, a file with the header alone for the model,
and it is killed as soon as it has told the sum. The command line is the leader's own, so
whatever an architecture, a build or a flag does with memory is in the numbers. (llama-fit-params
does not know how few logits a server keeps: a quarter GiB more for a large vocabulary.)

One thing the engine does allocate meanwhile: recurrent state, which hybrid models have for each
request slot. Such a model is first asked about with one slot. Where the state is large, fewer slots
than wanted are asked for: the context is linear in the slots, and working memory grows by no more
than the state of one layer, before and after it, for each of them (measured with 1 to 64 slots).
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

from llamacluster.agent.contract.options import LeaderOptions
from llamacluster.agent.engine import server_argv
from llamacluster.agent.engine_log import EngineLog
from llamacluster.agent.process import Child, Launcher, stop
from llamacluster.planning.account import Account, Memory, Settings
from llamacluster.planning.formula import graph_nodes, is_recurrent, state_in_work
from llamacluster.planning.model import Model, guesses_ahead
from llamacluster.planning.reasons import GroupError, Reason

RUN_SECONDS = 120.0
START_SECONDS = 30.0
_KILLED: Final = 128 + signal.SIGKILL
MAX_STATE_BYTES = 256 << 20
"""Of recurrent state, in the RPC servers here."""

_ROW = re.compile(
    r"memory_breakdown_print: \| +- (?P<device>RPC\d+|Host)\b.*"
    r"= +(?P<model>\d+) \+ +(?P<context>\d+) \+ +(?P<compute>\d+)\b"
)
_SUM = re.compile(r" common_params_fit_impl: projected ")
"""After all breakdowns."""
_OVER = re.compile(r" common_fit_params: ")
"""The dry run is over. If it has failed, llama-server goes on and allocates in earnest."""
_MIB: Final = 1 << 20


class EngineAccountant:
    """An Accountant that asks the engine. A context manager: it runs the RPC servers meanwhile."""

    method: Literal["Engine", "Formula"] = "Engine"
    error_percent = 0

    def __init__(
        self,
        server_program: str,
        rpc_program: str,
        copy: Path,
        model: Model,
        launcher: Launcher,
    ) -> None:
        """`copy` is a file with the model's header."""
        self._server_program = server_program
        self._rpc_program = rpc_program
        self._copy = copy
        self._model = model
        self._launcher = launcher
        self._state: dict[tuple[str, ...], int] = {}
        """Recurrent state of one slot, by the arguments of the user."""
        self._servers: list[tuple[str, Child]] = []

    def __enter__(self) -> EngineAccountant:
        return self

    def __exit__(self, *error: object) -> None:
        for _, server in self._servers:
            stop(server, 0)

    def account(self, layers: Sequence[int], settings: Settings) -> Account:
        """See Accountant."""
        slots, asked = settings.parallel, settings.parallel
        if slots > 1 and is_recurrent(self._model):
            asked = min(slots, max(1, MAX_STATE_BYTES // max(1, self._state_of_slot(settings))))
        said = self._ask_or_explain(layers, replace(settings, parallel=asked))
        if asked == slots:
            return said
        # It says whole MiB, rounded down: what is missing is scaled up too.
        more = state_in_work(self._model, slots - asked)
        return Account(
            tuple(
                replace(
                    memory,
                    context=(memory.context + _MIB) * slots // asked if memory.context else 0,
                    compute=memory.compute + more,
                )
                for memory in said.workers
            ),
            said.leader,
            said.graph_nodes,
        )

    def _ask_or_explain(self, layers: Sequence[int], settings: Settings) -> Account:
        """As _ask. Where the engine does not take the types of the cache, its own reason is seldom
        readable, and others may do."""
        try:
            return self._ask(layers, settings)
        except GroupError as error:
            wide = "f16"
            if error.reason is not Reason.EngineFailed or settings.cache_type_v == wide:
                raise
            try:
                self._ask(layers, replace(settings, cache_type_v=wide))
            except GroupError:
                raise error from None
            raise GroupError(
                Reason.EngineFailed,
                f"with cacheTypeK {settings.cache_type_k} and cacheTypeV {settings.cache_type_v}"
                f" {error.message}; with cacheTypeV {wide} it takes the model",
            ) from error

    def _state_of_slot(self, settings: Settings) -> int:
        """Bytes, as the engine allocates them: a user's argument may multiply them."""
        key = settings.extra_args
        if key not in self._state:
            log = EngineLog()
            self._ask([self._model.layers], replace(settings, parallel=1), log)
            self._state[key] = log.state_bytes
        return self._state[key]

    def _ask(
        self, layers: Sequence[int], settings: Settings, log: EngineLog | None = None
    ) -> Account:
        """What llama-server says. Raises GroupError if it says nothing, or would put another layer
        than planned on some worker."""
        # An abort may take its RPC servers with it.
        self._servers = [each for each in self._servers if each[1].exit_code() is None]
        while len(self._servers) < len(layers):
            self._start_server()
        rows: dict[str, Memory] = {}
        log, told, failed = log or EngineLog(), Event(), Event()
        ahead = guesses_ahead(settings.extra_args)

        def line(text: str) -> None:
            log.add(text)
            if row := _ROW.search(text):
                sizes = (int(row[part]) * _MIB for part in ("model", "context", "compute"))
                rows[row["device"]] = _with_further(rows.get(row["device"]), Memory(*sizes))
                if row["device"] == "Host" and not ahead:  # the last row
                    told.set()
            elif ahead and _SUM.search(text) and "Host" in rows:
                told.set()
            elif _OVER.search(text) and not told.is_set():
                failed.set()
                told.set()

        child = self._launcher.start(
            server_argv(
                self._server_program,
                _leader_options(layers, settings),
                self._copy,
                self._model.header,
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
        devices = [f"RPC{index}" for index in range(len(layers))]
        if {*devices, "Host"} <= rows.keys():
            _check_layers(log, layers)
            nodes = log.graph_nodes or graph_nodes(self._model, settings)
            return Account(tuple(rows[device] for device in devices), rows["Host"], nodes)
        if code == _KILLED:
            raise GroupError(
                Reason.EngineFailed,
                "llama-server was killed (137) while it was asked what it would allocate, most"
                f" likely for want of memory: contextSize {settings.context_size} in"
                f" {settings.parallel} slots is more than can be planned; lower contextSize or"
                " parallel",
            )
        if code is not None or failed.is_set():
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


def _with_further(known: Memory | None, row: Memory) -> Memory:
    """The sum for a device of which a second breakdown tells: that of the context for guessing
    ahead, which has the same weights."""
    if known is None:
        return row
    return Memory(row.model, known.context + row.context, known.compute + row.compute)


def _check_layers(log: EngineLog, layers: Sequence[int]) -> None:
    """Raises GroupError unless the engine's layers are those of the plan."""
    planned = [f"RPC{worker}" for worker, count in enumerate(layers) for _ in range(count)]
    told = log.devices()
    if told and told != dict(enumerate(planned)):
        of_workers = [list(told.values()).count(f"RPC{worker}") for worker in range(len(layers))]
        raise GroupError(
            Reason.EngineFailed,
            f"the engine would put {of_workers} of its {len(told)} layers on the workers where"
            f" {list(layers)} are planned: it counts the layers of this model in another way; use"
            " an image made from images/engine",
        )


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
