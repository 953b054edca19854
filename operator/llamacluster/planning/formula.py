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
from llamacluster.planning.reasons import GroupError, Reason

_PADDING: Final = 256
"""The engine rounds the cells of each cache up to this."""
_WINDOW_PERIODS: Final = {
    # Each n-th layer sees everything, the others a sliding window: known to the engine by name.
    "afmoe": 4,
    "cohere2": 4,
    "exaone4": 4,
    "exaone-moe": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "llama4": 4,
    "olmo2": 4,
    "smallthinker": 4,
}
_DENSE_FIRST: Final = ("smallthinker",)
"""Of these, those where the first of n layers sees everything, not the last."""
_WINDOWS: Final = {"gemma2": 4096, "llama4": 8192}
"""Tokens of the window where the header names none, as no published one of Llama 4 does (llama.cpp,
src/models/gemma2.cpp and llama4.cpp). A window of 0 is none."""
_WINDOWLESS: Final = ("phi3", "phimoe")
"""Whose window the engine reads and does not use."""
_CACHE_TYPES: Final = {kind.name.lower(): kind for kind in TENSOR_TYPES.values()}
_F32: Final = 4
WIDE_CACHE_TYPES: Final = ("f32", "f16", "bf16")
_RECURRENT: Final = re.compile(r"ssm_|time_mix_|shortconv\.")
_ATTENDS: Final = re.compile(r"attn_(q|k|qkv|kv_a_mqa)\.")
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
        if _has_unknown_window(self.model.header):
            bounds.append(60)
        return max(*bounds, 40 if _embeds(self.model.header) else 10, 0)

    def account(self, layers: Sequence[int], settings: Settings) -> Account:
        """See Accountant."""
        if settings.cache_type_v not in WIDE_CACHE_TYPES and _plain_attention(settings):
            raise GroupError(
                Reason.EngineFailed,
                f"cacheTypeV {settings.cache_type_v} needs flash attention, which extraArgs turns"
                " off: leave it on, or take f16",
            )
        context = context_bytes(self.model, settings)
        workers, first = [], 0
        for index, count in enumerate(layers):
            run = slice(first, first + count)
            workers.append(
                Memory(
                    model=sum(self.model.layer_bytes[run]),
                    context=sum(context[run]),
                    compute=compute_bytes(self.model, settings, index, len(layers), run),
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
    any_layer = _has_unknown_window(header)
    windows = sum(
        cells * _cell_bytes(model, settings, layer)
        for layer, windowed in enumerate(_windowed(header))
        if (windowed or any_layer) and cells < _padded(settings.context_size)
    )
    return state_bytes(model) + windows


def _window_cells(header: Header, settings: Settings) -> int:
    """Cells of a slot in a layer with a sliding window."""
    cells = _padded(settings.context_size)
    if "--swa-full" in settings.arguments:
        return cells
    return min(cells, _padded(min(cells, _window(header) + settings.ubatch_size)))


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
    if "ssm_conv1d_k.weight" in names:
        return 0, 0  # delta attention (Kimi Linear): its keys and values go into a state

    def rows(name: str) -> int:
        return model.rows(f"blk.{layer}.{name}.weight")

    if "attn_kv_a_mqa.weight" in names:
        # Multi-head latent attention keeps the latent vector with the rotated part of the key;
        # files with separate K and V projections read the values out of the same rows.
        width = rows("attn_kv_a_mqa")
        if "attn_k_b.weight" in names:
            return width, 0
        heads = header.per_layer("attention.head_count", 1)[layer]
        head = (header.number("embedding_length") or 0) // max(1, heads)
        return (
            heads * (header.number("attention.key_length") or head),
            heads * (header.number("attention.value_length") or head),
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
    if "ssm_conv1d_k.weight" in names:
        heads, head = max(header.per_layer("attention.head_count", 0)), number("kda.head_dim")
        convolved = 3 * max(0, number("ssm.conv_kernel") - 1) * heads * head
        return (convolved + heads * head * head) * _F32
    if "ssm_conv1d.weight" not in names:
        return 0
    inner, state = number("ssm.inner_size"), number("ssm.state_size")
    convolved = inner + 2 * number("ssm.group_count") * state
    return (max(0, number("ssm.conv_kernel") - 1) * convolved + state * inner) * _F32


def _embeds(header: Header) -> bool:
    """Whether each token sees the whole text, so that nothing of it is kept for the next."""
    return header.values.get(f"{header.architecture}.attention.causal") is False


def _window(header: Header) -> int:
    """Tokens that a layer with a sliding window sees; 0 if there is no window."""
    window = header.number("attention.sliding_window")
    return _WINDOWS.get(header.architecture, 0) if window is None else window


def _windowed(header: Header) -> list[bool]:
    """Which layers attend to a sliding window only."""
    count = header.block_count
    if not _window(header):
        return [False] * count
    pattern = header.arrays.get(f"{header.architecture}.attention.sliding_window_pattern")
    if pattern and pattern.values and pattern.length >= count:
        return [bool(value) for value in pattern.values[:count]]
    period = _window_period(header)
    full = 0 if header.architecture in _DENSE_FIRST else period - 1
    return [period > 0 and layer % period != full for layer in range(count)]


def _window_period(header: Header) -> int:
    """Of so many layers one sees everything; 0 if the header does not say."""
    period = header.number("attention.sliding_window_pattern")
    return period or _WINDOW_PERIODS.get(header.architecture, 0)


def _has_unknown_window(header: Header) -> bool:
    """Whether some layers have a window, by an architecture's own rule that is not known here."""
    return bool(
        _window(header)
        and header.architecture not in _WINDOWLESS
        and f"{header.architecture}.attention.sliding_window_pattern" not in header.arrays
        and not _window_period(header)
        and not _embeds(header)
    )


def compute_bytes(
    model: Model, settings: Settings, worker: int, workers: int, run: slice = slice(None)
) -> int:
    """Working memory of one worker with the layers in `run`: what a batch of prompt tokens needs in
    its widest moment, or the logits of the tokens that are asked for, if that is more.

    With several workers the engine keeps four batches on the way, so their inputs count four times.
    """
    layers = range(model.layers)[run]
    blocks = layers[: model.layers - 1 - layers.start]
    logits = _logits_bytes(model, settings) if len(blocks) < len(layers) else 0
    if not any(model.tensors[layer] for layer in blocks):
        return logits
    # The last block goes on with the tokens whose logits are asked for, before its widest part.
    width, inner, gated, used = _widths(model, blocks[:-1] if logits else blocks)
    if _plain_attention(settings):
        heads = max(model.header.per_layer("attention.head_count", 0))
        inner = max(inner, heads * _cells_seen(settings))  # all scores at once
    tokens, masks = _batch_tokens(settings), _mask_bytes(model, settings, blocks)
    if _embeds(model.header):
        numbers = (7 if worker else 12) * width + inner
        return tokens * numbers * _F32 + masks
    state = state_in_work(model, settings.parallel)
    copies, more, first = (7, 8, 5) if gated else (4, 7, 5)
    if any(map(_norms_after, (model.tensors[layer] for layer in blocks))):
        copies, more, first, inner = 4, 3, 9, inner * 3 // 2
    copies += used
    if workers > 1:
        copies += more + (first if worker == 0 else 0)
        masks *= 4
    return max(tokens * (copies * width + inner) * _F32 + masks + state, logits)


def _norms_after(names: frozenset[str]) -> bool:
    """Whether a layer has its norms behind its parts only, as those of OLMo 2 and EXAONE 4."""
    return "post_attention_norm.weight" in names and "attn_norm.weight" not in names


def _batch_tokens(settings: Settings) -> int:
    """Tokens that are computed at once: no more than there are in all contexts, and at least one of
    each slot."""
    most = min(settings.ubatch_size, settings.context_size * settings.parallel)
    return max(most, settings.parallel)


def _cells_seen(settings: Settings) -> int:
    """Cells that a token may see: those of its slot, or of all if they share their cache."""
    unified = not {"--kv-unified", "-kvu"}.isdisjoint(settings.arguments)
    return _padded(settings.context_size * (settings.parallel if unified else 1))


def _plain_attention(settings: Settings) -> bool:
    """Whether the user has turned off attention in pieces."""
    return any(
        flag in ("--flash-attn", "-fa") and value in ("off", "disabled", "0", "false")
        for flag, value in pairwise(settings.arguments)
    )


def leader_compute(model: Model, settings: Settings, workers: int) -> int:
    """Working memory of the leader: what goes to the workers and comes back."""
    blocks = range(model.layers - 1)
    copies, masks = (4, 1) if workers == 1 else (10, 4)
    numbers = _batch_tokens(settings) * copies * (model.header.number("embedding_length") or 0)
    return numbers * _F32 + masks * _mask_bytes(model, settings, blocks)


def _logits_bytes(model: Model, settings: Settings) -> int:
    """What comes out of the output layer: for one token of each slot a number for each token that
    there is."""
    rows = model.rows("output.weight") or model.rows("token_embd.weight")
    return settings.parallel * rows * _F32


def _widths(model: Model, blocks: range) -> tuple[int, int, bool, int]:
    """Numbers per token: of the stream, of the widest feed-forward part of these layers, whether
    that is in two halves of which one gates the other, and experts in use."""
    header = model.header
    used = header.number("expert_used_count") or 0
    widest, gated = 0, bool(used) or is_recurrent(model)
    for layer in blocks:
        inner = 0
        for name in model.tensors[layer]:
            if name in ("ffn_gate.weight", "ffn_up.weight"):
                inner += model.rows(f"blk.{layer}.{name}")
            elif name in ("ffn_gate_exps.weight", "ffn_up_exps.weight"):
                inner += model.rows(f"blk.{layer}.{name}") * used
        widest = max(widest, inner)
        gated = gated or 0 < model.columns(f"blk.{layer}.ffn_down.weight") < inner
    return header.number("embedding_length") or 0, widest, gated, used


def _mask_bytes(model: Model, settings: Settings, blocks: range) -> int:
    """Which token sees which: for each token of a batch a number per cell that it may see, once for
    each kind of cache that these layers have."""
    tokens = _batch_tokens(settings)
    if _embeds(model.header):
        return tokens * tokens * 2
    windowed = _windowed(model.header)
    kinds = {windowed[layer] for layer in blocks if any(map(_ATTENDS.match, model.tensors[layer]))}
    cells = sum(
        _window_cells(model.header, settings) if kind else _cells_seen(settings) for kind in kinds
    )
    return cells * tokens * (4 if _plain_attention(settings) else 2)


def _row(cache_type: str, width: int) -> int:
    kind = _CACHE_TYPES[cache_type]
    return -(-width // kind.block_elements) * kind.block_bytes


def _padded(cells: int) -> int:
    return -(-cells // _PADDING) * _PADDING
