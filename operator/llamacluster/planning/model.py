"""What a model is made of: the bytes of each layer, from the tensor tables of its files.

Where the engine puts a tensor follows from its name: `blk.N.` is layer N, the token embeddings stay
in the leader, what prepares a token for all layers is with the first, and everything behind the
last layer is the output layer, the last worker's last. Layers that only guess further tokens ahead
(`nextn_predict_layers`, the last ones) count as layers, but the engine leaves their weights in the
file unless it is told to guess with them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from llamacluster.planning.gguf import GgufError, Header, Tensor

_BLOCK: Final = re.compile(r"(?:enc\.)?blk\.(\d+)\.")
_INPUT: Final = re.compile(
    r"(token_embd|token_embd_norm|token_types|position_embd|per_layer_token_embd)\."
)
_FIRST: Final = re.compile(r"(per_layer_model_proj|per_layer_proj_norm|rope_freqs|rope_factors_)")
_HEADLESS: Final = re.compile(r"bert|t5encoder")
"""Architectures that only embed: without an output matrix of their own they have none at all."""


@dataclass(frozen=True)
class Model:
    """A model as its headers tell it."""

    header: Header = field(repr=False)
    """Of its first file, which holds the parameters."""
    digest: str
    """Over the headers of all its files, 16 hex digits."""
    bytes: int
    """Of all tensors."""
    layer_bytes: tuple[int, ...]
    """Weights of each layer; the output layer is the last."""
    largest_tensor: tuple[int, ...]
    """Of each layer, in bytes."""
    input_bytes: int
    """Weights that stay in the leader: the token embeddings."""
    tensors: tuple[frozenset[str], ...] = field(repr=False)
    """Names in each layer without `blk.N.`; others as they are."""
    shapes: dict[str, tuple[int, ...]] = field(repr=False)

    @property
    def layers(self) -> int:
        """With the output layer."""
        return len(self.layer_bytes)

    def rows(self, name: str) -> int:
        """Numbers that come out of a matrix; 1 for a vector, 0 if there is no such tensor."""
        shape = self.shapes.get(name)
        if shape is None:
            return 0
        return shape[1] if len(shape) > 1 else 1

    def columns(self, name: str) -> int:
        """Numbers that go into a matrix; 0 if there is no such tensor."""
        return next(iter(self.shapes.get(name, ())), 0)


def guesses_ahead(extra_args: Sequence[str]) -> bool:
    """Whether the user's own arguments have the engine use the layers that guess ahead."""
    return any(
        flag.replace("_", "-") == "--spec-type" and "draft-mtp" in kinds.split(",")
        for flag, kinds in pairwise(extra_args)
    )


def model_of(headers: Sequence[Header], *, ahead: bool = False) -> Model:
    """The model that consists of files with these headers, in their order; `ahead`: with the
    weights of layers that guess further tokens.

    Raises GgufError if they do not make one whole model.
    """
    first = headers[0]
    if first.split_count != len(headers):
        raise GgufError(
            f"it is one of {first.split_count} files of its model, but {len(headers)} were found"
        )
    tensors: dict[str, Tensor] = {}
    for header in headers:
        for tensor in header.tensors:
            if tensor.name in tensors:
                raise GgufError(f"tensor {tensor.name!r} is in two files of the model")
            tensors[tensor.name] = tensor
    output = first.block_count
    sizes, largest = [0] * (output + 1), [0] * (output + 1)
    names: list[set[str]] = [set() for _ in sizes]
    input_bytes = 0
    skipped = output if ahead else output - (first.number("nextn_predict_layers") or 0)
    for tensor in tensors.values():
        if _INPUT.match(tensor.name):
            input_bytes += tensor.bytes
            continue
        if tensor.name.startswith("dec.blk."):
            raise GgufError(
                "it has an encoder and a decoder, which llama-server does not serve; take a model"
                " that only decodes, as most do"
            )
        block = _BLOCK.match(tensor.name)
        layer = int(block[1]) if block else 0 if _FIRST.match(tensor.name) else output
        if block and layer >= output:
            raise GgufError(f"tensor {tensor.name!r} is beyond the {output} layers of the header")
        if skipped <= layer < output:
            continue
        sizes[layer] += tensor.bytes
        largest[layer] = max(largest[layer], tensor.bytes)
        names[layer].add(tensor.name[block.end() :] if block else tensor.name)
    embedding = tensors.get("token_embd.weight")
    if embedding and "output.weight" not in tensors and not _HEADLESS.search(first.architecture):
        # The output layer takes the embeddings: the last worker gets a copy of them.
        sizes[output] += embedding.bytes
        largest[output] = max(largest[output], embedding.bytes)
    digest = hashlib.sha256("".join(header.digest for header in headers).encode())
    return Model(
        header=first,
        digest=digest.hexdigest()[:16],
        bytes=sum(tensor.bytes for tensor in tensors.values()),
        layer_bytes=tuple(sizes),
        largest_tensor=tuple(largest),
        input_bytes=input_bytes,
        tensors=tuple(frozenset(each) for each in names),
        shapes={name: tensor.shape for name, tensor in tensors.items()},
    )
