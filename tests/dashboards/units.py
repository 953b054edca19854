"""Numbers with their units as Grafana writes them, and the ticks of an axis."""

from __future__ import annotations

import math
from collections.abc import Callable

DECIMAL = (1, 2, 5)
SECONDS = (
    *(15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600 * hours for hours in (1, 2, 3, 6, 12, 24, 48, 72)),
    *(604800 * weeks for weeks in (1, 2, 4, 8, 13, 26, 52)),
)
"""Round numbers of them."""
SPANS = (
    (1e-6, 1e-9, "ns"),
    (1e-3, 1e-6, "µs"),
    (1, 1e-3, "ms"),
    (60, 1, "s"),
    (3600, 60, "min"),
    (86400, 3600, "hour"),
    (604800, 86400, "day"),
    (31536000, 604800, "week"),
    (math.inf, 31556900, "year"),
)
"""Below which number of seconds a time is told in a unit of how many seconds."""


def _scaled(factor: int, *suffixes: str) -> Callable[[float], tuple[float, str]]:
    def scale(value: float) -> tuple[float, str]:
        power = 0
        while abs(value) >= factor ** (power + 1) and power < len(suffixes) - 1:
            power += 1
        return value / factor**power, suffixes[power]

    return scale


def _counted(unit: str) -> Callable[[float], tuple[float, str]]:
    return _scaled(1000, *(f"{prefix} {unit}" for prefix in ("", "K", "M", "B", "T")))


def _time(seconds: float) -> tuple[float, str]:
    if not seconds:
        return 0, " s"
    return next((seconds / one, f" {name}") for most, one, name in SPANS if abs(seconds) < most)


UNITS: dict[str, Callable[[float], tuple[float, str]]] = {
    "short": _scaled(1000, "", " K", " Mil", " Bil", " Tri"),
    "bytes": _scaled(1024, " B", " KiB", " MiB", " GiB", " TiB", " PiB"),
    "percentunit": lambda value: (100 * value, "%"),
    "reqps": _counted("req/s"),
    "ops": _counted("ops/s"),
    "s": _time,
    # None that Grafana knows, and so only written behind the number.
    "tokens/s": lambda value: (value, " tokens/s"),
}


def formatted(value: float, unit: str) -> str:
    """With three significant digits, or as the whole number that it is."""
    number, suffix = UNITS[unit](value)
    whole = math.isclose(number, round(number), rel_tol=1e-9)
    decimals = 0 if whole else max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{number:.{decimals}f}{suffix}"


def tick(value: float, unit: str) -> str:
    """With no more digits than it needs."""
    number, suffix = UNITS[unit](value)
    return f"{number:.6g}{suffix}"


def ticks(least: float, most: float, unit: str, number: int, *, whole: bool = False) -> list[float]:
    """At most so many round values from `least` to `most`; only whole numbers if asked for."""
    step = _step((most - least) / max(1, number - 1), unit)
    if whole:
        step = max(1, step)
    first = math.ceil(least / step - 1e-9)
    last = math.floor(most / step + 1e-9)
    return [step * index for index in range(first, last + 1)]


def _step(least: float, unit: str) -> float:
    """The smallest round step that is not below `least`."""
    if unit == "bytes":
        return 2.0 ** max(0, math.ceil(math.log2(least)))
    if unit == "s" and least > 10:
        return next((one for one in SECONDS if one >= least), least)
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * one for one in (*DECIMAL, 10) if power * one >= least * (1 - 1e-9))
