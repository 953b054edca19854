"""The engine is asked so that it stays small, and its answer is held against the question."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from llamacluster.agent.accounting import MAX_STATE_BYTES, EngineAccountant
from llamacluster.agent.process import Child, Launcher
from llamacluster.planning.account import Memory, Settings
from llamacluster.planning.formula import state_in_work
from llamacluster.planning.reasons import GroupError, Reason
from llamacluster.planning.split import assigned_device
from tests.unit.agent.fakes import FakeChild
from tests.unit.planning.test_model import model

MIB = 1 << 20
Say = Callable[[str], None]


class Engine(Launcher):
    """Stands in for both programs; the RPC servers really listen. Each layer weighs 10 MiB, each
    slot has 2 MiB of context on each worker and `state` MiB over all of them."""

    def __init__(self, state: int = 0) -> None:
        super().__init__()
        self.state = state
        self.asked: list[dict[str, str]] = []
        self.refuses: Callable[[dict[str, str], Say], int | None] = lambda *_: None
        """Says why; 0 stands for a run that goes on after that, other numbers end it."""
        self.more_layers = 0
        self._sockets: list[socket.socket] = []

    def start(self, argv: Sequence[str], on_line: Say, on_exit: Callable[[], None]) -> Child:
        child = FakeChild(len(self.asked), on_line, on_exit)
        flags = dict(pairwise(argv))
        if argv[0] == "rpc":
            self._sockets.append(socket.create_server(("127.0.0.1", int(flags["-p"]))))
            return child
        self.asked.append(flags)
        code = self.refuses(flags, on_line)
        if code is None:
            self._answer(flags, on_line)
        elif code:
            child.end(code)
        return child

    def _answer(self, flags: dict[str, str], say: Say) -> None:
        weights = [float(weight) for weight in flags["--tensor-split"].split(",")]
        devices = assigned_device(weights, int(flags["--n-gpu-layers"]) - 1 + self.more_layers)
        slots, head = int(flags["--parallel"]), "0.00.000.001"
        for layer, device in enumerate(devices):
            say(
                f"{head} D load_tensors: layer {layer:3} assigned to device RPC{device}, is_swa = 0"
            )
        if self.state:
            size = self.state * slots
            say(f"{head} I llama_memory_recurrent: RPC0[a:1] RS buffer size = {size}.00 MiB")
        table = f"{head} I common_memory_breakdown_print: |   - "
        for worker in range(len(weights)):
            held = devices.count(worker) * 10
            say(f"{table}RPC{worker} (a:1) | 9 = 9 + (9 = {held} + {2 * slots} + 30) + -9 |")
        say(f"{table}Host | 9 = 5 + 0 + 7 |")
        if flags.get("--spec-type") == "draft-mtp":
            say(f"{table}RPC0 (a:1) | 9 = 9 + (9 = {devices.count(0) * 10} + 0 + 0) + -9 |")
            say(f"{table}RPC1 (a:1) | 9 = 9 + (9 = {devices.count(1) * 10} + 4 + 50) + -9 |")
            say(f"{table}Host | 9 = 5 + 0 + 3 |")
        say(f"{head} I common_params_fit_impl: projected memory use with initial parameters [MiB]:")
        say(f"{head} I common_fit_params: successfully fit params to free device memory")

    def close(self) -> None:
        for each in self._sockets:
            each.close()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


def accountant(engine: Engine, name: str) -> EngineAccountant:
    return EngineAccountant("server", "rpc", Path("m.gguf"), model(name), engine)


def refusal(*lines: str, code: int, of: str = "") -> Callable[[dict[str, str], Say], int | None]:
    """Refuses the questions whose flags match `of`."""

    def refuse(flags: dict[str, str], say: Say) -> int | None:
        if not re.search(of, " ".join(map(" ".join, flags.items()))):
            return None
        for line in lines:
            say(line)
        return code

    return refuse


def test_the_engines_numbers_are_the_account(engine: Engine) -> None:
    with accountant(engine, "qwen3-8b") as asks:
        account = asks.account((12, 25), Settings(8192, 256))
    assert account.workers == (
        Memory(120 * MIB, 512 * MIB, 30 * MIB),
        Memory(250 * MIB, 512 * MIB, 30 * MIB),
    )
    assert account.leader == Memory(5 * MIB, 0, 7 * MIB)
    assert [flags["--parallel"] for flags in engine.asked] == ["256"]


def test_a_context_for_guessing_ahead_is_in_the_account(engine: Engine) -> None:
    extra_args = ("--spec-type", "draft-mtp")
    with accountant(engine, "qwen3-8b") as asks:
        account = asks.account((12, 25), Settings(8192, 1, extra_args=extra_args))
    assert account.workers == (
        Memory(120 * MIB, 2 * MIB, 30 * MIB),
        Memory(250 * MIB, 6 * MIB, 80 * MIB),
    )
    assert account.leader == Memory(5 * MIB, 0, 10 * MIB)


def test_large_states_are_asked_about_in_few_slots_and_scaled_up(engine: Engine) -> None:
    engine.state = MAX_STATE_BYTES // 4 // MIB
    with accountant(engine, "mamba-2.8b") as asks:
        (worker,) = asks.account((65,), Settings(8192, 64)).workers
        asks.account((65,), Settings(4096, 64))
    assert [flags["--parallel"] for flags in engine.asked] == ["1", "4", "4"]
    assert worker.context == (8 + 1) * 16 * MIB  # whole MiB were told, rounded down
    assert worker.compute == 30 * MIB + state_in_work(model("mamba-2.8b"), 60)


def test_small_states_are_asked_about_as_they_are(engine: Engine) -> None:
    engine.state = 1
    with accountant(engine, "mamba-2.8b") as asks:
        (worker,) = asks.account((65,), Settings(8192, 64)).workers
    assert (worker.context, worker.compute) == (128 * MIB, 30 * MIB)


def test_an_engine_that_counts_layers_in_another_way_makes_no_plan(engine: Engine) -> None:
    engine.more_layers = 1
    with (
        accountant(engine, "qwen3-8b") as asks,
        pytest.raises(GroupError, match=r"\[12, 26\] of its 38 layers .* \[12, 25\] are planned"),
    ):
        asks.account((12, 25), Settings(8192, 1))


def test_a_dry_run_that_failed_is_ended_before_it_becomes_a_real_one(engine: Engine) -> None:
    engine.refuses = refusal(
        "0.02.421.023 E llama_init_from_model: something is wrong",
        "0.02.545.652 E common_fit_params: encountered an error while trying to fit params",
        code=0,
    )
    with (
        accountant(engine, "qwen3-8b") as asks,
        pytest.raises(
            GroupError, match=r"cannot serve so; it said: .* something is wrong"
        ) as caught,
    ):
        asks.account((37,), Settings(8192, 1))
    assert caught.value.reason is Reason.EngineFailed


def test_a_cache_type_that_the_engine_does_not_take_is_told_with_one_that_it_does(
    engine: Engine,
) -> None:
    abort = "./src/ggml-impl.h:330: fatal error"
    engine.refuses = refusal(abort, code=134, of="--cache-type-v q8_0")
    settings = Settings(8192, 1, cache_type_k="q8_0", cache_type_v="q8_0")
    with (
        accountant(engine, "qwen3-8b") as asks,
        pytest.raises(GroupError, match=r"cacheTypeV q8_0 .*330.*; with cacheTypeV f16 it takes"),
    ):
        asks.account((37,), settings)


def test_a_failure_that_is_not_of_the_cache_is_told_as_it_is(engine: Engine) -> None:
    engine.refuses = refusal("./src/ggml.c:1: GGML_ASSERT(x) failed", code=134)
    settings = Settings(8192, 1, cache_type_k="q8_0", cache_type_v="q8_0")
    with (
        accountant(engine, "qwen3-8b") as asks,
        pytest.raises(GroupError, match=r"^EngineFailed: the engine ended with 134; it said: .*x"),
    ):
        asks.account((37,), settings)
