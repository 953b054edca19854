"""Models with their true parameters, byte for byte of the published size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from tests.model.headers.layers import (
    command_r,
    deepseek2,
    gemma3,
    gpt_oss,
    granite_hybrid,
    llama,
    nemotron_h,
    phi3,
    qwen2,
    qwen3,
)
from tests.model.headers.model import Model, Tensors, Value, Vocabulary


def parameters(
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


def heads_of(length: int) -> dict[str, Value]:
    return {"attention.key_length": length, "attention.value_length": length}


def choice_of(experts: int, used: int, length: int) -> dict[str, Value]:
    return {
        "expert_count": experts,
        "expert_used_count": used,
        "expert_feed_forward_length": length,
    }


def yarn(factor: float) -> dict[str, Value]:
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": 4096,
        "rope.scaling.yarn_beta_fast": 32.0,
        "rope.scaling.yarn_beta_slow": 1.0,
    }


def llama3(blocks: int, width: int, feed_forward: int, heads: int) -> Model:
    values = parameters(blocks, width, feed_forward, heads, 8, context=131072, base=5e5)
    values |= {"vocab_size": 128256, "rope.dimension_count": 128}
    vocabulary = Vocabulary(128256, "gpt2", "llama-bpe", 280147, 128000, 128009)
    return Model("llama", vocabulary, values, llama, more={"rope_freqs.weight": (64,)})


def qwen(
    architecture: str, values: dict[str, Value], block: Callable[[Model, int], Tensors], size: int
) -> Model:
    vocabulary = Vocabulary(size, "gpt2", "qwen2", 151387, 151643, 151645)
    return Model(
        architecture, vocabulary, values | {"attention.layer_norm_rms_epsilon": 1e-6}, block
    )


def qwen3_dense(blocks: int, width: int, feed_forward: int, heads: int) -> Model:
    values = parameters(blocks, width, feed_forward, heads, 8, context=40960)
    return qwen("qwen3", values | heads_of(128), qwen3, 151936)


def qwen3_moe(blocks: int, width: int, feed_forward: int, heads: int, expert: int) -> Model:
    values = parameters(blocks, width, feed_forward, heads, 4, context=40960)
    values |= heads_of(128) | choice_of(128, 8, expert)
    return qwen("qwen3moe", values, qwen3, 151936)


def openai(blocks: int, experts: int) -> Model:
    values = parameters(blocks, 2880, 2880, 64, 8, context=131072, base=1.5e5)
    values |= heads_of(64) | choice_of(experts, 4, 2880) | yarn(32.0)
    values["attention.sliding_window"] = 128
    vocabulary = Vocabulary(201088, "gpt2", "gpt-4o", 446189, 199998, 200002)
    return Model("gpt-oss", vocabulary, values, gpt_oss)


def hybrid(width: int, heads: int, mamba_heads: int, groups: int) -> dict[str, Value]:
    return {
        "rope.dimension_count": width // heads,
        "rope.scaling.finetuned": False,
        "ssm.conv_kernel": 4,
        "ssm.state_size": 128,
        "ssm.group_count": groups,
        "ssm.inner_size": mamba_heads * 64,
        "ssm.time_step_rank": mamba_heads,
    }


def granite4(
    width: int,
    *,
    heads: int,
    heads_kv: int,
    mamba_heads: int,
    expert: int,
    more: Mapping[str, Value],
) -> Model:
    per_layer = [heads_kv if block % 10 == 5 else 0 for block in range(40)]
    values = parameters(40, width, expert, heads, per_layer, context=1 << 20, base=1e4)
    values |= hybrid(width, heads, mamba_heads, 1) | {
        "vocab_size": 100352,
        "attention.scale": 1 / 128,
        "embedding_scale": 12.0,
        "residual_scale": 0.22,
        "expert_shared_feed_forward_length": 2 * expert,
    }
    vocabulary = Vocabulary(100352, "gpt2", "dbrx", 100000, 100257, 100257)
    return Model("granitehybrid", vocabulary, {**values, **more}, granite_hybrid, tied=True)


def nemotron(
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
    values = parameters(
        len(pattern), width, per_layer, 32, heads_per_layer, context=1 << 20, base=1e4
    )
    values |= heads_of(128) | hybrid(width, 32, mamba_heads, 8)
    values |= {"vocab_size": 131072, "attention.layer_norm_epsilon": 1e-5}
    vocabulary = Vocabulary(131072, "gpt2", "pixtral", 269443)
    return Model(architecture, vocabulary, {**values, **more}, nemotron_h)


MODELS: Final[Mapping[str, Model]] = MappingProxyType(
    {
        "llama-3.1-8b": llama3(32, 4096, 14336, 32),
        "llama-3.1-70b": llama3(80, 8192, 28672, 64),
        "llama-3.1-405b": llama3(126, 16384, 53248, 128),
        "mistral-large-2": Model(
            "llama",
            Vocabulary(32768),
            parameters(88, 12288, 28672, 96, 8, context=131072)
            | heads_of(128)
            | {"vocab_size": 32768, "rope.dimension_count": 128},
            llama,
        ),
        "mixtral-8x7b": Model(
            "llama",
            Vocabulary(32000),
            parameters(32, 4096, 14336, 32, 8, context=32768)
            | {"vocab_size": 32000, "rope.dimension_count": 128}
            | {"expert_count": 8, "expert_used_count": 2},
            llama,
        ),
        "qwen2.5-72b": qwen(
            "qwen2", parameters(80, 8192, 29568, 64, 8, context=32768), qwen2, 152064
        ),
        "qwen3-1.7b": replace(qwen3_dense(28, 2048, 6144, 16), tied=True),
        "qwen3-8b": qwen3_dense(36, 4096, 12288, 32),
        "qwen3-32b": qwen3_dense(64, 5120, 25600, 64),
        "qwen3-30b-a3b": qwen3_moe(48, 2048, 6144, 32, 768),
        "qwen3-235b-a22b": qwen3_moe(94, 4096, 12288, 64, 1536),
        "gemma-3-27b": Model(
            "gemma3",
            Vocabulary(262144, begin=2, end=1),
            parameters(62, 5376, 21504, 32, 16, context=131072, epsilon=1e-6)
            | heads_of(128)
            | {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
            | {"attention.sliding_window": 1024},
            gemma3,
            tied=True,
        ),
        "phi-4": Model(
            "phi3",
            Vocabulary(100352, "gpt2", "dbrx", 100000, 100257, 100257),
            parameters(40, 5120, 17920, 40, 10, context=16384, base=2.5e5)
            | {"rope.dimension_count": 128, "rope.scaling.original_context_length": 16384}
            | {"attention.sliding_window": 0},
            phi3,
        ),
        "command-r-plus": Model(
            "command-r",
            Vocabulary(256000, "gpt2", "command-r", 253333, 5, 255001),
            parameters(64, 12288, 33792, 96, 8, context=131072, base=7.5e7)
            | {"attention.layer_norm_epsilon": 1e-5, "logit_scale": 0.8333333333333334}
            | {"rope.scaling.type": "none"},
            command_r,
            tied=True,
        ),
        "deepseek-v3": Model(
            "deepseek2",
            Vocabulary(129280, "gpt2", "deepseek-v3", 127741, 0, 1),
            parameters(61, 7168, 18432, 128, 1, context=163840, base=1e4, epsilon=1e-6)
            | choice_of(256, 8, 2048)
            | yarn(40.0)
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
            deepseek2,
        ),
        "gpt-oss-20b": openai(24, 32),
        "gpt-oss-120b": openai(36, 128),
        "granite-4.0-h-tiny": granite4(
            1536,
            heads=12,
            heads_kv=4,
            mamba_heads=48,
            expert=512,
            more={"expert_count": 64, "expert_used_count": 6, "logit_scale": 6.0},
        ),
        "granite-4.0-h-small": granite4(
            4096,
            heads=32,
            heads_kv=8,
            mamba_heads=128,
            expert=768,
            more={"expert_count": 72, "expert_used_count": 10, "logit_scale": 16.0},
        ),
        "nemotron-h-8b": nemotron(
            "nemotron_h",
            "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
            width=4096,
            heads_kv=8,
            mamba_heads=128,
            feed_forward=21504,
        ),
        "nemotron-3-nano": nemotron(
            "nemotron_h_moe",
            "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
            width=2688,
            heads_kv=2,
            mamba_heads=64,
            feed_forward=1856,
            more=choice_of(128, 6, 1856)
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
