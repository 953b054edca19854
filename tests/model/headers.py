"""GGUF headers of real models: their true parameters, tensors and sizes, but no weights.

A file made here begins like the published one and ends where the weights would begin, so that what
plans by the header can be proved on the models that people run. Parameters are those of the models'
config.json under the names that llama.cpp's converter gives them. Tokenizers have the true number
of tokens and merges, which are made up but as long as real ones: they make the header its size.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import string
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import gguf
from gguf import GGMLQuantizationType as Type

Value = int | float | str | Sequence[int] | Sequence[float]
Shape = tuple[int, ...]
Tensors = dict[str, Shape]

ALIGNMENT: Final = 32
FILE_TYPES: Final = {"F16": 1, "Q8_0": 7, "Q4_K_M": 15}
"""By llama.cpp's number for them."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer: of byte pairs ("gpt2", with merges) or of SentencePiece ("llama")."""

    size: int
    kind: str = "llama"
    pre: str = "default"
    merges: int = 0
    begin: int = 1
    end: int = 2


@dataclass(frozen=True)
class Model:
    architecture: str
    vocabulary: Vocabulary
    values: Mapping[str, Value]
    """Parameters, without the name of the architecture in front."""
    block: Callable[[Model, int], Tensors]
    """The tensors of one layer, without `blk.N.` in front."""
    tied: bool = False
    """Whether the output matrix is that of the token embeddings."""
    more: Mapping[str, Shape] = field(default_factory=dict)

    def number(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key, default)
        if not isinstance(value, int):
            raise KeyError(f"{self.architecture}.{key}")
        return value

    def in_block(self, key: str, block: int) -> int:
        """A parameter that may differ between the layers."""
        value = self.values[key]
        if isinstance(value, (int, float, str)):
            return self.number(key)
        return int(value[block])

    @property
    def blocks(self) -> int:
        return self.number("block_count")

    @property
    def width(self) -> int:
        return self.number("embedding_length")

    @property
    def heads(self) -> int:
        return self.number("attention.head_count")

    @property
    def head_length(self) -> int:
        return self.number("attention.key_length", self.width // self.heads)

    @property
    def experts(self) -> int:
        return self.number("expert_count", 0)

    def tensors(self) -> Tensors:
        """All tensors by name, with the contiguous dimension first, in the order of the file."""
        embedding = (self.width, self.vocabulary.size)
        tensors: Tensors = {"token_embd.weight": embedding, **self.more}
        for block in range(self.blocks):
            tensors |= {f"blk.{block}.{k}": v for k, v in self.block(self, block).items()}
        tensors["output_norm.weight"] = (self.width,)
        if not self.tied:
            tensors["output.weight"] = embedding
        return tensors


def write_header(path: Path, model: str, file_type: str) -> None:
    """Writes the header of a model of MODELS in one of FILE_TYPES. Always the same bytes."""
    path.write_bytes(_header(model, file_type)[0])


def write_sparse(path: Path, model: str, file_type: str) -> None:
    """Writes the header and makes the file as long as the real one, with a hole for the weights."""
    header, data_bytes = _header(model, file_type)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + data_bytes)


# Parts of layers.


def _norms(model: Model, *names: str) -> Tensors:
    return {f"{name}.weight": (model.width,) for name in names}


def _attention(model: Model, block: int = 0, *, biases: Sequence[str] = ()) -> Tensors:
    query = model.heads * model.head_length
    key_value = model.in_block("attention.head_count_kv", block) * model.head_length
    rows = {"q": query, "k": key_value, "v": key_value, "output": model.width}
    return {
        "attn_q.weight": (model.width, query),
        "attn_k.weight": (model.width, key_value),
        "attn_v.weight": (model.width, key_value),
        "attn_output.weight": (query, model.width),
        **{f"attn_{name}.bias": (rows[name],) for name in biases},
    }


def _head_norms(model: Model) -> Tensors:
    return {f"attn_{name}_norm.weight": (model.head_length,) for name in "qk"}


def _feed_forward(model: Model) -> Tensors:
    return _gated(model, model.number("feed_forward_length"))


def _gated(model: Model, length: int, suffix: str = "", count: Shape = ()) -> Tensors:
    return {
        f"ffn_gate{suffix}.weight": (model.width, length, *count),
        f"ffn_up{suffix}.weight": (model.width, length, *count),
        f"ffn_down{suffix}.weight": (length, model.width, *count),
    }


def _router(model: Model) -> Tensors:
    return {"ffn_gate_inp.weight": (model.width, model.experts)}


def _experts(model: Model) -> Tensors:
    length = model.number("expert_feed_forward_length", model.number("feed_forward_length", 0))
    return {**_router(model), **_gated(model, length, "_exps", (model.experts,))}


def _mamba2(model: Model) -> Tensors:
    inner, state, groups, heads = (
        model.number(f"ssm.{name}")
        for name in ("inner_size", "state_size", "group_count", "time_step_rank")
    )
    convolved = inner + 2 * groups * state
    return {
        "ssm_in.weight": (model.width, inner + convolved + heads),
        "ssm_conv1d.weight": (model.number("ssm.conv_kernel"), convolved),
        "ssm_conv1d.bias": (convolved,),
        "ssm_dt.bias": (heads,),
        "ssm_a": (1, heads),
        "ssm_d": (1, heads),
        "ssm_norm.weight": (inner // groups, groups),
        "ssm_out.weight": (inner, model.width),
    }


# Layers, by architecture.


def _llama(model: Model, _: int) -> Tensors:
    return {
        **_norms(model, "attn_norm", "ffn_norm"),
        **_attention(model),
        **(_experts(model) if model.experts else _feed_forward(model)),
    }


def _qwen2(model: Model, _: int) -> Tensors:
    return {**_llama(model, 0), **_attention(model, biases="qkv")}


def _qwen3(model: Model, _: int) -> Tensors:
    return {**_llama(model, 0), **_head_norms(model)}


def _gemma3(model: Model, _: int) -> Tensors:
    return {**_qwen3(model, 0), **_norms(model, "post_attention_norm", "post_ffw_norm")}


def _phi3(model: Model, _: int) -> Tensors:
    length = model.number("feed_forward_length")
    rows = (model.heads + 2 * model.number("attention.head_count_kv")) * model.head_length
    return {
        **_norms(model, "attn_norm", "ffn_norm"),
        "attn_qkv.weight": (model.width, rows),
        "attn_output.weight": (model.width, model.width),
        "ffn_up.weight": (model.width, 2 * length),
        "ffn_down.weight": (length, model.width),
    }


def _command_r(model: Model, _: int) -> Tensors:
    return {
        **_norms(model, "attn_norm"),
        **_attention(model),
        "attn_q_norm.weight": (model.head_length, model.heads),
        "attn_k_norm.weight": (model.head_length, model.number("attention.head_count_kv")),
        **_feed_forward(model),
    }


def _deepseek2(model: Model, block: int) -> Tensors:
    query, key_value = model.number("attention.q_lora_rank"), model.number("attention.kv_lora_rank")
    rope, heads = model.number("rope.dimension_count"), model.heads
    key, value = (model.number(f"attention.{name}_length_mla") for name in ("key", "value"))
    length = model.number("expert_feed_forward_length") * model.number("expert_shared_count")
    return {
        **_norms(model, "attn_norm", "ffn_norm"),
        "attn_q_a.weight": (model.width, query),
        "attn_q_a_norm.weight": (query,),
        "attn_q_b.weight": (query, heads * key),
        "attn_kv_a_mqa.weight": (model.width, key_value + rope),
        "attn_kv_a_norm.weight": (key_value,),
        "attn_k_b.weight": (key - rope, key_value, heads),
        "attn_v_b.weight": (key_value, value, heads),
        "attn_output.weight": (heads * value, model.width),
        **(
            _feed_forward(model)
            if block < model.number("leading_dense_block_count")
            else {
                **_experts(model),
                "exp_probs_b.bias": (model.experts,),
                **_gated(model, length, "_shexp"),
            }
        ),
    }


def _gpt_oss(model: Model, _: int) -> Tensors:
    experts = _experts(model)
    return {
        **_norms(model, "attn_norm", "post_attention_norm"),
        **_attention(model, biases=("q", "k", "v", "output")),
        "attn_sinks.weight": (model.heads,),
        **experts,
        **{name.replace(".weight", ".bias"): shape[1:] for name, shape in experts.items()},
    }


def _granite_hybrid(model: Model, block: int) -> Tensors:
    attends = model.in_block("attention.head_count_kv", block)
    return {
        **_norms(model, "attn_norm", "ffn_norm"),
        **(_attention(model, block) if attends else _mamba2(model)),
        **_experts(model),
        **_gated(model, model.number("expert_shared_feed_forward_length"), "_shexp"),
    }


def _nemotron_h(model: Model, block: int) -> Tensors:
    return {**_norms(model, "attn_norm"), **_nemotron_h_mixer(model, block)}


def _nemotron_h_mixer(model: Model, block: int) -> Tensors:
    if model.in_block("attention.head_count_kv", block):
        return _attention(model, block)
    length = model.in_block("feed_forward_length", block)
    if not length:
        return _mamba2(model)
    if not model.experts:
        return _squared(model, length)
    return {
        **_router(model),
        "exp_probs_b.bias": (model.experts,),
        **_squared(model, length, "_exps", (model.experts,)),
        **_squared(model, model.number("expert_shared_feed_forward_length"), "_shexp"),
    }


def _squared(model: Model, length: int, suffix: str = "", count: Shape = ()) -> Tensors:
    gated = _gated(model, length, suffix, count)
    return {name: shape for name, shape in gated.items() if not name.startswith("ffn_gate")}


# Models.


def _values(
    blocks: int,
    width: int,
    feed_forward: int | Sequence[int],
    heads: int,
    heads_kv: int | Sequence[int],
    *,
    context: int,
    base: float = 1e6,
    epsilon: float = 1e-5,
) -> dict[str, Value]:
    return {
        "block_count": blocks,
        "context_length": context,
        "embedding_length": width,
        "feed_forward_length": feed_forward,
        "attention.head_count": heads,
        "attention.head_count_kv": heads_kv,
        "attention.layer_norm_rms_epsilon": epsilon,
        "rope.freq_base": base,
    }


def _heads_of(length: int) -> dict[str, Value]:
    return {"attention.key_length": length, "attention.value_length": length}


def _choice_of(experts: int, used: int, length: int) -> dict[str, Value]:
    return {
        "expert_count": experts,
        "expert_used_count": used,
        "expert_feed_forward_length": length,
    }


def _yarn(factor: float) -> dict[str, Value]:
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": 4096,
        "rope.scaling.yarn_beta_fast": 32.0,
        "rope.scaling.yarn_beta_slow": 1.0,
    }


def _llama3(blocks: int, width: int, feed_forward: int, heads: int) -> Model:
    values = _values(blocks, width, feed_forward, heads, 8, context=131072, base=5e5)
    values |= {"vocab_size": 128256, "rope.dimension_count": 128}
    vocabulary = Vocabulary(128256, "gpt2", "llama-bpe", 280147, 128000, 128009)
    return Model("llama", vocabulary, values, _llama, more={"rope_freqs.weight": (64,)})


def _qwen(
    architecture: str, values: dict[str, Value], block: Callable[[Model, int], Tensors], size: int
) -> Model:
    vocabulary = Vocabulary(size, "gpt2", "qwen2", 151387, 151643, 151645)
    return Model(
        architecture, vocabulary, values | {"attention.layer_norm_rms_epsilon": 1e-6}, block
    )


def _qwen3_dense(blocks: int, width: int, feed_forward: int, heads: int) -> Model:
    values = _values(blocks, width, feed_forward, heads, 8, context=40960)
    return _qwen("qwen3", values | _heads_of(128), _qwen3, 151936)


def _qwen3_moe(blocks: int, width: int, feed_forward: int, heads: int, expert: int) -> Model:
    values = _values(blocks, width, feed_forward, heads, 4, context=40960)
    values |= _heads_of(128) | _choice_of(128, 8, expert)
    return _qwen("qwen3moe", values, _qwen3, 151936)


def _openai(blocks: int, experts: int) -> Model:
    values = _values(blocks, 2880, 2880, 64, 8, context=131072, base=1.5e5)
    values |= _heads_of(64) | _choice_of(experts, 4, 2880) | _yarn(32.0)
    values["attention.sliding_window"] = 128
    vocabulary = Vocabulary(201088, "gpt2", "gpt-4o", 446189, 199998, 200002)
    return Model("gpt-oss", vocabulary, values, _gpt_oss)


def _hybrid(width: int, heads: int, mamba_heads: int, groups: int) -> dict[str, Value]:
    return {
        "rope.dimension_count": width // heads,
        "rope.scaling.finetuned": False,
        "ssm.conv_kernel": 4,
        "ssm.state_size": 128,
        "ssm.group_count": groups,
        "ssm.inner_size": mamba_heads * 64,
        "ssm.time_step_rank": mamba_heads,
    }


def _granite4(
    width: int,
    *,
    heads: int,
    heads_kv: int,
    mamba_heads: int,
    expert: int,
    more: Mapping[str, Value],
) -> Model:
    per_layer = [heads_kv if block % 10 == 5 else 0 for block in range(40)]
    values = _values(40, width, expert, heads, per_layer, context=1 << 20, base=1e4)
    values |= _hybrid(width, heads, mamba_heads, 1) | {
        "vocab_size": 100352,
        "attention.scale": 1 / 128,
        "embedding_scale": 12.0,
        "residual_scale": 0.22,
        "expert_shared_feed_forward_length": 2 * expert,
    }
    vocabulary = Vocabulary(100352, "gpt2", "dbrx", 100000, 100257, 100257)
    return Model("granitehybrid", vocabulary, {**values, **more}, _granite_hybrid, tied=True)


def _nemotron(
    architecture: str,
    pattern: str,
    *,
    width: int,
    heads_kv: int,
    mamba_heads: int,
    feed_forward: int,
    more: Mapping[str, Value] = MappingProxyType({}),
) -> Model:
    """`pattern` has a letter for each layer: M for Mamba, * for attention, others feed forward."""
    per_layer = [0 if kind in "M*" else feed_forward for kind in pattern]
    heads_per_layer = [heads_kv if kind == "*" else 0 for kind in pattern]
    values = _values(len(pattern), width, per_layer, 32, heads_per_layer, context=1 << 20, base=1e4)
    values |= _heads_of(128) | _hybrid(width, 32, mamba_heads, 8)
    values |= {"vocab_size": 131072, "attention.layer_norm_epsilon": 1e-5}
    vocabulary = Vocabulary(131072, "gpt2", "pixtral", 269443)
    return Model(architecture, vocabulary, {**values, **more}, _nemotron_h)


MODELS: Final[Mapping[str, Model]] = MappingProxyType(
    {
        "llama-3.1-8b": _llama3(32, 4096, 14336, 32),
        "llama-3.1-70b": _llama3(80, 8192, 28672, 64),
        "llama-3.1-405b": _llama3(126, 16384, 53248, 128),
        "mistral-large-2": Model(
            "llama",
            Vocabulary(32768),
            _values(88, 12288, 28672, 96, 8, context=131072)
            | _heads_of(128)
            | {"vocab_size": 32768, "rope.dimension_count": 128},
            _llama,
        ),
        "mixtral-8x7b": Model(
            "llama",
            Vocabulary(32000),
            _values(32, 4096, 14336, 32, 8, context=32768)
            | {"vocab_size": 32000, "rope.dimension_count": 128}
            | {"expert_count": 8, "expert_used_count": 2},
            _llama,
        ),
        "qwen2.5-72b": _qwen(
            "qwen2", _values(80, 8192, 29568, 64, 8, context=32768), _qwen2, 152064
        ),
        "qwen3-1.7b": replace(_qwen3_dense(28, 2048, 6144, 16), tied=True),
        "qwen3-8b": _qwen3_dense(36, 4096, 12288, 32),
        "qwen3-32b": _qwen3_dense(64, 5120, 25600, 64),
        "qwen3-30b-a3b": _qwen3_moe(48, 2048, 6144, 32, 768),
        "qwen3-235b-a22b": _qwen3_moe(94, 4096, 12288, 64, 1536),
        "gemma-3-27b": Model(
            "gemma3",
            Vocabulary(262144, begin=2, end=1),
            _values(62, 5376, 21504, 32, 16, context=131072, epsilon=1e-6)
            | _heads_of(128)
            | {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
            | {"attention.sliding_window": 1024},
            _gemma3,
            tied=True,
        ),
        "phi-4": Model(
            "phi3",
            Vocabulary(100352, "gpt2", "dbrx", 100000, 100257, 100257),
            _values(40, 5120, 17920, 40, 10, context=16384, base=2.5e5)
            | {"rope.dimension_count": 128, "rope.scaling.original_context_length": 16384}
            | {"attention.sliding_window": 0},
            _phi3,
        ),
        "command-r-plus": Model(
            "command-r",
            Vocabulary(256000, "gpt2", "command-r", 253333, 5, 255001),
            _values(64, 12288, 33792, 96, 8, context=131072, base=7.5e7)
            | {"attention.layer_norm_epsilon": 1e-5, "logit_scale": 0.8333333333333334}
            | {"rope.scaling.type": "none"},
            _command_r,
            tied=True,
        ),
        "deepseek-v3": Model(
            "deepseek2",
            Vocabulary(129280, "gpt2", "deepseek-v3", 127741, 0, 1),
            _values(61, 7168, 18432, 128, 1, context=163840, base=1e4, epsilon=1e-6)
            | _choice_of(256, 8, 2048)
            | _yarn(40.0)
            | {
                "vocab_size": 129280,
                "leading_dense_block_count": 3,
                "attention.q_lora_rank": 1536,
                "attention.kv_lora_rank": 512,
                "attention.key_length": 576,
                "attention.value_length": 512,
                "attention.key_length_mla": 192,
                "attention.value_length_mla": 128,
                "expert_shared_count": 1,
                "expert_group_count": 8,
                "expert_group_used_count": 4,
                "expert_weights_scale": 2.5,
                "expert_weights_norm": True,
                "expert_gating_func": 2,  # sigmoid
                "rope.dimension_count": 64,
                "rope.scaling.yarn_log_multiplier": 0.1,
            },
            _deepseek2,
        ),
        "gpt-oss-20b": _openai(24, 32),
        "gpt-oss-120b": _openai(36, 128),
        "granite-4.0-h-tiny": _granite4(
            1536,
            heads=12,
            heads_kv=4,
            mamba_heads=48,
            expert=512,
            more={"expert_count": 64, "expert_used_count": 6, "logit_scale": 6.0},
        ),
        "granite-4.0-h-small": _granite4(
            4096,
            heads=32,
            heads_kv=8,
            mamba_heads=128,
            expert=768,
            more={"expert_count": 72, "expert_used_count": 10, "logit_scale": 16.0},
        ),
        "nemotron-h-8b": _nemotron(
            "nemotron_h",
            "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
            width=4096,
            heads_kv=8,
            mamba_heads=128,
            feed_forward=21504,
        ),
        "nemotron-3-nano": _nemotron(
            "nemotron_h_moe",
            "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
            width=2688,
            heads_kv=2,
            mamba_heads=64,
            feed_forward=1856,
            more=_choice_of(128, 6, 1856)
            | {
                "expert_shared_feed_forward_length": 3712,
                "expert_shared_count": 1,
                "expert_group_count": 1,
                "expert_group_used_count": 1,
                "expert_weights_norm": True,
                "expert_weights_scale": 2.5,
            },
        ),
    }
)


# Types of tensors: what llama.cpp's converter and quantizer give them.


def _types(model: Model, tensors: Tensors, file_type: str) -> Iterator[Type]:
    better = _better(model, tensors)
    for name, shape in tensors.items():
        if _stays_f32(name, shape):
            yield Type.F32
        elif model.architecture == "gpt-oss" and "_exps" in name:
            yield Type.MXFP4  # as published, in files of any type
        elif file_type == "Q4_K_M":
            yield _fitting(_q4_k_m(model, name, name in better), shape[0])
        else:
            yield Type[file_type]


def _stays_f32(name: str, shape: Shape) -> bool:
    return (
        len(shape) < 2
        or not name.endswith(".weight")
        or name.endswith(("_norm.weight", "ffn_gate_inp.weight", "ssm_conv1d.weight"))
    )


def _q4_k_m(model: Model, name: str, better: bool) -> Type:
    """The type for a tensor. Models of 8 experts share so much else that they spend more on it."""
    part = name.split(".")[-2]
    if part == ("token_embd" if model.tied else "output"):
        return Type.Q6_K
    if model.experts == 8 and part in ("attn_k", "attn_v"):
        return Type.Q8_0
    if model.experts == 8 and part == "attn_output":
        return Type.Q5_K
    if better:
        return Type.Q6_K
    if part == "attn_v" and model.architecture in ("llama", "qwen2") and model.blocks == 80:
        return Type.Q5_K
    return Type.Q4_K


def _better(model: Model, tensors: Tensors) -> set[str]:
    """The tensors that get more bits: those that matter most, in the layers that matter most."""
    values = [name for name in tensors if name.endswith(("attn_v.weight", "attn_qkv.weight"))]
    downs = [name for name in tensors if ".ffn_down" in name and name.endswith(".weight")]
    return {name for i, name in enumerate(values) if _more_bits(i, len(values))} | {
        name
        for i, name in enumerate(downs)
        if _more_bits(int(name.split(".")[1]) if model.experts else i, model.blocks)
    }


def _more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _fitting(wanted: Type, row: int) -> Type:
    """`wanted`, or what stands in for it where it cannot store rows of that length."""
    if row % gguf.GGML_QUANT_SIZES[wanted][0] == 0:
        return wanted
    return {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}[wanted]


# Bytes.


def _header(name: str, file_type: str) -> tuple[bytes, int]:
    """The header and the length of what follows it in the real file."""
    model = MODELS[name]
    tensors = model.tensors()
    infos, data_bytes = [], 0
    for (tensor, shape), kind in zip(
        tensors.items(), _types(model, tensors, file_type), strict=True
    ):
        infos.append(
            _text(tensor) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, data_bytes)
        )
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        data_bytes += _padded(math.prod(shape) // elements * size)
    pairs = [
        _pair("general.architecture", model.architecture),
        _pair("general.type", "model"),
        _pair("general.name", name),
        _pair("general.file_type", FILE_TYPES[file_type]),
        _pair("general.quantization_version", 2),
        *(_pair(f"{model.architecture}.{key}", value) for key, value in model.values.items()),
        *_tokenizer(model.vocabulary),
    ]
    header = b"".join((b"GGUF", struct.pack("<IQQ", 3, len(infos), len(pairs)), *pairs, *infos))
    return header.ljust(_padded(len(header)), b"\0"), data_bytes


def _padded(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _pair(key: str, value: Value) -> bytes:
    if isinstance(value, (list, tuple)):
        code = "f" if isinstance(value[0], float) else "i"
        kind = gguf.GGUFValueType.FLOAT32 if code == "f" else gguf.GGUFValueType.INT32
        return _array(key, kind, len(value), struct.pack(f"<{len(value)}{code}", *value))
    if isinstance(value, str):
        return _typed(key, gguf.GGUFValueType.STRING, _text(value))
    if isinstance(value, bool):
        return _typed(key, gguf.GGUFValueType.BOOL, struct.pack("<?", value))
    if isinstance(value, float):
        return _typed(key, gguf.GGUFValueType.FLOAT32, struct.pack("<f", value))
    return _typed(key, gguf.GGUFValueType.UINT32, struct.pack("<I", value))


def _array(key: str, kind: gguf.GGUFValueType, length: int, data: bytes) -> bytes:
    return _typed(key, gguf.GGUFValueType.ARRAY, struct.pack("<IQ", kind, length) + data)


def _typed(key: str, kind: gguf.GGUFValueType, data: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + data


# Tokenizers.


@functools.cache
def _tokenizer(vocabulary: Vocabulary) -> tuple[bytes, ...]:
    byte_pairs = vocabulary.kind == "gpt2"
    kinds = gguf.TokenType
    special = {vocabulary.begin: "<|begin|>", vocabulary.end: "<|end|>"}
    types = dict.fromkeys(special, kinds.CONTROL)
    free = [token for token in range(258) if token not in special]
    for byte, (token, character) in enumerate(zip(free, _byte_characters(), strict=False)):
        special[token] = character if byte_pairs else f"<0x{byte:02X}>"
        types[token] = kinds.NORMAL if byte_pairs else kinds.BYTE
    words = _words(vocabulary.size, "Ġ" if byte_pairs else "▁")
    numbers = [types.get(token, kinds.NORMAL) for token in range(vocabulary.size)]
    pairs = [
        _pair("tokenizer.ggml.model", vocabulary.kind),
        _pair("tokenizer.ggml.pre", vocabulary.pre),
        _texts("tokenizer.ggml.tokens", (special.get(i, word) for i, word in enumerate(words))),
        _pair("tokenizer.ggml.token_type", numbers),
        _pair("tokenizer.ggml.bos_token_id", vocabulary.begin),
        _pair("tokenizer.ggml.eos_token_id", vocabulary.end),
    ]
    if byte_pairs:
        pairs.append(_texts("tokenizer.ggml.merges", _merges(vocabulary.merges)))
    else:
        scores = [float(-token) for token in range(vocabulary.size)]
        pairs.append(_pair("tokenizer.ggml.scores", scores))
    return tuple(pairs)


def _byte_characters() -> list[str]:
    """The printable characters that stand for the 256 bytes in vocabularies of byte pairs."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = itertools.count(256)
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _words(count: int, space: str) -> Iterator[str]:
    """Words that all differ: in their last four letters, wherever they are of equal length."""
    for i, ending in enumerate(_endings(count)):
        yield space * (i % 2) + "synthetic"[: i % 10] + ending


def _merges(count: int) -> Iterator[str]:
    for i, ending in enumerate(_endings(count)):
        yield f"{ending} {'synthetic'[: 1 + i % 9]}"


def _endings(count: int) -> Iterator[str]:
    return map(
        "".join, itertools.islice(itertools.product(string.ascii_lowercase, repeat=4), count)
    )


def _texts(key: str, texts: Iterable[str]) -> bytes:
    packed = [_text(text) for text in texts]
    return _array(key, gguf.GGUFValueType.STRING, len(packed), b"".join(packed))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("tests.model.headers", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--model", choices=MODELS, help="default: all")
    parser.add_argument("--file-type", choices=FILE_TYPES, default="Q4_K_M")
    parser.add_argument(
        "--sparse", action="store_true", help="make files as long as the real ones, with holes"
    )
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    for model in [args.model] if args.model else MODELS:
        path = args.out / f"{model}-{args.file_type}.gguf"
        (write_sparse if args.sparse else write_header)(path, model, args.file_type)
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
