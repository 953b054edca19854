"""The outcomes of faults as lines of 80 columns."""

from __future__ import annotations

from tests.chaos.strike import Outcome

HEAD = (
    f"{'':>4} {'fault':<32} {'noticed':>8} {'recovered':>10} {'load':>5} {'lost':>5} {'refused':>8}"
)


def row(number: int, outcome: Outcome) -> str:
    """One fault."""
    return (
        f"{number:>4} {outcome.name:<32} {_seconds(outcome.noticed):>8}"
        f" {_seconds(outcome.recovered):>10} {outcome.load:>5.1f} {outcome.lost:>5}"
        f" {outcome.refused:>8}"
    )


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"
