"""What a model is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Value = int | float | str | Sequence[int] | Sequence[float]
Shape = tuple[int, ...]
Tensors = dict[str, Shape]


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer: of byte pairs ("gpt2", with merges) or of SentencePiece ("llama"), or another
    of the engine's that has neither."""

    size: int
    kind: str = "llama"
    pre: str = "default"
    merges: int = 0
    begin: int = 1
    end: int = 2
    sentences: int = 0
    """Kinds of sentences that an embedding model tells apart."""


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
    output_norm: str | None = "output_norm"
    """None where the last layer has it."""

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
        return self.number("attention.key_length", self.width // max(1, self.heads))

    @property
    def experts(self) -> int:
        return self.number("expert_count", 0)

    def tensors(self) -> Tensors:
        """All tensors by name, with the contiguous dimension first, in the order of the file."""
        embedding = (self.width, self.vocabulary.size)
        tensors: Tensors = {"token_embd.weight": embedding, **self.more}
        for block in range(self.blocks):
            tensors |= {f"blk.{block}.{k}": v for k, v in self.block(self, block).items()}
        if self.output_norm:
            tensors[f"{self.output_norm}.weight"] = (self.width,)
        if not self.tied:
            tensors["output.weight"] = embedding
        return tensors
