"""How the test model is made.

Llama architecture, real tokenizer, real layers; only the weights are chosen instead of trained:

- Each token's embedding is one direction: every word of the sentence has its own, all other tokens
  (bytes, roles) share one. The output matrix maps the direction of a word to the next word, the
  shared direction to the first word, and the last word's to end-of-text. That is all that the
  model knows, so greedy decoding after any prompt says the sentence and stops.
- The layers are random matrices that really run. They add to the stream, so every logit depends on
  all of them, but what they can add, all together and at worst, is scaled to stay far below the
  distance between the best logit and the second best: see `_bounded_layer`.

Words are tokens that the tokenizer never makes out of a prompt (no shorter token leads to them), so
a prompt that holds words of the sentence changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
from numpy.typing import NDArray

SENTENCE = (
    "Hello! No single machine wrote this: each word passed through layers that are spread over"
    " several pods, and came back as one answer."
)

HEAD_LENGTH = 32
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

_Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """Size of the model. The default stays below 900 kB; 256 x 1024 makes about 24 MB."""

    layers: int = 24
    width: int = 64
    feed_forward: int = 64
    context: int = 4096
    kind: Literal["chat", "embed"] = "chat"

    @property
    def heads(self) -> int:
        return self.width // HEAD_LENGTH

    @property
    def kv_heads(self) -> int:
        return self.heads // 2


def write(path: Path, shape: Shape | None = None, seed: int = 0) -> None:
    """Writes the model. The same shape and seed give the same bytes."""
    shape = shape or Shape()
    words = _words()
    if shape.width % (2 * HEAD_LENGTH) or shape.width <= len(words):
        raise ValueError(f"width {shape.width}: must be a multiple of {2 * HEAD_LENGTH}")
    random = np.random.Generator(np.random.PCG64(seed))
    writer = gguf.GGUFWriter(path, "llama")
    _add_parameters(writer, shape)
    tokens = _add_tokenizer(writer, words)
    _add_tables(writer, shape, tokens, words, random)
    for index in range(shape.layers):
        _add_layer(writer, shape, index, random)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _words() -> list[str]:
    first, *others = SENTENCE.split(" ")
    words = [first, *(f"▁{word}" for word in others)]
    if len(set(words)) != len(words):
        raise ValueError("a word of the sentence occurs twice: what follows it would be ambiguous")
    return words


def _add_parameters(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name("LlamaCluster test model")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(HEAD_LENGTH)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    if shape.kind == "embed":
        writer.add_pooling_type(gguf.PoolingType.MEAN)


def _add_tokenizer(writer: gguf.GGUFWriter, words: list[str]) -> list[str]:
    """Adds a SentencePiece vocabulary that falls back to bytes; returns its tokens."""
    kinds = gguf.TokenType
    vocabulary = [
        ("<unk>", kinds.UNKNOWN),
        ("<s>", kinds.CONTROL),
        ("</s>", kinds.CONTROL),
        *((role, kinds.CONTROL) for role in ROLES),
        *((f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)),
        *((word, kinds.NORMAL) for word in words),
    ]
    tokens = [token for token, _ in vocabulary]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([int(kind) for _, kind in vocabulary])
    writer.add_vocab_size(len(tokens))
    writer.add_unk_token_id(tokens.index("<unk>"))
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("</s>"))
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    return tokens


def _add_tables(
    writer: gguf.GGUFWriter,
    shape: Shape,
    tokens: list[str],
    words: list[str],
    random: np.random.Generator,
) -> None:
    directions = np.linalg.qr(random.standard_normal((shape.width, shape.width)))[0].T
    shared, of_word = directions[0], dict(zip(words, directions[1:], strict=False))
    rest = directions[len(words) + 1 :]

    # Other tokens differ from each other only in what the output matrix does not look at.
    embedding = np.array([of_word.get(token, shared) for token in tokens])
    others = np.array([token not in of_word for token in tokens])
    embedding[others] += (
        0.5 * random.standard_normal((others.sum(), len(rest))) @ rest / np.sqrt(len(rest))
    )
    output = 0.05 * random.standard_normal((len(tokens), shape.width)) / np.sqrt(shape.width)
    for here, following in zip([shared, *of_word.values()], [*words, "</s>"], strict=True):
        output[tokens.index(following)] += 4 * here

    scale = np.sqrt(shape.width)  # so that the stream begins with a mean square of about 1
    _add_matrix(writer, "token_embd.weight", scale * embedding)
    _add_vector(writer, "output_norm.weight", np.ones(shape.width))
    _add_matrix(writer, "output.weight", output)


def _add_layer(
    writer: gguf.GGUFWriter, shape: Shape, index: int, random: np.random.Generator
) -> None:
    def matrix(rows: int, columns: int) -> _Matrix:
        values: _Matrix = random.standard_normal((rows, columns), np.float32)
        return values / np.float32(np.sqrt(columns))

    kv_width = shape.kv_heads * HEAD_LENGTH
    query, key = matrix(shape.width, shape.width), matrix(kv_width, shape.width)
    value, attended = matrix(kv_width, shape.width), matrix(shape.width, shape.width)
    gate, up = (matrix(shape.feed_forward, shape.width) for _ in range(2))
    down = matrix(shape.width, shape.feed_forward)
    attended, down = _bounded_layer(shape, value, attended, gate, up, down)

    for name, values in (
        ("attn_q", query),
        ("attn_k", key),
        ("attn_v", value),
        ("attn_output", attended),
        ("ffn_gate", gate),
        ("ffn_up", up),
        ("ffn_down", down),
    ):
        _add_matrix(writer, f"blk.{index}.{name}.weight", values)
    for name in ("attn_norm", "ffn_norm"):
        _add_vector(writer, f"blk.{index}.{name}.weight", np.ones(shape.width))


def _bounded_layer(
    shape: Shape, value: _Matrix, attended: _Matrix, gate: _Matrix, up: _Matrix, down: _Matrix
) -> tuple[_Matrix, _Matrix]:
    """`attended` and `down`, scaled so that all layers together cannot turn the stream.

    A normalised stream x has length sqrt(width). Attention averages values, so it adds at most
    |attended| |value| |x| for each group of heads that share a value; the feed-forward part adds at
    most |down| |gate x| |up x|, as |silu(z)| <= |z|. Over all layers that may reach a quarter of
    the stream's own length, which is the distance at which another logit could win with a wide
    margin to spare.
    """
    length = np.sqrt(shape.width)
    allowed = 0.25 * length / (2 * shape.layers)
    shared = np.sqrt(shape.heads / shape.kv_heads)
    by_attention = _norm(attended) * _norm(value) * length * shared
    by_feed_forward = _norm(down) * _norm(gate) * _norm(up) * length**2
    return attended * (allowed / by_attention), down * (allowed / by_feed_forward)


def _norm(matrix: _Matrix) -> float:
    return float(np.linalg.norm(matrix, 2))


def _add_matrix(writer: gguf.GGUFWriter, name: str, values: NDArray[np.floating]) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quantize(values.astype(np.float32), kind), raw_dtype=kind)


def _add_vector(writer: gguf.GGUFWriter, name: str, values: NDArray[np.floating]) -> None:
    writer.add_tensor(name, values.astype(np.float32))
