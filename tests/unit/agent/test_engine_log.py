"""The engine's own words are read for what it placed where and why it ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacluster.agent.engine_log import TAIL_LINES, EngineLog
from llamacluster.planning.reasons import Reason

LOADED = """\
0.00.111.571 I load_tensors:   CPU_Mapped model buffer size =     0.50 MiB
0.00.111.571 I load_tensors: RPC0[10.0.0.1:50052] model buffer size =     2.00 MiB
0.00.111.572 I load_tensors: RPC0[10.0.0.2:50052] model buffer size =     3.00 MiB
0.00.116.053 I llama_context:        CPU  output buffer size =     0.25 MiB
0.00.116.430 I llama_kv_cache: RPC0[10.0.0.1:50052] KV buffer size =     6.50 MiB
0.00.116.431 I llama_kv_cache: RPC0[10.0.0.1:50052] KV buffer size =     1.50 MiB
0.00.119.465 I llama_kv_cache: RPC0[10.0.0.2:50052] KV buffer size =     5.50 MiB
0.00.136.330 I sched_reserve: RPC0[10.0.0.1:50052] compute buffer size =     9.00 MiB
0.00.136.331 I sched_reserve: RPC0[10.0.0.1:50052] compute buffer size =     4.00 MiB
0.00.136.364 I sched_reserve:        CPU compute buffer size =     2.00 MiB
"""
WORKERS, ENDPOINTS = ["x-0-1", "x-0-2"], ["10.0.0.1:50052", "10.0.0.2:50052"]
MIB = 1 << 20


def log_of(text: str) -> EngineLog:
    log = EngineLog()
    for line in text.splitlines():
        log.add(line)
    return log


def test_buffers_are_told_for_each_worker() -> None:
    first, second = log_of(LOADED).placement(WORKERS, ENDPOINTS, [0, 0, 1])
    assert first == {
        "device": "RPC0",
        "worker": "x-0-1",
        "firstLayer": 0,
        "lastLayer": 1,
        "layers": 2,
        "modelBytes": 2 * MIB,
        "contextBytes": 8 * MIB,  # two caches
        "computeBytes": 4 * MIB,  # the last reservation
    }
    assert (second["device"], second["layers"], second["modelBytes"]) == ("RPC1", 1, 3 * MIB)


def test_what_is_on_no_worker_is_the_leaders() -> None:
    assert log_of(LOADED).leader_memory([0, 0, 1]) == {
        "layers": 0,
        "modelBytes": MIB // 2,
        "contextBytes": 0,
        "computeBytes": 2 * MIB + MIB // 4,  # with the room for its output
    }


def test_layers_that_the_engine_tells_overrule_the_rule() -> None:
    log = log_of(
        "0.0 D load_tensors: layer   0 assigned to device CPU, is_swa = 0\n"
        "0.0 D load_tensors: layer   1 assigned to device RPC1, is_swa = 0\n"
    )
    first, second = log.placement(WORKERS, ENDPOINTS, [0, 0, 1])
    assert (first["layers"], second["layers"]) == (0, 2)
    assert log.leader_memory([0, 0, 1])["layers"] == 1


def test_the_speed_of_the_last_answer_is_kept() -> None:
    log = log_of(
        "0 I slot print_timing: id  0 | task 0 | prompt eval time =  5.87 ms /  6 tokens"
        " (  0.98 ms per token,  1022.15 tokens per second)\n"
        "0 I slot print_timing: id  0 | task 0 |        eval time =  38.64 ms /  24 tokens"
        " (  1.61 ms per token,   621.12 tokens per second)\n"
        "0 I slot print_timing: id  0 | task 0 |        eval time =  0.00 ms /  1 tokens"
        " (  0.00 ms per token,   0.00 tokens per second)\n"
    )
    assert log.tokens_per_second == 621.12


@pytest.mark.parametrize(
    ("text", "code", "reason", "words"),
    [
        (
            "error: invalid argument: --nonsense",
            1,
            Reason.EngineBadFlag,
            "error: invalid argument: --nonsense; correct inference.extraArgs",
        ),
        (
            'error while handling argument "-ctk": Unsupported cache type: q9_9\n\nusage:\n-ctk',
            1,
            Reason.EngineBadFlag,
            "Unsupported cache type: q9_9",
        ),
        (
            "0.00.023.707 E llama_model_load: error loading model: tensor 'blk.9.attn_q.weight'"
            " data is not within the file bounds, model is corrupted or incomplete\n"
            "0.00.024.223 E srv  llama_server: exiting due to model loading error",
            1,
            Reason.ModelInvalid,
            "says: llama_model_load: error loading model: tensor 'blk.9",
        ),
        (
            "0.02.585.668 E send failed (bytes_sent=0, size_to_send=8)\n"
            "./src/ggml-rpc/ggml-rpc.cpp:685: Remote RPC server crashed or returned malformed"
            " response\n/usr/lib/libggml.so(+0x1f4b82) [0x7f56]",
            134,
            Reason.WorkerLost,
            "Remote RPC server crashed",
        ),
        (
            "./src/ggml-rpc/ggml-rpc.cpp:650: Failed to connect to 10.0.0.1:50052",
            134,
            Reason.WorkerLost,
            "Failed to connect to 10.0.0.1:50052",
        ),
        (
            "0.00.071.379 E llama_init_from_model: quantized V cache requires flash_attn\n"
            "0.00.073.643 E srv  llama_server: exiting due to model loading error",
            1,
            Reason.EngineFailed,
            "ended with 1; it said: llama_init_from_model: quantized V cache",
        ),
        (
            "0.00.000.001 W srv  llama_server: security: no API key is set\n"
            "./src/ggml-impl.h:330: fatal error\n"
            + "0.00.907.920 D llama_graph_n_input_tensors: input tensor 'x'\n"
            * 300
            + "/usr/lib/libggml-base.so.0(ggml_abort+0x14e) [0x7fcbcad98b2e]\n"
            "/usr/bin/llama-server(+0x1261) [0x55fba8cc2261]",
            134,
            Reason.EngineFailed,
            "ended with 134; it said: ./src/ggml-impl.h:330: fatal error",
        ),
        (
            "0.00.907.919 ./src/ggml-impl.h:330: fatal error\n"
            "D llama_graph_n_input_tensors: input tensor 'x'",  # where the two collide
            134,
            Reason.EngineFailed,
            "it said: ./src/ggml-impl.h:330: fatal error",
        ),
        (
            "0.00.907.919 D ./src/ggml-impl.h:330: fatal error\n"
            "llama_graph_n_input_tensors: input tensor 'x'",
            134,
            Reason.EngineFailed,
            "it said: ./src/ggml-impl.h:330: fatal error",
        ),
        (
            "0.00.1.2.3 I first\n"
            "0.00.000.002 E a_function: what is wrong\n"
            "0.00.000.003 I then\n"
            "./src/ggml.c:2083: GGML_ASSERT(ggml_can_repeat(b, a)) failed\n"
            "/usr/bin/llama-server(+0x1261) [0x55c5eeda8261]",
            134,
            Reason.EngineFailed,
            "it said: a_function: what is wrong; ./src/ggml.c:2083: GGML_ASSERT(",
        ),
        (
            "0.02.421.023 E llama_init_from_model: quantized V cache requires flash_attn\n"
            "0.02.545.652 E common_fit_params: encountered an error while trying to fit params",
            None,
            Reason.EngineFailed,
            "the engine cannot serve so; it said: llama_init_from_model: quantized V cache",
        ),
        ("whatever", 137, Reason.EngineFailed, "raise leader.resources.limits.memory"),
        ("", 3, Reason.EngineFailed, "ended with 3; it said: nothing"),
    ],
)
def test_the_reason_of_an_end_is_found_in_the_last_lines(
    text: str, code: int | None, reason: Reason, words: str
) -> None:
    error = log_of(text).why_it_ended(code)
    assert error.reason is reason
    assert words in error.message


@given(st.lists(st.text(max_size=200), max_size=300))
def test_any_output_is_survived_in_bounded_memory(lines: list[str]) -> None:
    log = EngineLog()
    for line in lines:
        log.add(line)
        log.add(f"x: RPC{len(line)}[{line}] model buffer size = 1.00 MiB")
    assert len(log._tail) <= TAIL_LINES
    assert len(log._buffers) <= 64
    log.why_it_ended(1)
