"""The tensors of a layer: the parts that architectures share, then the layers of each."""

from __future__ import annotations

from collections.abc import Sequence

from tests.model.headers.model import Model, Shape, Tensors

# Parts.


def norms(model: Model, *names: str) -> Tensors:
    return {f"{name}.weight": (model.width,) for name in names}


def attention(model: Model, block: int = 0, *, biases: Sequence[str] = ()) -> Tensors:
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


def head_norms(model: Model) -> Tensors:
    return {f"attn_{name}_norm.weight": (model.head_length,) for name in "qk"}


def feed_forward(model: Model) -> Tensors:
    return gated(model, model.number("feed_forward_length"))


def gated(model: Model, length: int, suffix: str = "", count: Shape = ()) -> Tensors:
    return {
        f"ffn_gate{suffix}.weight": (model.width, length, *count),
        f"ffn_up{suffix}.weight": (model.width, length, *count),
        f"ffn_down{suffix}.weight": (length, model.width, *count),
    }


def router(model: Model) -> Tensors:
    return {"ffn_gate_inp.weight": (model.width, model.experts)}


def experts(model: Model) -> Tensors:
    length = model.number("expert_feed_forward_length", model.number("feed_forward_length", 0))
    return {**router(model), **gated(model, length, "_exps", (model.experts,))}


def mamba2(model: Model) -> Tensors:
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


def llama(model: Model, _: int) -> Tensors:
    return {
        **norms(model, "attn_norm", "ffn_norm"),
        **attention(model),
        **(experts(model) if model.experts else feed_forward(model)),
    }


def qwen2(model: Model, _: int) -> Tensors:
    return {**llama(model, 0), **attention(model, biases="qkv")}


def qwen3(model: Model, _: int) -> Tensors:
    return {**llama(model, 0), **head_norms(model)}


def gemma3(model: Model, _: int) -> Tensors:
    return {**qwen3(model, 0), **norms(model, "post_attention_norm", "post_ffw_norm")}


def phi3(model: Model, _: int) -> Tensors:
    length = model.number("feed_forward_length")
    rows = (model.heads + 2 * model.number("attention.head_count_kv")) * model.head_length
    return {
        **norms(model, "attn_norm", "ffn_norm"),
        "attn_qkv.weight": (model.width, rows),
        "attn_output.weight": (model.width, model.width),
        "ffn_up.weight": (model.width, 2 * length),
        "ffn_down.weight": (length, model.width),
    }


def command_r(model: Model, _: int) -> Tensors:
    return {
        **norms(model, "attn_norm"),
        **attention(model),
        "attn_q_norm.weight": (model.head_length, model.heads),
        "attn_k_norm.weight": (model.head_length, model.number("attention.head_count_kv")),
        **feed_forward(model),
    }


def deepseek2(model: Model, block: int) -> Tensors:
    query, key_value = model.number("attention.q_lora_rank"), model.number("attention.kv_lora_rank")
    rope, heads = model.number("rope.dimension_count"), model.heads
    key, value = (model.number(f"attention.{name}_length_mla") for name in ("key", "value"))
    length = model.number("expert_feed_forward_length") * model.number("expert_shared_count")
    return {
        **norms(model, "attn_norm", "ffn_norm"),
        "attn_q_a.weight": (model.width, query),
        "attn_q_a_norm.weight": (query,),
        "attn_q_b.weight": (query, heads * key),
        "attn_kv_a_mqa.weight": (model.width, key_value + rope),
        "attn_kv_a_norm.weight": (key_value,),
        "attn_k_b.weight": (key - rope, key_value, heads),
        "attn_v_b.weight": (key_value, value, heads),
        "attn_output.weight": (heads * value, model.width),
        **(
            feed_forward(model)
            if block < model.number("leading_dense_block_count")
            else {
                **experts(model),
                "exp_probs_b.bias": (model.experts,),
                **gated(model, length, "_shexp"),
            }
        ),
    }


def gpt_oss(model: Model, _: int) -> Tensors:
    mixture = experts(model)
    return {
        **norms(model, "attn_norm", "post_attention_norm"),
        **attention(model, biases=("q", "k", "v", "output")),
        "attn_sinks.weight": (model.heads,),
        **mixture,
        **{name.replace(".weight", ".bias"): shape[1:] for name, shape in mixture.items()},
    }


def granite_hybrid(model: Model, block: int) -> Tensors:
    attends = model.in_block("attention.head_count_kv", block)
    return {
        **norms(model, "attn_norm", "ffn_norm"),
        **(attention(model, block) if attends else mamba2(model)),
        **experts(model),
        **gated(model, model.number("expert_shared_feed_forward_length"), "_shexp"),
    }


def nemotron_h(model: Model, block: int) -> Tensors:
    return {**norms(model, "attn_norm"), **nemotron_h_mixer(model, block)}


def nemotron_h_mixer(model: Model, block: int) -> Tensors:
    if model.in_block("attention.head_count_kv", block):
        return attention(model, block)
    length = model.in_block("feed_forward_length", block)
    if not length:
        return mamba2(model)
    if not model.experts:
        return squared(model, length)
    return {
        **router(model),
        "exp_probs_b.bias": (model.experts,),
        **squared(model, length, "_exps", (model.experts,)),
        **squared(model, model.number("expert_shared_feed_forward_length"), "_shexp"),
    }


def squared(model: Model, length: int, suffix: str = "", count: Shape = ()) -> Tensors:
    tensors = gated(model, length, suffix, count)
    return {name: shape for name, shape in tensors.items() if not name.startswith("ffn_gate")}
