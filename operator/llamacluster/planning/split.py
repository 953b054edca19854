"""Which worker holds which layers, and how the engine is told.

llama.cpp's `--tensor-split` takes one weight per device. It turns the running sums of the weights
into fractions, in 32-bit floats, and gives layer `il` of `act` offloaded layers to the first device
whose fraction is greater than `il / act` (`std::upper_bound` in `llama_model::load_tensors`). The
output layer counts as the last layer.

A boundary right at a layer holds only while two divisions round alike, so the weights here put each
boundary half a layer before the next device's first layer: no rounding moves it that far.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

MAX_WORKERS: Final = 15
"""The engine's limit of RPC endpoints: at 16 it aborts."""


def tensor_split(counts: Sequence[int]) -> list[float]:
    """The weights for `--tensor-split` that give each device exactly its count of layers."""
    if not counts or min(counts) < 1:
        raise ValueError(f"every device needs at least one layer, got {list(counts)}")
    weights = [float(count) for count in counts]
    if len(weights) > 1:
        weights[0] -= 0.5
        weights[-1] += 0.5
    return weights


def assigned_device(weights: Sequence[float], block_count: int) -> list[int]:
    """The device of each layer, the output layer last, as the engine computes it when all layers
    are offloaded (`-ngl` greater than `block_count`)."""
    sums = list(accumulate(map(_float32, weights), lambda a, b: _float32(a + b)))
    fractions = [_float32(value / sums[-1]) for value in sums]
    layers = block_count + 1
    return [bisect_right(fractions, _float32(layer / layers)) for layer in range(layers)]


def _float32(value: float) -> float:
    """`value` rounded to a 32-bit float. Rounding a sum or quotient of two such floats that was
    computed in 64 bits gives the very result of 32-bit arithmetic (Figueroa, 1995)."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded
