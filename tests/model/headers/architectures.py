"""Models of architectures that MODELS leaves out, with the structure of the published ones: for
planning what nobody has tried yet. Quantized by the same rules, not to the same types to a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from tests.model.headers.layers import (
    attention,
    experts,
    feed_forward,
    gated,
    head_norms,
    llama,
    mamba2,
    norms,
    qwen2,
    qwen3,
    squared,
)
from tests.model.headers.model import Model, Tensors, Value, Vocabulary
from tests.model.headers.models import MODELS, choice_of, heads_of, parameters

# Parts.


def biases(tensors: Tensors, *names: str) -> Tensors:
    """Those of these matrices, or norms."""
    return {f"{name}.bias": tensors[f"{name}.weight"][-1:] for name in names}


def shared_expert(model: Model, *, gate: bool = False) -> Tensors:
    length = model.number("expert_shared_feed_forward_length", 0) or (
        model.number("expert_feed_forward_length") * model.number("expert_shared_count", 1)
    )
    router = {"ffn_gate_inp_shexp.weight": (model.width,)} if gate else {}
    return {**router, **gated(model, length, "_shexp")}


def dense_first(model: Model, block: int) -> Tensors:
    """A dense feed-forward part in the first layers, experts and a shared one in the others."""
    if block < model.number("leading_dense_block_count"):
        return feed_forward(model)
    return {**experts(model), "exp_probs_b.bias": (model.experts,), **shared_expert(model)}


# Layers, by architecture.


def glm4moe(model: Model, block: int) -> Tensors:
    tensors = {
        **norms(model, "attn_norm", "post_attention_norm"),
        **attention(model, biases="qkv"),
        **dense_first(model, block),
    }
    if block >= model.blocks - model.number("nextn_predict_layers"):
        tensors |= norms(model, "nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm")
        tensors["nextn.eh_proj.weight"] = (2 * model.width, model.width)
    return tensors


def llama4(model: Model, block: int) -> Tensors:
    with_experts = (block + 1) % model.number("interleave_moe_layer_step") == 0
    return {
        **norms(model, "attn_norm", "ffn_norm"),
        **attention(model),
        **({**experts(model), **shared_expert(model)} if with_experts else feed_forward(model)),
    }


def qwen3next(model: Model, block: int) -> Tensors:
    length, inner = model.head_length, model.number("ssm.inner_size")
    keys = model.number("ssm.state_size") * model.number("ssm.group_count")
    heads = model.number("ssm.time_step_rank")
    return {
        **norms(model, "attn_norm", "post_attention_norm"),
        **(
            {
                **attention(model),
                **head_norms(model),
                "attn_q.weight": (model.width, 2 * model.heads * length),  # with a gate
            }
            if block % model.number("full_attention_interval") == 3
            else {
                "attn_qkv.weight": (model.width, 2 * keys + inner),
                "attn_gate.weight": (model.width, inner),
                "ssm_conv1d.weight": (model.number("ssm.conv_kernel"), 2 * keys + inner),
                "ssm_dt.bias": (heads,),
                "ssm_a": (heads,),
                "ssm_ba.weight": (model.width, 2 * heads),
                "ssm_norm.weight": (model.number("ssm.state_size"),),
                "ssm_out.weight": (inner, model.width),
            }
        ),
        **experts(model),
        **shared_expert(model, gate=True),
    }


def qwen3_5(model: Model, block: int) -> Tensors:
    ahead = block >= model.blocks - model.number("nextn_predict_layers")
    names = {"ssm_ba.weight": "ssm_alpha.weight"}
    tensors = {
        names.get(name, name): shape
        for name, shape in qwen3next(model, 3 if ahead else block).items()
        if not name.startswith("ffn_")
    }
    if "ssm_alpha.weight" in tensors:
        rows = (model.width, model.number("ssm.time_step_rank"))
        tensors |= {"ssm_alpha.weight": rows, "ssm_beta.weight": rows}
    if ahead:
        tensors |= norms(model, "nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm")
        tensors["nextn.eh_proj.weight"] = (2 * model.width, model.width)
    return {**tensors, **feed_forward(model)}


def t5(model: Model, block: int) -> Tensors:
    return {}


def _t5_stack(model: Model, stack: str, attentions: tuple[str, ...]) -> Tensors:
    inner = {name.replace("output", "o"): shape for name, shape in attention(model).items()}
    relative = {"attn_rel_b.weight": (model.heads, 32)}
    return {
        f"{stack}.blk.{block}.{name}": shape
        for block in range(model.blocks)
        for name, shape in {
            **{
                f"{kind}{name}": shape
                for kind in attentions
                for name, shape in {"attn_norm.weight": (model.width,), **inner}.items()
            },
            **(relative if block == 0 else {}),
            **norms(model, "ffn_norm"),
            **feed_forward(model),
        }.items()
    }


def gemma2(model: Model, _: int) -> Tensors:
    return {**llama(model, 0), **norms(model, "post_attention_norm", "post_ffw_norm")}


def gemma3n(model: Model, _: int) -> Tensors:
    per_layer, altups = model.number("embedding_length_per_layer_input"), 4
    return {
        **gemma2(model, 0),
        **head_norms(model),
        **norms(model, "post_norm", "altup_correct_scale", "altup_router_norm", "laurel_post_norm"),
        "inp_gate.weight": (model.width, per_layer),
        "proj.weight": (per_layer, model.width),
        "altup_correct_coef.weight": (altups, altups),
        "altup_predict_coef.weight": (altups, altups * altups),
        "altup_router.weight": (model.width, altups),
        "laurel_l.weight": (model.width, 64),
        "laurel_r.weight": (64, model.width),
    }


def falcon_h1(model: Model, _: int) -> Tensors:
    tensors = {**llama(model, 0), **mamba2(model)}
    return {name.replace("ffn_norm.weight", "ffn_norm"): tensors[name] for name in tensors}


def lfm2(model: Model, block: int) -> Tensors:
    width = model.width
    return {
        **norms(model, "attn_norm", "ffn_norm"),
        **(
            {**attention(model, block), **head_norms(model)}
            if model.in_block("attention.head_count_kv", block)
            else {
                "shortconv.conv.weight": (model.number("shortconv.l_cache"), width),
                "shortconv.in_proj.weight": (width, 3 * width),
                "shortconv.out_proj.weight": (width, width),
            }
        ),
        **feed_forward(model),
    }


def mamba(model: Model, _: int) -> Tensors:
    return {**norms(model, "attn_norm"), **mamba1(model)}


def mamba1(model: Model) -> Tensors:
    inner, state, rank = (
        model.number(f"ssm.{name}") for name in ("inner_size", "state_size", "time_step_rank")
    )
    return {
        "ssm_in.weight": (model.width, 2 * inner),
        "ssm_conv1d.weight": (model.number("ssm.conv_kernel"), inner),
        "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (inner, rank + 2 * state),
        "ssm_dt.weight": (rank, inner),
        "ssm_dt.bias": (inner,),
        "ssm_a": (state, inner),
        "ssm_d": (inner,),
        "ssm_out.weight": (inner, model.width),
    }


def kimi_linear(model: Model, block: int) -> Tensors:
    width, heads = model.width, model.heads
    length, rank = model.number("kda.head_dim"), model.number("attention.kv_lora_rank")
    key, value = (model.number(f"attention.{name}_length_mla") for name in ("key", "value"))
    inner, rope = heads * length, model.number("rope.dimension_count")
    convolution = (model.number("ssm.conv_kernel"), 1, inner)
    return {
        **norms(model, "attn_norm", "ffn_norm"),
        **(
            {
                "attn_q.weight": (width, heads * key),
                "attn_kv_a_mqa.weight": (width, rank + rope),
                "attn_kv_a_norm.weight": (rank,),
                "attn_k_b.weight": (key - rope, rank, heads),
                "attn_v_b.weight": (rank, value, heads),
                "attn_output.weight": (heads * value, width),
            }
            if model.in_block("attention.head_count_kv", block)
            else {
                **{f"attn_{name}.weight": (width, inner) for name in "qkv"},
                **{f"ssm_conv1d_{name}.weight": convolution for name in "qkv"},
                **{f"ssm_{name}_a.weight": (width, length) for name in "fg"},
                **{f"ssm_{name}_b.weight": (length, inner) for name in "fg"},
                "ssm_beta.weight": (width, heads),
                "ssm_a": (1, heads),
                "ssm_dt.bias": (inner,),
                "ssm_norm.weight": (length,),
                "attn_output.weight": (inner, width),
            }
        ),
        **dense_first(model, block),
    }


def only_mamba2(model: Model, _: int) -> Tensors:
    return {**norms(model, "attn_norm"), **mamba2(model)}


def jamba(model: Model, block: int) -> Tensors:
    state = {f"ssm_{name}_norm.weight": (model.number("ssm.state_size"),) for name in "bc"}
    rank = {"ssm_dt_norm.weight": (model.number("ssm.time_step_rank"),)}
    return {
        **norms(model, "attn_norm", "ffn_norm"),
        **(
            attention(model, block)
            if model.in_block("attention.head_count_kv", block)
            else {**mamba1(model), **state, **rank}
        ),
        **(experts(model) if block % 2 else feed_forward(model)),
    }


def rwkv7(model: Model, block: int) -> Tensors:
    width = model.width
    ranks = {
        letter: model.number(f"attention.{name}_lora_rank")
        for letter, name in zip(
            "wavg", ("decay", "iclr", "value_residual_mix", "gate"), strict=True
        )
    }
    ranks["v"] = ranks["v"] if block else ranks["a"]
    vectors = ("w0", "a0", "v0", "k_k", "k_a", "r_k", "ln")
    tensors: Tensors = {
        **norms(model, "attn_norm", "attn_norm_2"),
        "time_mix_lerp_fused.weight": (width, 1, 1, 6),
        **{f"time_mix_{name}.weight": (width,) for name in vectors},
        "time_mix_ln.bias": (width,),
        **{f"time_mix_{letter}1.weight": (width, rank) for letter, rank in ranks.items()},
        **{f"time_mix_{letter}2.weight": (rank, width) for letter, rank in ranks.items()},
        **{
            f"time_mix_{name}.weight": (width, width)
            for name in ("key", "value", "receptance", "output")
        },
        "channel_mix_lerp_k.weight": (width, 1, 1),
        "channel_mix_key.weight": (width, model.number("feed_forward_length")),
        "channel_mix_value.weight": (model.number("feed_forward_length"), width),
    }
    return {**tensors, **biases(tensors, "attn_norm", "attn_norm_2")}


def bert(model: Model, _: int) -> Tensors:
    tensors = {
        **norms(model, "attn_output_norm", "layer_output_norm"),
        **attention(model, biases=("q", "k", "v", "output")),
        **squared(model, model.number("feed_forward_length")),
    }
    return {
        **tensors,
        **biases(tensors, "attn_output_norm", "layer_output_norm", "ffn_up", "ffn_down"),
    }


def nomic_bert(model: Model, _: int) -> Tensors:
    tensors = {
        **norms(model, "attn_output_norm", "layer_output_norm"),
        "attn_qkv.weight": (model.width, 3 * model.width),
        "attn_output.weight": (model.width, model.width),
        **feed_forward(model),
    }
    return {**tensors, **biases(tensors, "attn_output_norm", "layer_output_norm")}


def qwen2moe(model: Model, _: int) -> Tensors:
    return {**qwen2(model, 0), **shared_expert(model, gate=True)}


def olmo2(model: Model, _: int) -> Tensors:
    return {
        **norms(model, "post_attention_norm", "post_ffw_norm"),
        **wide_head_norms(model),
        **attention(model),
        **feed_forward(model),
    }


def wide_head_norms(model: Model) -> Tensors:
    """Over all heads at once."""
    return {
        "attn_q_norm.weight": (model.heads * model.head_length,),
        "attn_k_norm.weight": (model.number("attention.head_count_kv") * model.head_length,),
    }


def exaone4(model: Model, _: int) -> Tensors:
    return {**olmo2(model, 0), **head_norms(model)}


def minimax_m2(model: Model, _: int) -> Tensors:
    return {**llama(model, 0), **wide_head_norms(model), "exp_probs_b.bias": (model.experts,)}


def ernie4_5_moe(model: Model, block: int) -> Tensors:
    return {
        **norms(model, "attn_norm", "ffn_norm"),
        **attention(model),
        **dense_first(model, block),
    }


def seed_oss(model: Model, _: int) -> Tensors:
    return {
        **norms(model, "attn_norm", "post_attention_norm"),
        **attention(model, biases="qkv"),
        **feed_forward(model),
    }


def starcoder2(model: Model, _: int) -> Tensors:
    tensors = {
        **norms(model, "attn_norm", "ffn_norm"),
        **attention(model, biases=("q", "k", "v", "output")),
        **squared(model, model.number("feed_forward_length")),
    }
    return {**tensors, **biases(tensors, "attn_norm", "ffn_norm", "ffn_up", "ffn_down")}


def gptneox(model: Model, _: int) -> Tensors:
    tensors = {
        **norms(model, "attn_norm", "ffn_norm"),
        "attn_qkv.weight": (model.width, 3 * model.width),
        "attn_output.weight": (model.width, model.width),
        **squared(model, model.number("feed_forward_length")),
    }
    return {**tensors, **biases(tensors, *(name.removesuffix(".weight") for name in tensors))}


def phimoe(model: Model, _: int) -> Tensors:
    tensors = {**llama(model, 0), **attention(model, biases=("q", "k", "v", "output"))}
    return {**tensors, **biases(tensors, "attn_norm", "ffn_norm")}


def hunyuan_moe(model: Model, _: int) -> Tensors:
    return {**qwen3(model, 0), **shared_expert(model)}


def grok(model: Model, _: int) -> Tensors:
    return {**llama(model, 0), **norms(model, "attn_output_norm", "layer_output_norm")}


def dbrx(model: Model, _: int) -> Tensors:
    rows = (model.heads + 2 * model.number("attention.head_count_kv")) * model.head_length
    return {
        **norms(model, "attn_norm", "attn_output_norm"),
        "attn_qkv.weight": (model.width, rows),
        "attn_output.weight": (model.width, model.width),
        **experts(model),
    }


def cohere2(model: Model, _: int) -> Tensors:
    return {**norms(model, "attn_norm"), **attention(model), **feed_forward(model)}


# Models.


def _byte_pairs(size: int, pre: str = "gpt-2") -> Vocabulary:
    return Vocabulary(size, "gpt2", pre, 100000, 0, 1)


def _mamba(inner: int, state: int, rank: int, groups: int | None = None) -> dict[str, Value]:
    values: dict[str, Value] = {
        "ssm.conv_kernel": 4,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
    }
    return values if groups is None else values | {"ssm.group_count": groups}


def _no_heads(values: dict[str, Value]) -> dict[str, Value]:
    return values | {"attention.head_count": 0, "attention.head_count_kv": 0}


def _layer_norm(epsilon: float = 1e-5) -> dict[str, Value]:
    return {"attention.layer_norm_epsilon": epsilon}


def _flan_t5_xl() -> Model:
    """An encoder and a decoder of so many layers each."""
    values = parameters(24, 2048, 5120, 32, 32, context=512, epsilon=1e-6) | heads_of(64)
    values |= {"attention.relative_buckets_count": 32, "decoder_block_count": 24}
    stacks = Model("t5", Vocabulary(32128, "t5"), values, t5, output_norm=None)
    more = {
        **_t5_stack(stacks, "enc", ("",)),
        **_t5_stack(stacks, "dec", ("", "cross_")),
        "enc.output_norm.weight": (2048,),
        "dec.output_norm.weight": (2048,),
    }
    return replace(stacks, more=more)


def _kimi_k2() -> Model:
    deepseek = MODELS["deepseek-v3"]
    more = choice_of(384, 8, 2048) | {
        "attention.head_count": 64,
        "leading_dense_block_count": 1,
        "expert_group_count": 1,
        "expert_group_used_count": 1,
        "vocab_size": 163840,
        "context_length": 131072,
    }
    return replace(
        deepseek, values={**deepseek.values, **more}, vocabulary=_byte_pairs(163840, "kimi-k2")
    )


def _embeds(pooling: int) -> dict[str, Value]:
    return {"attention.causal": False, "pooling_type": pooling, **_layer_norm()}


def _input_norm(width: int) -> Tensors:
    return {f"token_embd_norm.{kind}": (width,) for kind in ("weight", "bias")}


ARCHITECTURES: Final[Mapping[str, Model]] = MappingProxyType(
    {
        "glm-4.5-air": Model(
            "glm4moe",
            _byte_pairs(151552, "glm4"),
            parameters(47, 4096, 10944, 96, 8, context=131072)
            | heads_of(128)
            | choice_of(128, 8, 1408)
            | {
                "rope.dimension_count": 64,
                "expert_shared_count": 1,
                "leading_dense_block_count": 1,
                "expert_gating_func": 2,
                "expert_weights_scale": 1.0,
                "expert_weights_norm": True,
                "nextn_predict_layers": 1,
            },
            glm4moe,
        ),
        "llama-4-scout": Model(
            "llama4",
            _byte_pairs(202048, "llama4"),
            parameters(48, 5120, 16384, 40, 8, context=10485760, base=5e5)
            | heads_of(128)
            | choice_of(16, 1, 8192)
            | {"interleave_moe_layer_step": 1, "rope.dimension_count": 128},
            llama4,
            more={"rope_freqs.weight": (64,)},
        ),
        "qwen3-next-80b-a3b": Model(
            "qwen3next",
            _byte_pairs(151936, "qwen2"),
            parameters(48, 2048, 5120, 16, 2, context=262144, base=1e7)
            | heads_of(256)
            | choice_of(512, 10, 512)
            | _mamba(4096, 128, 32, 16)
            | {
                "expert_shared_feed_forward_length": 512,
                "full_attention_interval": 4,
                "rope.dimension_count": 64,
            },
            qwen3next,
        ),
        "qwen3.5-9b": Model(
            "qwen35",
            _byte_pairs(248320, "qwen35"),
            parameters(33, 4096, 12288, 16, 4, context=262144, base=1e7)
            | heads_of(256)
            | _mamba(4096, 128, 32, 16)
            | {
                "full_attention_interval": 4,
                "rope.dimension_count": 64,
                "rope.dimension_sections": [11, 11, 10, 0],
                "nextn_predict_layers": 1,
                "expert_count": 0,
                "expert_feed_forward_length": 1,
            },
            qwen3_5,
        ),
        "gemma-2-9b": Model(
            "gemma2",
            Vocabulary(256000, begin=2, end=1),
            parameters(42, 3584, 14336, 16, 8, context=8192, epsilon=1e-6)
            | heads_of(256)
            | {
                "attention.sliding_window": 4096,
                "attn_logit_softcapping": 50.0,
                "final_logit_softcapping": 30.0,
            },
            gemma2,
            tied=True,
        ),
        "gemma-3n-e4b": Model(
            "gemma3n",
            Vocabulary(262144, begin=2, end=1),
            parameters(35, 2048, 16384, 8, 2, context=32768, epsilon=1e-6)
            | heads_of(256)
            | {
                "attention.sliding_window": 512,
                "attention.sliding_window_pattern": [int(i % 5 != 4) for i in range(35)],
                "attention.shared_kv_layers": 15,
                "activation_sparsity_scale": [1.6448] * 10 + [float("-inf")] * 25,
                "altup.active_idx": 0,
                "altup.num_inputs": 4,
                "embedding_length_per_layer_input": 256,
            },
            gemma3n,
            tied=True,
            more={
                "altup_proj.weight": (2048, 2048, 3),
                "altup_unembd_proj.weight": (2048, 2048, 3),
                "per_layer_token_embd.weight": (256 * 35, 262144),
                "per_layer_model_proj.weight": (2048, 256 * 35),
                "per_layer_proj_norm.weight": (256,),
            },
        ),
        "falcon-h1-7b": Model(
            "falcon-h1",
            _byte_pairs(130049, "falcon-h1"),
            parameters(44, 3072, 12288, 12, 2, context=262144, base=1e11)
            | heads_of(128)
            | _mamba(3072, 256, 24, 1),
            falcon_h1,
        ),
        "lfm2-1.2b": Model(
            "lfm2",
            _byte_pairs(65536, "lfm2"),
            parameters(
                16,
                2048,
                8192,
                32,
                [8 if i in (2, 5, 8, 10, 12, 14) else 0 for i in range(16)],
                context=128000,
            )
            | {"shortconv.l_cache": 3, "vocab_size": 65536},
            lfm2,
            tied=True,
            output_norm="token_embd_norm",
        ),
        "mamba-2.8b": Model(
            "mamba",
            _byte_pairs(50280, "olmo"),
            _no_heads(parameters(64, 2560, 0, 0, 0, context=1 << 20)) | _mamba(5120, 16, 160),
            mamba,
            tied=True,
        ),
        "mamba2-2.7b": Model(
            "mamba2",
            _byte_pairs(50288, "olmo"),
            _no_heads(parameters(64, 2560, 0, 0, 0, context=1 << 20)) | _mamba(5120, 128, 80, 1),
            only_mamba2,
            tied=True,
        ),
        "rwkv7-2.9b": Model(
            "rwkv7",
            Vocabulary(65536, "rwkv"),
            _no_heads(parameters(32, 2560, 10240, 0, 0, context=1 << 20))
            | _layer_norm()
            | {
                "wkv.head_size": 64,
                "token_shift_count": 2,
                "attention.decay_lora_rank": 96,
                "attention.iclr_lora_rank": 96,
                "attention.value_residual_mix_lora_rank": 64,
                "attention.gate_lora_rank": 320,
            },
            rwkv7,
            more={**_input_norm(2560), "output_norm.bias": (2560,)},
        ),
        "bge-m3": Model(
            "bert",
            Vocabulary(250002, "t5", sentences=1),
            parameters(24, 1024, 4096, 16, 16, context=8192) | _embeds(2),
            bert,
            tied=True,
            output_norm=None,
            more={
                "position_embd.weight": (1024, 8192),
                "token_types.weight": (1024,),
                **_input_norm(1024),
            },
        ),
        "nomic-embed-1.5": Model(
            "nomic-bert",
            Vocabulary(30522, "bert", sentences=2),
            parameters(12, 768, 3072, 12, 12, context=2048, base=1e3) | _embeds(1),
            nomic_bert,
            tied=True,
            output_norm=None,
            more={"token_types.weight": (768, 2), **_input_norm(768)},
        ),
        "flan-t5-xl": _flan_t5_xl(),
        "qwen3-embedding-8b": replace(
            MODELS["qwen3-8b"],
            values={**MODELS["qwen3-8b"].values, "pooling_type": 3},
            tied=True,
        ),
        "of-one-layer": replace(
            MODELS["qwen3-1.7b"], values={**MODELS["qwen3-1.7b"].values, "block_count": 1}
        ),
        "qwen2-57b-a14b": Model(
            "qwen2moe",
            _byte_pairs(151936, "qwen2"),
            parameters(28, 3584, 18944, 28, 4, context=32768)
            | choice_of(64, 8, 2560)
            | {"expert_shared_feed_forward_length": 20480},
            qwen2moe,
        ),
        "olmo-2-13b": Model(
            "olmo2",
            _byte_pairs(100352, "dbrx"),
            parameters(40, 5120, 13824, 40, 40, context=4096, base=5e5),
            olmo2,
        ),
        "exaone-4-32b": Model(
            "exaone4",
            _byte_pairs(102400, "exaone4"),
            parameters(64, 5120, 27392, 40, 8, context=131072)
            | heads_of(128)
            | {
                "attention.sliding_window": 4096,
                "attention.sliding_window_pattern": [int(i % 4 != 3) for i in range(64)],
            },
            exaone4,
            more={"rope_freqs.weight": (64,)},
        ),
        "kimi-k2": _kimi_k2(),
        "minimax-m2": Model(
            "minimax-m2",
            _byte_pairs(200064, "minimax-m2"),
            parameters(62, 3072, 1536, 48, 8, context=196608, base=5e6)
            | heads_of(128)
            | choice_of(256, 8, 1536)
            | {"rope.dimension_count": 64, "expert_gating_func": 2},
            minimax_m2,
        ),
        "ernie-4.5-21b-a3b": Model(
            "ernie4_5-moe",
            Vocabulary(103424),
            parameters(28, 2560, 12288, 20, 4, context=131072, base=5e5)
            | heads_of(128)
            | choice_of(64, 6, 1536)
            | {
                "expert_shared_count": 2,
                "expert_shared_feed_forward_length": 3072,
                "leading_dense_block_count": 1,
                "interleave_moe_layer_step": 1,
            },
            ernie4_5_moe,
            tied=True,
        ),
        "smollm3-3b": Model(
            "smollm3",
            _byte_pairs(128256, "smaug-bpe"),
            parameters(36, 2048, 11008, 16, 4, context=65536, base=5e6),
            llama,
            tied=True,
        ),
        "seed-oss-36b": Model(
            "seed_oss",
            _byte_pairs(155136, "seed-coder"),
            parameters(64, 5120, 27648, 80, 8, context=524288, base=1e7) | heads_of(128),
            seed_oss,
        ),
        "starcoder2-15b": Model(
            "starcoder2",
            _byte_pairs(49152, "starcoder"),
            parameters(40, 6144, 24576, 48, 4, context=16384, base=1e5) | _layer_norm(),
            starcoder2,
            more={"output_norm.bias": (6144,)},
        ),
        "pythia-6.9b": Model(
            "gptneox",
            _byte_pairs(50432, "olmo"),
            parameters(32, 4096, 16384, 32, 32, context=2048, base=1e4)
            | _layer_norm()
            | {"rope.dimension_count": 32, "use_parallel_residual": True},
            gptneox,
            more={"output_norm.bias": (4096,)},
        ),
        "phimoe-3.5": Model(
            "phimoe",
            Vocabulary(32064),
            parameters(32, 4096, 6400, 32, 8, context=131072, base=1e4)
            | choice_of(16, 2, 6400)
            | {
                "rope.dimension_count": 128,
                "rope.scaling.original_context_length": 4096,
                "rope.scaling.attn_factor": 1.19,
                "attention.sliding_window": 131072,
            },
            phimoe,
            more={
                "output_norm.bias": (4096,),
                "output.bias": (32064,),
                "rope_factors_long.weight": (64,),
                "rope_factors_short.weight": (64,),
            },
        ),
        "hunyuan-a13b": Model(
            "hunyuan-moe",
            _byte_pairs(128167, "hunyuan"),
            parameters(32, 4096, 3072, 32, 8, context=262144, base=1e4)
            | heads_of(128)
            | choice_of(64, 8, 3072)
            | {"expert_shared_feed_forward_length": 3072},
            hunyuan_moe,
            tied=True,
        ),
        "grok-1": Model(
            "grok",
            Vocabulary(131072),
            parameters(64, 6144, 32768, 48, 8, context=8192, base=1e4)
            | heads_of(128)
            | {"expert_count": 8, "expert_used_count": 2},
            grok,
        ),
        "dbrx": Model(
            "dbrx",
            _byte_pairs(100352, "dbrx"),
            parameters(40, 6144, 10752, 48, 8, context=32768, base=5e5)
            | _layer_norm()
            | {"attention.clamp_kqv": 8.0, "expert_count": 16, "expert_used_count": 4},
            dbrx,
        ),
        "jamba-1.5-mini": Model(
            "jamba",
            Vocabulary(65536),
            parameters(
                32, 4096, 14336, 32, [8 if i % 8 == 4 else 0 for i in range(32)], context=262144
            )
            | _mamba(8192, 16, 256)
            | {"expert_count": 16, "expert_used_count": 2},
            jamba,
        ),
        "kimi-linear-48b-a3b": Model(
            "kimi-linear",
            _byte_pairs(163840, "kimi-k2"),
            parameters(
                27,
                2304,
                9216,
                32,
                [int(i % 4 == 3 or i == 26) for i in range(27)],
                context=1 << 20,
                base=1e4,
            )
            | choice_of(256, 8, 1024)
            | {
                "vocab_size": 163840,
                "leading_dense_block_count": 1,
                "attention.kv_lora_rank": 512,
                "attention.key_length": 576,
                "attention.value_length": 512,
                "attention.key_length_mla": 192,
                "attention.value_length_mla": 128,
                "rope.dimension_count": 64,
                "ssm.conv_kernel": 4,
                "kda.head_dim": 128,
                "expert_shared_count": 1,
                "expert_weights_scale": 2.446,
                "expert_weights_norm": True,
                "expert_gating_func": 2,
            },
            kimi_linear,
        ),
        "command-r7b": Model(
            "cohere2",
            _byte_pairs(256000, "command-r"),
            parameters(32, 4096, 14336, 32, 8, context=131072, base=5e4)
            | heads_of(128)
            | _layer_norm()
            | {"attention.sliding_window": 4096, "logit_scale": 0.25, "vocab_size": 256000},
            cohere2,
            tied=True,
        ),
    }
)
