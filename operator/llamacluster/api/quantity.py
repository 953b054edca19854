"""Kubernetes quantities: `500m`, `2`, `1.5Gi`, `12e6`.

Grammar and meaning as in k8s.io/apimachinery/pkg/api/resource: binary suffixes are powers of 1024,
decimal ones powers of 1000, and there is nothing finer than 1 n (finer values round up).
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

QUANTITY_PATTERN = r"^\+?(\d+(\.\d*)?|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d{1,2})?$"
"""Non-negative quantities; a resource has no negative amount."""

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}
_PARTS = re.compile(QUANTITY_PATTERN, re.ASCII)
_LARGEST = 2**63 - 1


def parse_quantity(text: str | int) -> Decimal:
    """The number that a quantity stands for, in its base unit (bytes, cores).

    Raises ValueError for what Kubernetes would not accept.
    """
    match = _PARTS.fullmatch(str(text))
    if match is None:
        raise ValueError(
            f"{text!r} is not a quantity: write a number and perhaps a suffix, such as 500m or 2Gi"
        )
    number, suffix = Decimal(match[1]), match[3] or ""
    if suffix[:1] in ("e", "E") and len(suffix) > 1 and suffix not in _SUFFIXES:
        return number.scaleb(int(suffix[1:]))
    return number * _SUFFIXES[suffix]


def to_bytes(text: str | int) -> int:
    """Bytes of a memory or storage quantity, rounded up and capped as Kubernetes does."""
    return min(math.ceil(parse_quantity(text)), _LARGEST)


def to_millicpus(text: str | int) -> int:
    """Thousandths of a CPU, rounded up and capped as Kubernetes does."""
    return min(math.ceil(parse_quantity(text) * 1000), _LARGEST)


def mebibytes(count: int) -> str:
    """Quantity of at least `count` bytes, such as `13421Mi`."""
    return f"{-(-count // 2**20)}Mi"
