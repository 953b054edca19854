"""Cuts a row of layers into one run per worker so that the heaviest run is as light as can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf


def balanced(
    layers: Sequence[float], workers: int, extra: Callable[[int, int, int], float]
) -> list[int]:
    """Layers per worker: the split whose heaviest worker is the lightest, and of all such splits
    the most even one (the least sum of squares).

    A worker weighs the sum of its `layers` and `extra(worker, first, last)`: what depends on its
    place or on which layers it has. Raises ValueError if there are more workers than layers.
    """
    count = len(layers)
    if not 1 <= workers <= count:
        raise ValueError(f"{count} layers cannot be spread over {workers} workers")
    sums = [0.0]
    for layer in layers:
        sums.append(sums[-1] + layer)
    weights = [
        {
            (first, end): sums[end] - sums[first] + extra(worker, first, end - 1)
            for first in _firsts(worker, count)
            for end in range(first + 1, count - (workers - worker - 1) + 1)
        }
        for worker in range(workers)
    ]
    heaviest, _ = _best(weights, count, max, inf)
    _, ends = _best(weights, count, lambda so_far, weight: so_far + weight * weight, heaviest)
    return [end - first for first, end in zip([0, *ends], ends, strict=False)]


def _firsts(worker: int, count: int) -> range:
    """Where the run of `worker` can begin: each worker before it has at least one layer."""
    return range(1) if worker == 0 else range(worker, count)


def _best(
    weights: Sequence[dict[tuple[int, int], float]],
    count: int,
    join: Callable[[float, float], float],
    most: float,
) -> tuple[float, list[int]]:
    """The least joined weight over all splits whose workers weigh at most `most`, and where the
    runs of that split end. Dynamic programming over (worker, end of its run)."""
    reached: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
    for runs in weights:
        following: dict[int, tuple[float, list[int]]] = {}
        for (first, end), weight in runs.items():
            if first not in reached or weight > most:
                continue
            so_far, ends = reached[first]
            value = join(so_far, weight)
            if end not in following or value < following[end][0]:
                following[end] = (value, [*ends, end])
        reached = following
    return reached[count]
