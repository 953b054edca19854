"""The formula, where its numbers can be worked out by hand. That it is near the engine's own for
every model is held in tests/engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llamacluster.planning.account import Settings
from llamacluster.planning.formula import (
    Formula,
    checkpoint_bytes,
    compute_bytes,
    context_bytes,
    is_recurrent,
    state_bytes,
    state_in_work,
)
from llamacluster.planning.model import Model, model_of
from llamacluster.planning.plan import Planner, Wanted
from llamacluster.planning.reasons import GroupError
from tests.model.headers import MODELS
from tests.unit.planning.test_model import header_of, model

MIB = 1 << 20
SETTINGS = Settings(context_size=8192, parallel=2)


def test_kv_cache_of_a_layer_with_grouped_heads() -> None:
    layers = context_bytes(model("llama-3.1-70b"), SETTINGS)
    assert layers == [2 * 8192 * 2 * 8 * 128 * 2] * 80 + [0]


def test_cache_types_count_in_blocks() -> None:
    settings = replace(SETTINGS, cache_type_k="q8_0", cache_type_v="q4_0")
    layers = context_bytes(model("llama-3.1-70b"), settings)
    assert layers[0] == 2 * 8192 * (1024 // 32 * 34 + 1024 // 32 * 18)


def test_a_slot_has_whole_pages_of_cells() -> None:
    short = replace(SETTINGS, context_size=257)
    assert context_bytes(model("llama-3.1-70b"), short)[0] == 2 * 512 * 2 * 8 * 128 * 2


def test_a_sliding_window_keeps_the_window_and_a_batch() -> None:
    layers = context_bytes(model("gemma-3-27b"), SETTINGS)
    cell = 2 * 16 * 128 * 2
    assert layers[:6] == [2 * (1024 + 512) * cell] * 5 + [2 * 8192 * cell]
    full = context_bytes(model("gemma-3-27b"), replace(SETTINGS, extra_args=("--swa-full",)))
    assert full[:6] == [2 * 8192 * cell] * 6


def test_a_window_may_be_the_architectures_own() -> None:
    scout, long = model("llama-4-scout"), replace(SETTINGS, context_size=131072)
    assert "llama4.attention.sliding_window" not in scout.header.values
    cell = 2 * 8 * 128 * 2
    assert context_bytes(scout, long)[:4] == [2 * (8192 + 512) * cell] * 3 + [2 * 131072 * cell]
    assert checkpoint_bytes(scout, long) == 36 * (8192 + 512) * cell
    none = of_architecture("llama4", sliding_window=0)
    assert len(set(context_bytes(none, long)[:4])) == 1
    assert checkpoint_bytes(none, long) == 0
    gemma = model("gemma-2-9b")
    values = {key: each for key, each in gemma.header.values.items() if "sliding" not in key}
    unsaid = model_of([replace(gemma.header, values=values)])
    assert context_bytes(unsaid, SETTINGS) == context_bytes(gemma, SETTINGS)


def test_latent_attention_keeps_one_narrow_row() -> None:
    assert context_bytes(model("deepseek-v3"), SETTINGS)[0] == 2 * 8192 * (512 + 64) * 2
    assert context_bytes(model("kimi-linear-48b-a3b"), SETTINGS)[3] == 2 * 8192 * (512 + 64) * 2


def test_recurrent_layers_keep_a_state_for_each_slot_however_long_its_context() -> None:
    granite = model("granite-4.0-h-small")
    short, long = (context_bytes(granite, replace(SETTINGS, context_size=c)) for c in (512, 65536))
    recurrent = [layer for layer, size in enumerate(short[:-1]) if size == long[layer]]
    assert len(recurrent) == 36  # of 40: the other four attend
    assert sum(short[layer] for layer in recurrent) == 2 * state_bytes(granite)
    assert round(short[recurrent[0]] / 2 / MIB, 2) == 4.10


def test_checkpoints_are_of_what_forgets() -> None:
    assert checkpoint_bytes(model("llama-3.1-70b"), SETTINGS) == 0
    gemma = model("gemma-3-27b")
    assert checkpoint_bytes(gemma, SETTINGS) == 52 * (1024 + 512) * 2 * 16 * 128 * 2
    assert checkpoint_bytes(gemma, replace(SETTINGS, context_size=1024)) == 0  # nothing forgotten
    granite = model("granite-4.0-h-small")
    assert checkpoint_bytes(granite, SETTINGS) == state_bytes(granite)


def test_a_layer_may_have_both_a_cache_and_a_state() -> None:
    falcon = model("falcon-h1-7b")
    state = (3 * (3072 + 2 * 256) + 256 * 3072) * 4
    assert context_bytes(falcon, SETTINGS)[0] == 2 * (8192 * 2 * 2 * 128 * 2 + state)


@pytest.mark.parametrize(
    ("name", "layer", "state"),
    [
        ("rwkv7-2.9b", 0, (2 + 64) * 2560 * 4),
        ("lfm2-1.2b", 0, 2 * 2048 * 4),
        ("mamba-2.8b", 0, (3 * 5120 + 16 * 5120) * 4),
        ("qwen3-next-80b-a3b", 0, (3 * 8192 + 128 * 4096) * 4),
        ("kimi-linear-48b-a3b", 0, (3 * 3 * 4096 + 128 * 4096) * 4),
    ],
)
def test_each_kind_of_recurrent_layer_has_its_state(name: str, layer: int, state: int) -> None:
    assert is_recurrent(model(name))
    assert context_bytes(model(name), SETTINGS)[layer] == 2 * state
    assert state_in_work(model(name), 3) == 3 * 2 * state


def test_other_models_are_not_recurrent() -> None:
    assert not is_recurrent(model("qwen3-8b"))
    assert state_in_work(model("qwen3-8b"), 256) == 0


def test_layers_that_share_a_cache_have_none() -> None:
    layers = context_bytes(model("gemma-3n-e4b"), SETTINGS)
    assert all(layers[:20])
    assert not any(layers[20:])


def test_a_model_that_sees_whole_texts_keeps_nothing_of_them() -> None:
    assert not any(context_bytes(model("bge-m3"), SETTINGS))


def test_layers_that_only_guess_further_tokens_keep_nothing() -> None:
    assert context_bytes(model("glm-4.5-air"), SETTINGS)[45:] == [2 * 8192 * 2 * 8 * 128 * 2, 0, 0]


def test_attention_in_one_piece_holds_all_its_scores() -> None:
    plain = replace(SETTINGS, extra_args=("--flash-attn", "off"))
    llama = model("llama-3.1-8b")
    more = compute_bytes(llama, plain, 1, 3) - compute_bytes(llama, SETTINGS, 1, 3)
    scores, instead_of = 32 * 8192 * 512 * 4, 2 * 14336 * 512 * 4
    assert more == scores - instead_of + 4 * 8192 * 512 * 2  # and a wider mask


def test_a_worker_with_the_output_layer_alone_computes_logits_only() -> None:
    gemma = model("gemma-3-27b")
    account = Formula(gemma).account((31, 31, 1), SETTINGS)
    assert account.workers[-1].compute == 2 * 262144 * 4
    many = replace(SETTINGS, context_size=512, parallel=256)
    assert Formula(gemma).account((31, 32), many).workers[-1].compute == 256 * 262144 * 4


def test_a_worker_has_the_masks_of_its_own_layers() -> None:
    # Layers 0 to 4 see a window, 5 everything.
    windows, both = Formula(model("gemma-3-27b")).account((5, 5, 53), SETTINGS).workers[:2]
    assert windows.compute - 5 * 5376 * 512 * 4 == both.compute - 4 * 8192 * 512 * 2


def test_no_more_tokens_are_computed_at_once_than_there_are() -> None:
    llama = model("llama-3.1-8b")
    few = replace(SETTINGS, context_size=64)
    assert compute_bytes(llama, few, 1, 3) == compute_bytes(
        llama, replace(few, batch_size=128, ubatch_size=128), 1, 3
    )
    large = replace(SETTINGS, batch_size=1 << 20, ubatch_size=1 << 20)
    assert compute_bytes(llama, large, 1, 3) == compute_bytes(
        llama, replace(large, ubatch_size=2 * 8192), 1, 3
    )


@pytest.mark.parametrize("flag", ["--kv-unified", "--kv_unified", "-kvu"])
def test_slots_that_share_a_cache_see_all_of_it(flag: str) -> None:
    llama, shared = model("llama-3.1-8b"), replace(SETTINGS, extra_args=(flag,))
    more = compute_bytes(llama, shared, 1, 3) - compute_bytes(llama, SETTINGS, 1, 3)
    assert more == 4 * 8192 * 512 * 2


@pytest.mark.parametrize("off", ["off", "0"])
def test_a_quantised_v_cache_needs_flash_attention(off: str) -> None:
    llama = Formula(model("llama-3.1-8b"))
    plain = replace(SETTINGS, cache_type_k="q8_0", extra_args=("-fa", off))
    assert llama.account((11, 22), plain)
    with pytest.raises(GroupError, match="cacheTypeV q8_0 needs flash attention"):
        llama.account((11, 22), replace(plain, cache_type_v="q8_0"))
    large = replace(plain, cache_type_k="f16", context_size=131072)
    advice = Planner(llama.model, llama).plan(Wanted(workers=2), large).advice
    assert not any("q8_0" in text for text in advice)


def of_architecture(name: str, **values: int) -> Model:
    """Gemma 3 as another architecture would have it."""
    header = model("gemma-3-27b").header
    renamed = {key.replace("gemma3.", f"{name}."): each for key, each in header.values.items()}
    more = {f"{name}.attention.{key}": value for key, value in values.items()}
    arrays = {key.replace("gemma3.", f"{name}."): each for key, each in header.arrays.items()}
    values_of = {**renamed, "general.architecture": name, **more}
    return model_of([replace(header, values=values_of, arrays=arrays)])


def test_some_architectures_see_everything_in_the_first_of_so_many_layers() -> None:
    windows = context_bytes(of_architecture("smallthinker"), SETTINGS)[:8]
    assert [size == max(windows) for size in windows] == [True, False, False, False] * 2
    windows = context_bytes(of_architecture("afmoe"), SETTINGS)[:8]
    assert [size == max(windows) for size in windows] == [False, False, False, True] * 2


def test_a_window_of_which_layers_is_not_known_has_a_wide_bound_and_room_for_all_of_it() -> None:
    unknown = of_architecture("novel")
    assert Formula(unknown).error_percent == 60
    assert context_bytes(unknown, SETTINGS)[:62] == [2 * 8192 * 2 * 16 * 128 * 2] * 62
    assert checkpoint_bytes(unknown, SETTINGS) == 62 * (1024 + 512) * 2 * 16 * 128 * 2
    assert Formula(of_architecture("novel", sliding_window_pattern=3)).error_percent == 10
    unused = of_architecture("phi3")
    assert (Formula(unused).error_percent, checkpoint_bytes(unused, SETTINGS)) == (10, 0)


def test_values_without_a_length_of_their_own_are_as_wide_as_a_head() -> None:
    deepseek = model("deepseek-v3")
    names = {"attention.key_length": 96, "attention.head_count": 128}
    values = {
        key: each for key, each in deepseek.header.values.items() if "value_length" not in key
    }
    header = replace(
        deepseek.header,
        values=values | {f"deepseek2.{name}": each for name, each in names.items()},
        tensors=tuple(each for each in deepseek.header.tensors if "attn_k_b" not in each.name),
    )
    assert context_bytes(model_of([header]), SETTINGS)[0] == 2 * 8192 * 128 * (96 + 7168 // 128) * 2


def test_what_guesses_ahead_keeps_a_context_of_its_own() -> None:
    ahead = model_of([header_of("glm-4.5-air")], ahead=True)
    assert context_bytes(ahead, SETTINGS)[45:] == [2 * 8192 * 2 * 8 * 128 * 2] * 2 + [0]


@pytest.mark.parametrize("name", MODELS)
def test_an_account_holds_every_byte_of_the_layers(name: str) -> None:
    found = model(name)
    account = Formula(found).account((1, 2, found.layers - 3), SETTINGS)
    assert sum(worker.model for worker in account.workers) == sum(found.layer_bytes)
    assert sum(worker.context for worker in account.workers) == sum(context_bytes(found, SETTINGS))
    assert all(worker.compute > 10 * MIB for worker in (*account.workers, account.leader))


def test_the_bound_is_by_the_kind_of_model() -> None:
    bounds = {name: Formula(model(name)).error_percent for name in MODELS}
    assert bounds["llama-3.1-405b"] == bounds["gemma-3-27b"] == 10
    assert bounds["qwen3-235b-a22b"] == bounds["gpt-oss-120b"] == 15
    assert bounds["deepseek-v3"] == bounds["nemotron-h-8b"] == 25
    assert Formula(model("falcon-h1-7b")).error_percent == 25
    assert Formula(model("rwkv7-2.9b")).error_percent == 40
    assert Formula(model("nomic-embed-1.5")).error_percent == 40
    assert Formula(model("gemma-3n-e4b")).error_percent == 40
