"""Whatever a header says, there is a plan or a clear error, soon."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacluster.planning.account import Settings
from llamacluster.planning.formula import Formula
from llamacluster.planning.gguf import GgufError, Scalar
from llamacluster.planning.model import model_of
from llamacluster.planning.plan import Planner, Wanted
from llamacluster.planning.reasons import GroupError
from tests.unit.planning.test_model import header_of

SMALL = ("gpt-oss-20b", "granite-4.0-h-tiny", "qwen3-8b")
scalars = st.integers(0, 1 << 63) | st.floats() | st.booleans() | st.text(max_size=3)
shapes = st.lists(st.integers(0, 1 << 20).map(lambda n: n * 256), max_size=4).map(tuple)


@given(
    name=st.sampled_from(SMALL),
    other_values=st.dictionaries(st.integers(0, 30), scalars, max_size=4),
    other_shapes=st.dictionaries(st.integers(0, 300), shapes, max_size=4),
    workers=st.integers(1, 15),
    memory=st.integers(1, 1 << 45) | st.none(),
)
def test_damage_gives_a_plan_or_a_clear_error(
    name: str,
    other_values: dict[int, Scalar],
    other_shapes: dict[int, tuple[int, ...]],
    workers: int,
    memory: int | None,
) -> None:
    header = header_of(name)
    keys, values, tensors = sorted(header.values), dict(header.values), list(header.tensors)
    for index, value in other_values.items():
        values[keys[index % len(keys)]] = value
    for index, shape in other_shapes.items():
        tensors[index % len(tensors)] = replace(tensors[index % len(tensors)], shape=shape)
    with suppress(GgufError, GroupError):
        model = model_of([replace(header, values=values, tensors=tuple(tensors))])
        wanted = Wanted(None if memory else workers, memory)
        Planner(model, Formula(model)).plan(wanted, Settings(4096, 2))


def test_an_absurd_number_of_layers_takes_no_memory() -> None:
    header = header_of("qwen3-8b")
    values = {**header.values, "qwen3.block_count": 1 << 31}
    with pytest.raises(GgufError, match="claims 2147483648 layers, more than 512"):
        model_of([replace(header, values=values)])
