"""The laws that hold whatever goes wrong, as judgements over what was seen. Pure.

1. Every greedy answer that is completed is the oracle's, token for token.
2. A group is never Ready while a probe gets no token for longer than its faults take to be noticed.
3. After a fault, the group is Ready again within the time to load the model and 30 s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Answer:
    """What became of one request. Times are seconds of the machine's clock."""

    kind: str
    began: float
    first: float | None
    """When its first token came."""
    ended: float
    outcome: str
    """`done`, `wrong`, `refused` (told to come again) or `lost` (begun, and not finished)."""
    detail: str


@dataclass(frozen=True)
class Span:
    """A time during which something was so."""

    began: float
    ended: float

    def shared_with(self, other: Span) -> float:
        """Seconds that both have."""
        return max(0.0, min(self.ended, other.ended) - max(self.began, other.began))


def first_law(answers: Iterable[Answer]) -> list[str]:
    """The completed answers that are wrong."""
    return [
        f"law 1: a completed answer is not the oracle's: {answer.detail}"
        for answer in answers
        if answer.outcome == "wrong"
    ]


def second_law(
    answers: Iterable[Answer], ready: Sequence[Span], during: Span, most: float
) -> list[str]:
    """The times without a token through which the group was Ready for longer than `most`."""
    firsts = (answer.first for answer in answers if answer.kind == "probe")
    tokens = sorted(first for first in firsts if first is not None and first >= during.began)
    broken = []
    for silence in (Span(*ends) for ends in pairwise([during.began, *tokens, during.ended])):
        longest = max((span.shared_with(silence) for span in ready), default=0.0)
        if longest > most:
            broken.append(
                f"law 2: Ready for {longest:.1f} s without a token for a probe, and {most:.0f} s"
                " are the most"
            )
    return broken


def third_law(name: str, recovered: float | None, most: float) -> list[str]:
    """Whether the group was Ready again in time."""
    if recovered is None or recovered > most:
        took = "not Ready again" if recovered is None else f"Ready again after {recovered:.1f} s"
        return [f"law 3: {name}: {took}, and {most:.0f} s are the most"]
    return []
