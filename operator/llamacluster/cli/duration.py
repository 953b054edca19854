"""Times on the command line, as kubectl takes them: `90s`, `15m`, `1h30m`, or plain seconds."""

from __future__ import annotations

import re
from typing import Any

import click

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PARTS = re.compile("".join(rf"(?:(\d+){unit})?" for unit in _UNITS))


class Duration(click.ParamType[int]):
    """A time, in whole seconds, of at least `least_seconds`."""

    name = "duration"

    def __init__(self, least_seconds: int = 0) -> None:
        self._least_seconds = least_seconds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Seconds; click's failure for what is no duration, or too short."""
        text = str(value)
        seconds = _seconds(text)
        if seconds is None:
            self.fail(f"{text!r} is no time such as 90s, 15m or 1h30m", param, ctx)
        if seconds < self._least_seconds:
            self.fail(f"{text!r} is less than {self._least_seconds}s", param, ctx)
        return seconds


def _seconds(text: str) -> int | None:
    if text.isdecimal():
        return int(text)
    found = _PARTS.fullmatch(text)
    if not found or not text:
        return None
    counts = (int(part or 0) for part in found.groups())
    return sum(count * size for count, size in zip(counts, _UNITS.values(), strict=True))
