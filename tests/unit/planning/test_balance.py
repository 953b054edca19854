"""The heaviest worker is as light as it can be, whatever the layers weigh."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacluster.planning.balance import balanced

weights = st.lists(st.integers(0, 1000), min_size=1, max_size=9)


def all_splits(layers: int, workers: int) -> Iterator[list[int]]:
    for cuts in combinations(range(1, layers), workers - 1):
        yield [end - first for first, end in zip((0, *cuts), (*cuts, layers), strict=True)]


def loads(layers: list[int], split: list[int], extras: list[int]) -> list[int]:
    first, result = 0, []
    for count, extra in zip(split, extras, strict=True):
        result.append(sum(layers[first : first + count]) + extra)
        first += count
    return result


@given(weights, st.data())
def test_no_split_has_a_lighter_heaviest_worker_and_none_as_light_is_more_even(
    layers: list[int], data: st.DataObject
) -> None:
    workers = data.draw(st.integers(1, len(layers)))
    extras = data.draw(st.lists(st.integers(0, 500), min_size=workers, max_size=workers))

    split = balanced(layers, workers, lambda worker, _first, _last: extras[worker])

    def cost(each: list[int]) -> tuple[int, int]:
        found = loads(layers, each, extras)
        return max(found), sum(load * load for load in found)

    assert sum(split) == len(layers)
    assert min(split) >= 1
    assert cost(split) == min(map(cost, all_splits(len(layers), workers)))


def test_what_depends_on_the_layers_counts() -> None:
    # Whoever has layer 2 also needs 50 more, for example to receive its largest tensor.
    split = balanced([10] * 6, 2, lambda _, first, last: 50.0 * (first <= 2 <= last))
    assert split == [2, 4] or split == [3, 3]
    assert max(loads([10] * 6, split, [0, 0])) + 50 <= 90


@pytest.mark.parametrize("workers", [0, 4])
def test_no_worker_is_without_a_layer(workers: int) -> None:
    with pytest.raises(ValueError, match=f"3 layers cannot be spread over {workers} workers"):
        balanced([1, 1, 1], workers, lambda *_: 0)


def test_a_large_model_over_all_workers_is_quick_enough_to_count() -> None:
    # 127 layers, as Llama 405B has with the output layer.
    assert sum(balanced([3.0] * 127, 15, lambda *_: 1)) == 127
