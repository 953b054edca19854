"""Numbers are written as Grafana writes them."""

from __future__ import annotations

import pytest

from tests.dashboards.units import UNITS, formatted, tick, ticks


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "short", "0"),
        (3, "short", "3"),
        (0.0343, "short", "0.0343"),
        (12.34, "short", "12.3"),
        (1500, "short", "1.50 K"),
        (2_000_000, "short", "2 Mil"),
        (512, "bytes", "512 B"),
        (1536, "bytes", "1.50 KiB"),
        (74 << 30, "bytes", "74 GiB"),
        (2.5 * 2**80, "bytes", "2684354560 PiB"),
        (0.667, "percentunit", "66.7%"),
        (1, "percentunit", "100%"),
        (0.0187, "reqps", "0.0187 req/s"),
        (1200, "reqps", "1.20K req/s"),
        (0.5, "ops", "0.500 ops/s"),
        (14.26, "tokens/s", "14.3 tokens/s"),
        (0, "s", "0 s"),
        (5e-5, "s", "50 µs"),
        (0.075, "s", "75 ms"),
        (59.5, "s", "59.5 s"),
        (103, "s", "1.72 min"),
        (7200, "s", "2 hour"),
        (-311040, "s", "-3.60 day"),
        (29 * 86400, "s", "4.14 week"),
        (2 * 31556900, "s", "2 year"),
    ],
)
def test_a_number_and_its_unit(value: float, unit: str, text: str) -> None:
    assert formatted(value, unit) == text


@pytest.mark.parametrize(
    ("least", "most", "unit", "texts"),
    [
        (0, 22, "tokens/s", [f"{n} tokens/s" for n in (0, 5, 10, 15, 20)]),
        (0, 1, "percentunit", ["0%", "20%", "40%", "60%", "80%", "100%"]),
        (0, 23 << 30, "bytes", ["0 B", "4 GiB", "8 GiB", "12 GiB", "16 GiB", "20 GiB"]),
        (0, 0.11, "s", ["0 s", "20 ms", "40 ms", "60 ms", "80 ms", "100 ms"]),
        (0, 110, "s", ["0 s", "30 s", "1 min", "1.5 min"]),
        (-7, 5, "short", ["-6", "-4", "-2", "0", "2", "4"]),
    ],
)
def test_ticks_are_round(least: float, most: float, unit: str, texts: list[str]) -> None:
    assert [tick(one, unit) for one in ticks(least, most, unit, 7)] == texts


def test_what_is_counted_has_whole_ticks() -> None:
    assert ticks(0, 1.1, "short", 7, whole=True) == [0, 1]


@pytest.mark.parametrize("unit", UNITS)
def test_there_are_never_more_ticks_than_asked_for(unit: str) -> None:
    for power in range(-6, 13):
        for first in (1, 1.9, 4.7, 9.99):
            assert 1 <= len(ticks(0, first * 10.0**power, unit, 7)) <= 7
