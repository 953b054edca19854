"""One fault: made, noticed, taken back, recovered from; and judged."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos import bounds
from tests.chaos.faults import Fault, Kind, Target
from tests.chaos.laws import Span, first_law, second_law, third_law
from tests.chaos.witness import Witness
from tests.kind.faults import wait_until

INJECTED_SECONDS = 120.0
HELD_SECONDS = 3.0
"""A fault that lasts, lasts so long after it was noticed."""


@dataclass
class Outcome:
    """What a fault did. Times in seconds, None for what never came."""

    name: str
    noticed: float | None = None
    """From the fault until the group said that it does not serve."""
    recovered: float | None = None
    """From when the cause was gone until the group was Ready and answered."""
    load: float = 0.0
    """In which the engine loaded the model."""
    lost: int = 0
    """Requests that were begun and not finished."""
    refused: int = 0
    """Requests that were told to come again."""
    done: int = 0
    broken: list[str] = field(default_factory=list)


def strike(target: Target, kind: Kind, witness: Witness, patience: float = 1.0) -> Outcome:
    """Let a group live through a fault. All bounds are so many times as long."""
    outcome = Outcome(kind.name)
    fault = kind.make(target)
    witness.operator_is_away = kind.hides == "operator"
    try:
        began = _injected(fault)
        _live_through(kind, fault, witness, began, patience, outcome)
    finally:
        fault.undo()
        witness.operator_is_away = False
    outcome.load = witness.load_seconds()
    most = bounds.RECOVERED_SECONDS + outcome.load + kind.more + witness.held_seconds(began)
    outcome.broken += third_law(kind.name, outcome.recovered, patience * most)
    answers = [answer for answer in witness.answers if answer.ended >= began]
    outcome.broken += first_law(witness.unjudged())
    during = Span(began, time.time())
    outcome.broken += second_law(answers, witness.ready(), during, patience * kind.noticed)
    for answer in answers:
        outcome.lost += answer.outcome == "lost"
        outcome.refused += answer.outcome == "refused"
        outcome.done += answer.outcome == "done"
    return outcome


def _injected(fault: Fault) -> float:
    """When the fault was made. On a busy machine a group may recover from more than was done to it,
    and be without the program that is to be struck, although nobody says so yet."""
    began = 0.0

    def is_made() -> bool:
        nonlocal began
        began = time.time()
        try:
            fault.inject()
        except LookupError:
            fault.undo()
            return False
        return True

    wait_until("there is what is to be struck", is_made, INJECTED_SECONDS)
    return began


def _live_through(
    kind: Kind, fault: Fault, witness: Witness, began: float, patience: float, outcome: Outcome
) -> None:
    struck = time.time()
    noticed = _until(lambda: witness.is_noticed(since=began), patience * kind.noticed)
    if noticed is None:
        return
    outcome.noticed = max(0.0, noticed - struck)
    gone = struck
    if kind.lasts:
        time.sleep(HELD_SECONDS)
        fault.undo()
        gone = time.time()
    most = bounds.RECOVERED_SECONDS + kind.more + bounds.GIVEN_UP_SECONDS
    whole = _until(lambda: witness.is_whole(since=max(gone, noticed)), most)
    if whole is not None:
        outcome.recovered = max(0.0, whole - gone)
    else:
        outcome.broken.append(witness.live.scene())


def _until(look: Callable[[], float | None], seconds: float) -> float | None:
    """What is seen within so many seconds."""
    deadline = time.monotonic() + seconds
    while (seen := look()) is None and time.monotonic() < deadline:
        time.sleep(0.1)  # between two looks at a condition
    return seen
