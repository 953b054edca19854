"""What the engine allocates, by formula: the first guess, and the word where no engine is at hand.

Weights are exact, from the tensor table. The context is exact for the kinds of layers named below
and else near. Working memory is fitted to the engine's own numbers (tests/engine holds the bound).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from llamacluster.planning.account import Account, Memory, Settings
from llamacluster.planning.gguf import TENSOR_TYPES, Header
from llamacluster.planning.model import Model

_PADDING: Final = 256
"""The engine rounds the cells of each cache up to this."""
_WINDOW_PERIODS: Final = {
    # Each n-th layer sees everything, the others a sliding window: known to the engine by name.
    "cohere2": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "llama4": 4,
    "olmo2": 4,
}
_CACHE_TYPES: Final = {kind.name.lower(): kind for kind in TENSOR_TYPES.values()}
_F32: Final = 4
WIDE_CACHE_TYPES: Final = ("f32", "f16", "bf16")
_RECURRENT: Final = re.compile(r"ssm_|time_mix_|shortconv\.")
_NODES_OF_PARTS: Final = (
    (re.compile(r"ffn_gate_inp\."), 30),
    (re.compile(r"attn_kv_a_mqa\."), 20),
    (_RECURRENT, 35),
)
"""Operations of a layer with these tensors beyond those of the usual ones."""
_BOUNDS: Final = (
    (re.compile(r"altup_"), 40),
    (re.compile(rf"{_RECURRENT.pattern}|attn_kv_a_mqa"), 25),
    (re.compile(r"ffn_gate_inp\."), 15),
)
"""Tensors of layers that work unlike the usual ones: the formula's working memory is only near."""


@dataclass(frozen=True)
class Formula:
    """An Accountant without an engine."""

    model: Model
    method: Literal["Engine", "Formula"] = "Formula"

    @property
    def error_percent(self) -> int:
        """How far its sum for a worker with a few layers may be off: by the kind of model."""
        names = frozenset[str]().union(*self.model.tensors)
        bounds = [bound for part, bound in _BOUNDS if any(map(part.match, names))]
        if is_recurrent(self.model) and not any(name.startswith("attn_k") for name in names):
            bounds.append(40)
        return max(*bounds, 25 if _embeds(self.model.header) else 10, 0)

    def account(self, layers: Sequence[int], settings: Settings) -> Account:
        """See Accountant."""
        context = context_bytes(self.model, settings)
        workers, first = [], 0
        for index, count in enumerate(layers):
            run = slice(first, first + count)
            workers.append(
                Memory(
                    model=sum(self.model.layer_bytes[run]),
                    context=sum(context[run]),
                    compute=compute_bytes(self.model, settings, index, len(layers)),
                )
            )
            first += count
        leader = leader_compute(self.model, settings, len(layers))
        return Account(
            tuple(workers),
            Memory(self.model.input_bytes, 0, leader),
            graph_nodes(self.model, settings),
        )


def graph_nodes(model: Model, settings: Settings) -> int:
    """Operations in the graph of the whole model, rather too many than too few: fitted to what the
    engine says of the models in tests/model. A quantised cache is rotated in each layer."""
    quantised = sum(
        kind not in WIDE_CACHE_TYPES for kind in (settings.cache_type_k, settings.cache_type_v)
    )
    nodes = 0.0
    for names in model.tensors:
        parts = (more for part, more in _NODES_OF_PARTS if any(map(part.match, names)))
        nodes += 18 + 2.2 * len(names) + 6 * quantised + sum(parts)
    return round(nodes)


def context_bytes(model: Model, settings: Settings) -> list[int]:
    """KV cache and recurrent state of each layer; nothing for the output layer."""
    header = model.header
    cells, window_cells = _padded(settings.context_size), _window_cells(header, settings)
    windowed = _windowed(header)
    result = []
    for layer, names in enumerate(model.tensors[:-1]):
        here = window_cells if windowed[layer] else cells
        per_slot = here * _cell_bytes(model, settings, layer) + _state_bytes(model, names)
        result.append(per_slot * settings.parallel)
    return [*result, 0]


def is_recurrent(model: Model) -> bool:
    """Whether there is state that each slot has, however short its context."""
    return any(map(_RECURRENT.match, frozenset[str]().union(*model.tensors)))


def state_bytes(model: Model) -> int:
    """Recurrent state of one slot over all layers."""
    return sum(_state_bytes(model, names) for names in model.tensors[:-1])


def state_in_work(model: Model, slots: int) -> int:
    """Working memory that a worker needs for the recurrent state of so many slots: before and
    after one layer."""
    return 2 * slots * max(_state_bytes(model, names) for names in model.tensors)


def checkpoint_bytes(model: Model, settings: Settings) -> int:
    """What llama-server copies into its own memory to be able to go on from a point of a slot's
    prompt: recurrent state and sliding windows, which do not keep what is behind them."""
    header = model.header
    cells = _window_cells(header, settings)
    windows = sum(
        cells * _cell_bytes(model, settings, layer)
        for layer, windowed in enumerate(_windowed(header))
        if windowed and cells < _padded(settings.context_size)
    )
    return state_bytes(model) + windows


def _window_cells(header: Header, settings: Settings) -> int:
    """Cells of a slot in a layer with a sliding window."""
    cells = _padded(settings.context_size)
    if "--swa-full" in settings.extra_args:
        return cells
    window = header.number("attention.sliding_window") or 0
    return min(cells, _padded(min(cells, window + settings.ubatch_size)))


def _cell_bytes(model: Model, settings: Settings, layer: int) -> int:
    """What one token leaves in the cache of a layer."""
    width_k, width_v = _kv_widths(model, layer, model.tensors[layer])
    return _row(settings.cache_type_k, width_k) + _row(settings.cache_type_v, width_v)


def _kv_widths(model: Model, layer: int, names: frozenset[str]) -> tuple[int, int]:
    """Numbers that one token leaves in the K and in the V cache of a layer."""
    header = model.header
    shared = header.number("attention.shared_kv_layers") or 0
    if layer >= header.block_count - shared or _embeds(header):
        return 0, 0  # the layer reads an earlier one's; or sees whole texts at once and keeps none

    def rows(name: str) -> int:
        return model.rows(f"blk.{layer}.{name}.weight")

    if "attn_kv_a_mqa.weight" in names:
        # Multi-head latent attention keeps the latent vector with the rotated part of the key;
        # files with separate K and V projections read the values out of the same rows.
        width = rows("attn_kv_a_mqa")
        if "attn_k_b.weight" in names:
            return width, 0
        heads = header.per_layer("attention.head_count", 1)[layer]
        return (
            heads * (header.number("attention.key_length") or 0),
            heads * (header.number("attention.value_length") or 0),
        )
    if "attn_k.weight" in names:
        width = rows("attn_k")
        return width, rows("attn_v") if "attn_v.weight" in names else width
    if "attn_qkv.weight" in names and "ssm_conv1d.weight" not in names:
        heads = header.per_layer("attention.head_count", 1)[layer]
        kv_heads = header.per_layer("attention.head_count_kv", heads)[layer]
        head = (header.number("embedding_length") or 0) // max(1, heads)
        return (
            kv_heads * (header.number("attention.key_length") or head),
            kv_heads * (header.number("attention.value_length") or head),
        )
    return 0, 0


def _state_bytes(model: Model, names: frozenset[str]) -> int:
    """What a recurrent layer keeps of one sequence, however long: convolution and state, in F32."""
    header = model.header

    def number(name: str) -> int:
        return header.number(name) or 0

    width = number("embedding_length")
    if "shortconv.conv.weight" in names:
        return max(0, number("shortconv.l_cache") - 1) * width * _F32
    if "time_mix_key.weight" in names:
        return (number("token_shift_count") + number("wkv.head_size")) * width * _F32
    if "ssm_conv1d.weight" not in names:
        return 0
    inner, state = number("ssm.inner_size"), number("ssm.state_size")
    convolved = inner + 2 * number("ssm.group_count") * state
    return (max(0, number("ssm.conv_kernel") - 1) * convolved + state * inner) * _F32


def _embeds(header: Header) -> bool:
    """Whether each token sees the whole text, so that nothing of it is kept for the next."""
    return header.values.get(f"{header.architecture}.attention.causal") is False


def _windowed(header: Header) -> list[bool]:
    """Which layers attend to a sliding window only."""
    count = header.block_count
    if not header.number("attention.sliding_window"):
        return [False] * count
    pattern = header.arrays.get(f"{header.architecture}.attention.sliding_window_pattern")
    if pattern and pattern.values and pattern.length >= count:
        return [bool(value) for value in pattern.values[:count]]
    period = header.number("attention.sliding_window_pattern")
    period = period or _WINDOW_PERIODS.get(header.architecture, 0)
    return [period > 0 and layer % period < period - 1 for layer in range(count)]


def compute_bytes(model: Model, settings: Settings, worker: int, workers: int) -> int:
    """Working memory of one worker: what a batch of prompt tokens needs in its widest moment.

    With several workers the engine keeps four batches on the way, so their inputs count four times.
    """
    width, inner, used = _widths(model)
    if _plain_attention(settings):
        heads = max(model.header.per_layer("attention.head_count", 0))
        inner = max(inner, heads * _padded(settings.context_size))  # all scores at once
    state = state_in_work(model, settings.parallel)
    if _embeds(model.header):
        numbers = (7 if worker else 12) * width + inner
        return settings.ubatch_size * numbers * _F32 + _mask_bytes(model, settings)
    if workers == 1:
        numbers = 7 * width + used * width + inner
        return settings.ubatch_size * numbers * _F32 + _mask_bytes(model, settings) + state
    numbers = 15 * width + used * width + inner
    if worker == 0:
        numbers += 5 * width
    return settings.ubatch_size * numbers * _F32 + 4 * _mask_bytes(model, settings) + state


def _plain_attention(settings: Settings) -> bool:
    """Whether the user has turned off attention in pieces."""
    given = settings.extra_args
    return any(
        flag in ("--flash-attn", "-fa") and value == "off" for flag, value in pairwise(given)
    )


def leader_compute(model: Model, settings: Settings, workers: int) -> int:
    """Working memory of the leader: what goes to the workers and comes back."""
    width, _, _ = _widths(model)
    copies, masks = (4, 1) if workers == 1 else (10, 4)
    return settings.ubatch_size * copies * width * _F32 + masks * _mask_bytes(model, settings)


def _widths(model: Model) -> tuple[int, int, int]:
    """Numbers per token: of the stream, of the widest feed-forward part, and experts in use."""
    header = model.header
    used = header.number("expert_used_count") or 0
    widest = 0
    for layer, names in enumerate(model.tensors[:-1]):
        inner = 0
        for name in names:
            if name in ("ffn_gate.weight", "ffn_up.weight"):
                inner += model.rows(f"blk.{layer}.{name}")
            elif name in ("ffn_gate_exps.weight", "ffn_up_exps.weight"):
                inner += model.rows(f"blk.{layer}.{name}") * used
        widest = max(widest, inner)
    return header.number("embedding_length") or 0, widest, used


def _mask_bytes(model: Model, settings: Settings) -> int:
    """Which token sees which: for each token of a batch a number per cell of one slot, once for
    each kind of cache."""
    if _embeds(model.header):
        return settings.ubatch_size * settings.ubatch_size * 2
    kinds = {_padded(settings.context_size)}
    if model.header.number("attention.sliding_window"):
        kinds.add(_window_cells(model.header, settings))
    return sum(kinds) * settings.ubatch_size * (4 if _plain_attention(settings) else 2)


def _row(cache_type: str, width: int) -> int:
    kind = _CACHE_TYPES[cache_type]
    return -(-width // kind.block_elements) * kind.block_bytes


def _padded(cells: int) -> int:
    return -(-cells // _PADDING) * _PADDING
