"""What the engine tells in its log: where it put the model, and why it ended.

Lines of llama.cpp 0.7 look like `0.00.111.571 I load_tensors: RPC0[10.0.0.1:50052] model buffer
size =     0.33 MiB`: time, level, function, text. Aborts print `file.cpp:650: text` without a
prefix.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

from llamacluster.agent.contract.messages import LeaderMemory, Placement
from llamacluster.planning.reasons import GroupError, Reason

TAIL_LINES = 200
LINE_CHARACTERS = 500
MAX_DEVICES = 64

_PREFIX = re.compile(r"^\d+\.\d\d\.\d{3}\.\d{3} (?:[A-Z] )?")
_DEBUG = re.compile(r"^\d+\.\d\d\.\d{3}\.\d{3} D ")
"""Thousands of lines with verbosity 5. The words of an abort do not wait for the log: they stand
before the last of those lines, or in the midst of one."""
_BUFFER = re.compile(
    r": +(?P<device>\w+)(?:\[(?P<endpoint>[^\]]+)\])? +"
    r"(?P<kind>model|KV|RS|output|compute) buffer size = +(?P<mib>[\d.]+) MiB"
)
_ASSIGNED = re.compile(r"load_tensors: layer +(?P<layer>\d+) assigned to device (?P<device>\w+)")
_GRAPH = re.compile(r"sched_reserve: graph: nodes = (?P<nodes>\d+)")
_SPEED = re.compile(
    r"\| +eval time = +[\d.]+ ms / +(?P<tokens>\d+) tokens .*?(?P<speed>[\d.]+) tokens per"
)

_BAD_FLAG = re.compile(r"^error: invalid argument|^error while handling argument|^error: ")
_RPC = re.compile(r"ggml-rpc[\w.-]*:\d+: |Cannot resolve host|RPC server crashed")
_BAD_MODEL = re.compile(r"error loading model")
_ABORT = re.compile(r"(?:^|\s)\S+\.(?:cpp|c|h):\d+: |GGML_ASSERT")
_FRAME = re.compile(r"^\S+\(\S*\) ?\[0x[0-9a-f]+\]$")
_ERROR = re.compile(rf"^\d+\.\d\d\.\d{{3}}\.\d{{3}} E |^error\b|{_ABORT.pattern}")


@dataclass
class _Buffers:
    model: int = 0
    context: int = 0
    compute: int = 0
    output: int = 0


@dataclass
class EngineLog:
    """Follows one run of the engine. Its memory is bounded whatever the engine prints."""

    tokens_per_second: float | None = None
    state_bytes: int = 0
    """Recurrent state on all devices."""
    graph_nodes: int = 0
    """Operations in the largest graph of the model; 0 where nothing is said of it."""
    _tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    _buffers: dict[str, _Buffers] = field(default_factory=lambda: defaultdict(_Buffers))
    _layers: dict[int, str] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def add(self, line: str) -> None:
        with self._lock:
            if not _DEBUG.match(line) or _ABORT.search(line):
                self._tail.append(line[:LINE_CHARACTERS])
            if "buffer size =" in line:
                self._add_buffer(line)
            elif found := _GRAPH.search(line):
                self.graph_nodes = max(self.graph_nodes, int(found["nodes"]))
            elif found := _ASSIGNED.search(line):
                self._layers[int(found["layer"])] = found["device"]
            elif (found := _SPEED.search(line)) and int(found["tokens"]) > 1:
                self.tokens_per_second = float(found["speed"])

    def _add_buffer(self, line: str) -> None:
        found = _BUFFER.search(line)
        if not found:
            return
        device = found["endpoint"] or "host"  # what is not remote is the leader's own
        if device not in self._buffers and len(self._buffers) >= MAX_DEVICES:
            return
        buffers, size = self._buffers[device], round(float(found["mib"]) * (1 << 20))
        match found["kind"]:
            case "model":
                buffers.model += size
            case "compute":
                buffers.compute = size  # told anew each time the graph is reserved
            case "RS":
                buffers.context += size
                self.state_bytes += size
            case "output":
                buffers.output = size  # of logits, not of the context; grows with the batch
            case _:
                buffers.context += size

    def devices(self) -> dict[int, str]:
        """The device of each layer, where the engine has told it (with verbosity 5)."""
        with self._lock:
            return dict(self._layers)

    def placement(
        self, workers: Sequence[str], endpoints: Sequence[str], devices: Sequence[int]
    ) -> list[Placement]:
        """What each worker holds. `devices` is the worker of each layer by the engine's rule; it is
        overruled where the engine itself tells its layers (with verbosity 5)."""
        with self._lock:
            told = [self._layers.get(layer, f"RPC{device}") for layer, device in enumerate(devices)]
            result: list[Placement] = []
            for index, (worker, endpoint) in enumerate(zip(workers, endpoints, strict=True)):
                layers = [layer for layer, device in enumerate(told) if device == f"RPC{index}"]
                buffers = self._buffers.get(endpoint, _Buffers())
                result.append(
                    {
                        "device": f"RPC{index}",
                        "worker": worker,
                        "firstLayer": min(layers, default=-1),
                        "lastLayer": max(layers, default=-1),
                        "layers": len(layers),
                        "modelBytes": buffers.model,
                        "contextBytes": buffers.context,
                        "computeBytes": buffers.compute + buffers.output,
                    }
                )
            return result

    def leader_memory(self, devices: Sequence[int]) -> LeaderMemory:
        """What the engine keeps in the leader: token embeddings and working memory."""
        with self._lock:
            buffers = self._buffers.get("host", _Buffers())
            remote = [
                self._layers.get(layer, f"RPC{device}").startswith("RPC")
                for layer, device in enumerate(devices)
            ]
            return {
                "layers": remote.count(False),
                "modelBytes": buffers.model,
                "contextBytes": buffers.context,
                "computeBytes": buffers.compute + buffers.output,
            }

    def why_it_ended(self, exit_code: int | None) -> GroupError:
        """The reason that the last lines give for an end of the engine that nobody asked for, or,
        without an exit code, for that it cannot begin."""
        with self._lock:
            lines = [line for line in self._tail if line.strip()]
        for reason, pattern, advice in (
            (Reason.EngineBadFlag, _BAD_FLAG, "correct inference.extraArgs, or the field it is of"),
            (Reason.WorkerLost, _RPC, "the group forms anew"),
            (Reason.ModelInvalid, _BAD_MODEL, "replace the file, or use an image that knows it"),
        ):
            for line in lines:
                if pattern.search(line):
                    return GroupError(reason, f"the engine says: {_plain(line)}; {advice}")
        if exit_code == 137:
            return GroupError(
                Reason.EngineFailed,
                "the engine was killed (137), most likely over the leader's memory limit:"
                " raise leader.resources.limits.memory",
            )
        return GroupError(
            Reason.EngineFailed,
            (
                "the engine cannot serve so"
                if exit_code is None
                else f"the engine ended with {exit_code}"
            )
            + f"; it said: {_last_words(lines) or 'nothing'}",
        )


def _last_words(lines: Sequence[str]) -> str:
    """What tells most of an end without a reason of its own: an error; where the engine gave up,
    with the error before it, for the place alone says little; else its last sentence."""
    said = [line for line in lines if not _FRAME.search(line)]
    errors = [line for line in said if _ERROR.search(line)]
    place = next((index for index, line in enumerate(errors) if _ABORT.search(line)), 0)
    told = errors[max(0, place - 1) : place + 1] or said[-1:]
    return "; ".join(map(_plain, told))


def _plain(line: str) -> str:
    return _PREFIX.sub("", line).strip()[:300]
