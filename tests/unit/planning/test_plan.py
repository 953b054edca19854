"""The plan: enough workers, no more than that, and the truth when there is no way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest

from llamacluster.planning.account import Account, Settings
from llamacluster.planning.formula import Formula, checkpoint_bytes
from llamacluster.planning.plan import (
    CHECKPOINTS,
    MARGIN,
    WORKER_BASE,
    Planner,
    Wanted,
    kept_graphs_bytes,
    quantity,
    runs,
    shown,
)
from llamacluster.planning.reasons import GroupError, Reason
from tests.model.headers import MODELS
from tests.unit.planning.test_model import model

GIB = 1 << 30
SETTINGS = Settings(context_size=8192, parallel=2)


def planner(name: str) -> Planner:
    return Planner(model(name), Formula(model(name)))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("limit", [16, 32, 64])
def test_the_fewest_workers_that_hold_the_model(name: str, limit: int) -> None:
    result = planner(name).plan(Wanted(worker_memory=limit * GIB), SETTINGS)
    count = len(result.split.layers)
    if result.fits:
        assert max(result.split.needs) <= limit * GIB
    else:
        assert count == 15
    if count > 1:
        fewer = planner(name).plan(Wanted(workers=count - 1), SETTINGS)
        assert fewer.split.heaviest > limit * GIB
        assert fewer.worker_memory == fewer.split.heaviest


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_in_one_worker_and_no_worker_is_empty(name: str) -> None:
    split = planner(name).plan(Wanted(workers=7), SETTINGS).split
    assert sum(split.layers) == model(name).layers
    assert len(split.layers) == 7
    assert min(split.layers) >= 1


def test_a_worker_needs_its_peak_and_a_margin() -> None:
    split = planner("llama-3.1-70b").plan(Wanted(workers=2), SETTINGS).split
    memory = split.account.workers[0]
    graphs = kept_graphs_bytes(split.account.graph_nodes, split.layers[0], sum(split.layers))
    assert graphs > GIB  # of 40 large layers
    held = memory.total * MARGIN + graphs + WORKER_BASE
    assert split.needs[0] == pytest.approx(held, abs=1 << 20)
    assert split.needs[0] % (1 << 20) == 0


def test_layers_go_by_bytes_and_not_by_number() -> None:
    # DeepSeek's first three layers are dense: a few hundred MB instead of over six GB.
    layers = planner("deepseek-v3").plan(Wanted(workers=15), SETTINGS).split.layers
    assert layers[0] >= max(layers[1:]) + 1


@dataclass
class Stubborn:
    """An accountant by whose word some layers have a far larger context than by the formula."""

    formula: Formula
    heavy: range
    asked: list[tuple[int, ...]] = field(default_factory=list)
    method: Literal["Engine", "Formula"] = "Engine"
    error_percent: int = 0

    def account(self, layers: Sequence[int], settings: Settings) -> Account:
        self.asked.append(tuple(layers))
        account = self.formula.account(layers, settings)
        return replace(
            account,
            workers=tuple(
                replace(
                    memory, context=memory.context + GIB * len(set(range(*run)) & set(self.heavy))
                )
                for memory, run in zip(account.workers, runs(layers), strict=True)
            ),
        )


def test_the_search_learns_from_the_accountant() -> None:
    accountant = Stubborn(Formula(model("llama-3.1-70b")), range(40, 80))
    split = Planner(model("llama-3.1-70b"), accountant).plan(Wanted(workers=2), SETTINGS).split
    assert split.layers[0] > 50  # where the formula would say 41
    light, heavy = (worker.total for worker in split.account.workers)
    assert abs(light - heavy) < 2.6 * GIB  # two of the heavy layers
    assert 2 <= len(accountant.asked) <= 3


def test_a_plan_of_the_largest_model_asks_the_accountant_seldom() -> None:
    accountant = Stubborn(Formula(model("llama-3.1-405b")), range(0))
    result = Planner(model("llama-3.1-405b"), accountant).plan(
        Wanted(worker_memory=24 * GIB), SETTINGS
    )
    assert result.fits
    assert len(accountant.asked) <= 6  # about half a second each


def test_a_refusal_names_what_is_missing_and_everything_that_would_fit() -> None:
    result = planner("llama-3.1-70b").plan(
        Wanted(workers=2, worker_memory=26 * GIB), replace(SETTINGS, context_size=32768)
    )
    assert not result.fits
    needs, worker = quantity(result.split.heaviest), result.split.needs.index(result.split.heaviest)
    assert result.message.startswith(
        f"the model does not fit 2 workers with 26Gi each: worker {worker + 1} needs {needs} ("
    )
    assert "more than its limit; what would fit: " in result.message
    remedies = result.message.split("what would fit: ")[1].split("; ")
    assert remedies[0] == "workers.count 3"
    assert remedies[1] == f"workers.resources.limits.memory {needs}"
    assert remedies[2].startswith("contextSize 9728 (needs ")
    assert len(remedies) == 3  # q8_0 alone would not do


def test_every_remedy_is_true() -> None:
    settings = replace(SETTINGS, context_size=16384)
    limit = 26 * GIB
    result = planner("llama-3.1-70b").plan(Wanted(2, worker_memory=limit), settings)
    assert "contextSize 10240" in result.message
    assert "parallel 1" in result.message
    assert "q8_0" in result.message
    for wanted, other in (
        (Wanted(3, worker_memory=limit), settings),
        (Wanted(2, worker_memory=result.split.heaviest), settings),
        (Wanted(2, worker_memory=limit), replace(settings, context_size=10240)),
        (Wanted(2, worker_memory=limit), replace(settings, parallel=1)),
        (
            Wanted(2, worker_memory=limit),
            replace(settings, cache_type_k="q8_0", cache_type_v="q8_0"),
        ),
    ):
        assert planner("llama-3.1-70b").plan(wanted, other).fits


@pytest.mark.parametrize(
    ("name", "settings", "workers", "gib", "remedy"),
    [
        ("llama-3.1-70b", Settings(65536, 2), 2, 42, r"contextSize (5\d{4}) "),
        ("llama-4-scout", Settings(1 << 20, 2), 3, 30, r"contextSize (7\d{4}) "),  # much is windows
        ("gemma-3-27b", Settings(131072, 4), 2, 16, r"contextSize (2\d{4}) "),
        ("mamba2-2.7b", Settings(4096, 256), 2, 16, r"parallel (13\d) "),  # state, not context
    ],
)
def test_no_more_is_given_up_than_it_takes_and_the_accountant_is_asked_seldom(
    name: str, settings: Settings, workers: int, gib: int, remedy: str
) -> None:
    accountant = Stubborn(Formula(model(name)), range(0))
    result = Planner(model(name), accountant).plan(Wanted(workers, gib * GIB), settings)
    assert re.search(remedy, result.message), result.message
    assert len(accountant.asked) <= 8


@pytest.mark.parametrize(
    ("kind_k", "kind_v", "wide"),
    [
        ("f16", "f16", "cacheTypeK and cacheTypeV"),
        ("q8_0", "f16", "cacheTypeV"),
        ("bf16", "q4_0", "cacheTypeK"),
    ],
)
def test_of_the_cache_only_what_is_wide_is_to_be_quantised(
    kind_k: str, kind_v: str, wide: str
) -> None:
    long = replace(SETTINGS, context_size=131072, cache_type_k=kind_k, cache_type_v=kind_v)
    q8_0 = {"f16": "q8_0", "bf16": "q8_0"}
    narrow = replace(
        long, cache_type_k=q8_0.get(kind_k, kind_k), cache_type_v=q8_0.get(kind_v, kind_v)
    )
    needs, enough = (
        planner("llama-3.1-70b").plan(Wanted(2), each).split.heaviest for each in (long, narrow)
    )
    refusal = planner("llama-3.1-70b").plan(Wanted(2, enough), long).message
    assert f"; {wide} q8_0 (needs {quantity(enough)})" in refusal
    advice = planner("llama-3.1-70b").plan(Wanted(2, needs), long).advice
    assert any(text.startswith(f"{wide} q8_0 would save ") for text in advice)


def test_too_small_a_leader_is_told() -> None:
    result = planner("llama-3.1-70b").plan(
        Wanted(workers=3, worker_memory=64 * GIB, leader_memory=256 << 20), SETTINGS
    )
    assert not result.fits
    assert f"leader.resources.limits.memory to {quantity(result.leader_needs)}" in result.message
    assert "does not fit" not in result.message


def test_what_the_leader_holds_is_told_with_what_would_hold_less() -> None:
    long, limit = Settings(65536, 4), 8 * GIB
    scout, wanted = planner("llama-4-scout"), Wanted(workers=4, leader_memory=limit)
    message = scout.plan(wanted, long).message
    assert re.search(r"\d MiB to compute, 19.1 GiB of saved states, 1.5 GiB for bodies", message)
    slots, kept = re.findall(r"or (?:parallel|--ctx-checkpoints in extraArgs) to (\d+)", message)
    for given, fits in ((int(slots), True), (int(slots) + 1, False)):
        assert scout.plan(wanted, replace(long, parallel=given)).fits is fits
    for given, fits in ((int(kept), True), (int(kept) + 1, False)):
        less = replace(long, extra_args=("--ctx-checkpoints", str(given)))
        assert scout.plan(wanted, less).fits is fits
    message = planner("llama-3.1-8b").plan(Wanted(1, leader_memory=GIB), long).message
    assert "checkpoints" not in message
    assert "saved" not in message


def test_what_the_user_has_the_leader_hold_is_planned() -> None:
    def leader(*extra_args: str) -> int:
        found = planner("gemma-3-27b").plan(Wanted(3), replace(SETTINGS, extra_args=extra_args))
        return found.leader_needs

    embeddings = model("gemma-3-27b").input_bytes
    assert leader("--no-mmap") - leader() == pytest.approx(embeddings * MARGIN, abs=1 << 20)
    one = checkpoint_bytes(model("gemma-3-27b"), SETTINGS) * SETTINGS.parallel
    assert leader("--ctx-checkpoints", "7") == leader("--ctx-checkpoints", " +7x")
    more = leader("--ctx-checkpoints", "7") - leader()
    assert more == pytest.approx((7 - CHECKPOINTS) * one, abs=1 << 20)


def test_even_all_workers_may_be_too_few() -> None:
    result = planner("deepseek-v3").plan(Wanted(worker_memory=16 * GIB), SETTINGS)
    assert not result.fits
    assert "15 workers with 16Gi each" in result.message
    assert "(with 15 workers)" in result.message
    assert "workers.count" not in result.message


def test_more_workers_than_layers_are_refused() -> None:
    small = replace(model("gpt-oss-20b"), layer_bytes=(1,) * 5)
    with pytest.raises(GroupError, match="cannot be spread over 6 workers") as caught:
        Planner(small, Formula(small)).plan(Wanted(workers=6), SETTINGS)
    assert caught.value.reason is Reason.TooManyWorkers


def test_advice() -> None:
    result = planner("llama-3.1-8b").plan(
        Wanted(workers=3, worker_memory=32 * GIB, worker_cpu=500),
        replace(SETTINGS, context_size=262144),
    )
    joined = " | ".join(result.advice)
    assert "more than the 131072 tokens" in joined
    assert "q8_0 would save" in joined
    assert "workers have 500m of a CPU" in joined
    assert "may be off by 10 %" in joined
    assert "fits one worker" not in joined  # 64 GiB of context
    short = planner("llama-3.1-8b").plan(Wanted(workers=3, worker_memory=32 * GIB), SETTINGS)
    assert any("workers.count 1 answers a single request faster" in text for text in short.advice)


def test_no_advice_where_none_is_due() -> None:
    accountant = Stubborn(Formula(model("llama-3.1-70b")), range(0))
    result = Planner(model("llama-3.1-70b"), accountant).plan(
        Wanted(worker_memory=32 * GIB, worker_cpu=8000), replace(SETTINGS, cache_type_k="q8_0")
    )
    assert result.advice == ()


@pytest.mark.parametrize(
    ("amount", "text"), [(GIB, "1Gi"), (GIB + 1, "1025Mi"), (1, "1Mi"), (300 << 20, "300Mi")]
)
def test_quantities_are_kubernetes_own_and_never_less(amount: int, text: str) -> None:
    assert quantity(amount) == text


def test_amounts_for_people() -> None:
    assert shown(23 * GIB + GIB // 3) == "23.3 GiB"
    assert shown(300 << 20) == "300 MiB"
