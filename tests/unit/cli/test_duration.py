"""Times on the command line."""

from __future__ import annotations

import click
import pytest

from llamacluster.cli.duration import Duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5_400),
        ("2d", 172_800),
        ("30", 30),
        ("0", 0),
        (1800, 1800),
    ],
)
def test_a_duration_is_read_as_seconds(text: object, seconds: int) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "m", "5 minutes", "1h30", "30m1h", "-5s", "1x"])
def test_what_is_none_is_told_what_one_is(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time such as 90s, 15m or 1h30m"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize("text", ["0", "0s", "0h0m", "59s"])
def test_one_that_is_too_short_is_told_the_least(text: str) -> None:
    with pytest.raises(click.BadParameter, match=f"'{text}' is less than 60s"):
        Duration(least_seconds=60).convert(text, None, None)
    assert Duration(least_seconds=60).convert("1m", None, None) == 60
