"""What a leader tells Prometheus."""

from __future__ import annotations

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llamacluster.agent.clock import Clock
from llamacluster.agent.contract.messages import LeaderStatus, Phase
from llamacluster.agent.metrics import (
    METRICS,
    EngineTold,
    GateLoad,
    KvCache,
    engines_own,
    exposition,
    gate_load,
    kv_cache,
)
from llamacluster.agent.status import GroupStatus
from llamacluster.planning.reasons import GroupError, Reason
from tests.unit.agent.fakes import BUILD, HELD, FastClock

ENGINE = """\
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 1
# HELP llamacpp:n_busy_slots_per_decode Average number of busy slots per llama_decode() call
# TYPE llamacpp:n_busy_slots_per_decode gauge
llamacpp:n_busy_slots_per_decode 1.5e-05
"""
GATE = GateLoad(running=2, waiting=5, responses={"2xx": 7, "4xx": 1})
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def served() -> LeaderStatus:
    """A group that serves with two workers."""
    status = GroupStatus("x-0", BUILD, 1, 1 << 30, Clock())
    status.enter(Phase.Serving, Reason.Ready, "serving")
    status.load_seconds, status.memory = 12.5, HELD
    status.workers = [
        {
            "name": f"x-0-{index}",
            "attached": True,
            "threads": 1,
            "memoryLimitBytes": None,
            "memory": HELD,
            "build": "aaaa",
            "message": "",
        }
        for index in (1, 2)
    ]
    status.placement = [
        {
            "device": "RPC0",
            "worker": "x-0-1",
            "firstLayer": 0,
            "lastLayer": 1,
            "layers": 2,
            "modelBytes": 100,
            "contextBytes": 20,
            "computeBytes": 3,
        }
    ]
    status.leader = {"layers": 0, "modelBytes": 10, "contextBytes": 0, "computeBytes": 5}
    return status.snapshot()


def told(
    status: LeaderStatus | None = None,
    gate: GateLoad | None = GATE,
    engine: EngineTold | None = None,
) -> str:
    return exposition(
        status or served(),
        ready=True,
        recoveries={"WorkerLost": (2, 31.5)},
        wanted=2,
        slots=4,
        gate=gate,
        engine=engine,
        now=100.0,
    )


def samples(text: str) -> Samples:
    return {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_group_that_serves_tells_all() -> None:
    engine = EngineTold(98.0, ENGINE, KvCache(busy=10, idle=4, capacity=512))
    text = told(engine=engine)
    found = samples(text)
    assert found["llamacluster_group_ready", ()] == 1
    assert found["llamacluster_group_phase", (("phase", "Serving"),)] == 1
    assert found["llamacluster_group_phase", (("phase", "Failed"),)] == 0
    assert found["llamacluster_group_workers_wanted", ()] == 2
    assert found["llamacluster_group_workers_attached", ()] == 2
    assert found["llamacluster_group_recoveries_total", (("reason", "WorkerLost"),)] == 2
    assert found["llamacluster_group_recovery_seconds_total", (("reason", "WorkerLost"),)] == 31.5
    assert found["llamacluster_group_load_seconds", ()] == 12.5
    placed = {labels: value for (name, labels), value in found.items() if "placed" in name}
    assert placed[("member", "x-0-1"), ("part", "context")] == 20
    assert placed[("member", "x-0"), ("part", "compute")] == 5
    assert found["llamacluster_member_resident_bytes", (("member", "x-0-2"),)] == 3 << 20
    assert found["llamacluster_member_memory_limit_bytes", (("member", "x-0"),)] == 1 << 30
    assert found["llamacluster_gate_requests", (("state", "waiting"),)] == 5
    assert found["llamacluster_gate_responses_total", (("code", "2xx"),)] == 7
    assert found["llamacluster_kv_cache_tokens", (("slots", "busy"),)] == 10
    assert found["llamacluster_kv_cache_capacity_tokens", ()] == 512
    assert found["llamacluster_engine_metrics_age_seconds", ()] == 2
    assert found["llamacpp:requests_processing", ()] == 1
    own = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE llamacluster")]
    assert own == [metric.name for metric in METRICS]


def test_what_is_not_known_is_left_out() -> None:
    status = GroupStatus("x-0", BUILD, 1, None, Clock()).snapshot()
    names = {name for name, _ in samples(told(status, gate=None))}
    assert "llamacluster_group_load_seconds" not in names
    assert "llamacluster_gate_requests" not in names
    assert "llamacluster_member_memory_limit_bytes" not in names
    assert "llamacluster_kv_cache_tokens" not in names


def test_a_large_number_is_exact() -> None:
    status = served()
    status["memoryLimitBytes"] = 1_234_567_890_123
    assert 'limit_bytes{member="x-0"} 1234567890123\n' in told(status)


def test_the_engines_series_are_told_on_as_they_are() -> None:
    assert engines_own(ENGINE) == ENGINE


@pytest.mark.parametrize(
    "line",
    [
        "llamacluster_group_ready 1",
        "llamacpp:x",
        "llamacpp:x one",
        "llamacpp:x 1 2 3",
        "llamacpp:x 1.2.3",
        "llamacpp:x{slot=0} 1",
        "# TYPE llamacpp:x number",
        "# TYPE llamacluster_group_ready counter",
        '{"error": "not this time"}',
    ],
)
def test_what_is_no_series_of_the_engine_is_not_told_on(line: str) -> None:
    assert engines_own(f"{line}\nllamacpp:y NaN\n") == "llamacpp:y NaN\n"


@pytest.mark.parametrize("value", ["-1", "0.5", "1.5e-05", "2E+10", "+Inf", "-nan", "nan"])
def test_whatever_prometheus_takes_for_a_number_is_told_on(value: str) -> None:
    series = f'llamacpp:x{{slot="0",kind="a b"}} {value}\n'
    assert engines_own(series) == ("" if value == "-nan" else series)
    list(text_string_to_metric_families(engines_own(series)))


def test_tokens_of_slots_that_work_are_told_apart_from_those_kept() -> None:
    rows = [
        {"id": 0, "n_ctx": 512, "is_processing": True, "n_prompt_tokens": 30},
        {"id": 1, "n_ctx": 512, "is_processing": False, "n_prompt_tokens": 12},
        {"id": 2, "n_ctx": 512, "is_processing": False},  # has had no request yet
    ]
    assert kv_cache(json.dumps(rows)) == KvCache(busy=30, idle=12, capacity=1536)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '[{"n_ctx": "many"}]', '[{"n_ctx":1,"is_processing":1}]'),
        pytest.param("[" * 99_999, id="deep"),
    ],
)
def test_slots_that_are_not_understood_tell_nothing(text: str) -> None:
    assert kv_cache(text) is None


HEAD = "# pxname,svname,qcur,scur,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,\n"


def test_haproxys_statistics() -> None:
    text = HEAD + (
        "api,FRONTEND,,9,100,0,7,1,\n"
        "engine,engine,0,4,90,0,0,1,\n"
        "engine,BACKEND,3,7,90,0,6,1,\n"
        "quick,engine,0,1,10,0,1,0,\n"
    )
    responses = {"2xx": 100, "3xx": 0, "4xx": 7, "5xx": 1}
    assert gate_load(text) == GateLoad(running=4, waiting=3, responses=responses)


@pytest.mark.parametrize("text", ["", "Unknown command", HEAD, HEAD + "engine,BACKEND,,\n"])
def test_statistics_that_are_not_understood_tell_nothing(text: str) -> None:
    assert gate_load(text) is None


def test_recoveries_are_counted_by_what_the_group_was_lost_by() -> None:
    clock = FastClock()
    status = GroupStatus("x-0", BUILD, 1, None, clock)
    for reason in (Reason.WorkerLost, Reason.EngineHung, Reason.WorkerLost):
        status.enter(Phase.Serving, Reason.Ready, "serving")
        status.fail(GroupError(reason, "lost"))
    never = {"WorkerLeaving": (0, 0.0), "EngineFailed": (0, 0.0)}
    assert status.recoveries == {"WorkerLost": (1, 0.0), "EngineHung": (1, 0.0), **never}
