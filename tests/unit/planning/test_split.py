"""Layers are spread as wanted, by the engine's own rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacluster.planning.split import assigned_device, tensor_split

counts = st.lists(st.integers(1, 200), min_size=1, max_size=15)


@given(counts)
def test_the_weights_give_every_device_exactly_its_count(wanted: list[int]) -> None:
    devices = assigned_device(tensor_split(wanted), sum(wanted) - 1)
    assert [devices.count(device) for device in range(len(wanted))] == wanted


@given(counts)
def test_layers_stay_in_order(wanted: list[int]) -> None:
    devices = assigned_device(tensor_split(wanted), sum(wanted) - 1)
    assert devices == sorted(devices)


@given(counts, st.floats(-0.4, 0.4))
def test_a_boundary_bears_an_error_of_almost_half_a_layer(wanted: list[int], error: float) -> None:
    weights = tensor_split(wanted)
    shifted = [weights[0] + error, *weights[1:]]
    shifted[-1] -= error
    devices = assigned_device(shifted, sum(wanted) - 1)
    assert [devices.count(device) for device in range(len(wanted))] == wanted


def test_weights_as_they_are_given_to_the_engine() -> None:
    assert tensor_split([8, 9, 8]) == [7.5, 9, 8.5]


def test_a_single_device_gets_everything() -> None:
    assert tensor_split([25]) == [25]


def test_a_device_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        tensor_split([5, 0, 5])
