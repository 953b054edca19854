"""What the operator writes as arguments is what the agent reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacluster.agent.contract.options import (
    GateOptions,
    LeaderOptions,
    PlanOptions,
    WorkerOptions,
    gate_args,
    leader_args,
    parse,
    plan_args,
    worker_args,
)

texts = st.text(min_size=1, max_size=40)
numbers = st.integers(1, 1 << 31)


@given(
    st.builds(
        LeaderOptions,
        model_uri=texts,
        credentials_secret=st.none() | texts,
        layers=st.lists(st.integers(1, 200), min_size=1, max_size=15).map(tuple),
        context_size=numbers,
        parallel=numbers,
        batch_size=numbers,
        ubatch_size=numbers,
        cache_type_k=texts,
        cache_type_v=texts,
        server_port=st.integers(1, 65535),
        model_sha256=st.none() | texts,
        model_bytes=st.none() | numbers,
        model_name=st.none() | texts,
        threads=st.none() | numbers,
        embeddings=st.booleans(),
        chat_template=st.none() | texts,
        extra_args=st.lists(st.text(max_size=20)).map(tuple),
        host=texts,
        control_token_file=st.none() | texts,
        encrypted=st.booleans(),
    )
)
def test_leader_options_come_back_from_their_arguments(options: LeaderOptions) -> None:
    assert parse(leader_args(options)) == options


@given(
    st.builds(
        PlanOptions,
        model_uri=texts,
        credentials_secret=st.none() | texts,
        context_size=numbers,
        parallel=numbers,
        workers=st.none() | st.integers(1, 15),
        worker_memory=st.none() | numbers,
        worker_cpu=st.none() | numbers,
        leader_memory=st.none() | numbers,
        batch_size=numbers,
        ubatch_size=numbers,
        cache_type_k=texts,
        cache_type_v=texts,
        embeddings=st.booleans(),
        extra_args=st.lists(st.text(max_size=20)).map(tuple),
    )
)
def test_plan_options_come_back_from_their_arguments(options: PlanOptions) -> None:
    assert parse(plan_args(options)) == options


@given(
    st.builds(
        GateOptions,
        parallel=numbers,
        context_size=numbers,
        server_port=st.integers(1, 65535),
        queue=st.none() | numbers,
        queue_seconds=numbers,
        host=texts,
        grace_seconds=numbers,
    )
)
def test_gate_options_come_back_from_their_arguments(options: GateOptions) -> None:
    assert parse(gate_args(options)) == options


@given(st.builds(WorkerOptions, threads=st.none() | numbers, host=texts, grace_seconds=numbers))
def test_worker_options_come_back_from_their_arguments(options: WorkerOptions) -> None:
    assert parse(worker_args(options)) == options


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["follower"],
        ["worker", "--threads=0"],
        ["worker", "--thread=1"],
        ["leader", "--model-uri=u", "--layers=2,0", "--context-size=1", "--parallel=1"],
        ["leader", "--model-uri=u", f"--layers=1{15 * ',1'}", "--context-size=1", "--parallel=1"],
        ["leader", "--layers=1", "--context-size=1", "--parallel=1"],
        ["plan", "--model-uri=u", "--workers=16", "--context-size=1", "--parallel=1"],
    ],
)
def test_wrong_arguments_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(wrong)
