"""Quantities mean what Kubernetes means by them."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacluster.api.quantity import (
    QUANTITY_PATTERN,
    mebibytes,
    parse_quantity,
    to_bytes,
    to_millicpus,
)

BINARY = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
DECIMAL = ["k", "M", "G", "T", "P", "E"]
suffixes = st.sampled_from(["", "n", "u", "m", *BINARY, *DECIMAL, "e3", "E3", "e-3", "E+2"])
numbers = st.decimals(0, 10**9, places=3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        (3, 3),
        ("500m", Decimal("0.5")),
        ("1.5Gi", 1.5 * 2**30),
        ("2G", 2 * 10**9),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("2e-3", Decimal("0.002")),
        ("+5", 5),
        (".5", Decimal("0.5")),
        ("5.", 5),
        ("100u", Decimal("0.0001")),
        ("7n", Decimal("7e-9")),
    ],
)
def test_a_quantity_is_this_number(text: str | int, value: Decimal | float) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "-1", "1 Gi", "1gi", "1K", "1kb", "1MB", "Gi", ".", "1e", "1e3Gi", "1.2.3", "0x10"),
        *("1,5", "\N{ARABIC-INDIC DIGIT ONE}", "1\n", "inf", "NaN", "1e100", "1_000"),
    ],
)
def test_what_kubernetes_refuses_is_refused_with_the_value(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text)) + " is not a quantity"):
        parse_quantity(text)


@given(numbers, suffixes)
def test_the_suffix_multiplies(number: Decimal, suffix: str) -> None:
    assert parse_quantity(f"{number}{suffix}") == number * parse_quantity(f"1{suffix}")


@given(st.integers(0, 5), numbers)
def test_each_suffix_is_the_next_power(power: int, number: Decimal) -> None:
    assert parse_quantity(f"{number}{BINARY[power]}") == number * 1024 ** (power + 1)
    assert parse_quantity(f"{number}{DECIMAL[power]}") == number * 1000 ** (power + 1)


@given(numbers, numbers, suffixes)
def test_order_is_that_of_the_numbers(one: Decimal, other: Decimal, suffix: str) -> None:
    first, second = parse_quantity(f"{one}{suffix}"), parse_quantity(f"{other}{suffix}")
    assert (one < other) == (first < second)


@given(st.text(max_size=8))
def test_the_pattern_of_the_crd_lets_through_what_can_be_parsed(text: str) -> None:
    try:
        parse_quantity(text)
    except ValueError:
        assert re.fullmatch(QUANTITY_PATTERN, text, re.ASCII) is None


@given(numbers, suffixes)
def test_bytes_are_rounded_up(number: Decimal, suffix: str) -> None:
    text = f"{number}{suffix}"
    largest = Decimal(2**63 - 1)
    assert 0 <= to_bytes(text) - min(parse_quantity(text), largest) < 1
    assert 0 <= to_millicpus(text) - min(parse_quantity(text) * 1000, largest) < 1


@given(st.integers(0, 2**63))
def test_mebibytes_hold_all_bytes_and_hardly_more(count: int) -> None:
    text = mebibytes(count)
    assert text.endswith("Mi")
    assert 0 <= parse_quantity(text) - count < 2**20
