"""What a leader does next with a group whose engine it has started: pure.

The way there (the model, the workers, the attach) is a straight line in `Leader`, of which any
failure leads back to the beginning. From the engine's start on many things may happen at once, and
here is which of them counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from llamacluster.planning.reasons import GroupError, Reason

GATE_NOTICES_SECONDS = 2.5
"""After which the gate is sure to have seen, by its checks, that it must let nobody in."""


class Move(Enum):
    """What is done, unless the group is given up by a GroupError."""

    Wait = auto()
    """Look again in a moment."""
    Advance = auto()
    """What was waited for is there: the next step to Serving."""
    Drain = auto()
    """Take no new requests, let those that run finish, and look again."""
    Stop = auto()
    """The leader ends, and the engine with it."""


@dataclass(frozen=True)
class Seen:
    """What there is to see at one moment."""

    stop_at_once: bool = False
    """Told to stop, with nothing that would have to be finished."""
    lost: GroupError | None = None
    """A worker does not answer, or not under this epoch."""
    ended: GroupError | None = None
    """The engine has."""
    frozen: bool = False
    """The engine was stopped by a signal."""
    arrived: bool = False
    """The step that is under way is done; serving never is."""
    serving: bool = False
    """Requests are let in."""
    hung: GroupError | None = None
    """A load or requests are under way, and nothing works on them."""
    draining: bool = False
    """Told to stop."""
    drained: bool = False
    """Told to stop, and the last request has its answer or the time for it is over."""
    leaving: str | None = None
    """A worker that was told to stop."""
    leaving_seconds: float = 0.0
    """For how long that is known."""
    running: int = 0
    """Requests in the engine."""


def next_move(seen: Seen) -> Move | GroupError:
    """The first that applies. A GroupError: the group is unready at once, its engine is killed, and
    it forms anew."""
    if seen.stop_at_once:
        return Move.Stop
    if broken := seen.lost or seen.ended:
        return broken
    if seen.frozen:
        return GroupError(
            Reason.EngineHung,
            "the engine was stopped by a signal (SIGSTOP); the group forms anew",
        )
    if seen.hung:
        return seen.hung
    if seen.draining:
        return Move.Stop if seen.drained else Move.Wait
    if seen.leaving is None:
        return Move.Advance if seen.arrived else Move.Wait
    if seen.serving and (seen.running or seen.leaving_seconds < GATE_NOTICES_SECONDS):
        return Move.Drain
    return GroupError(
        Reason.WorkerLeaving,
        f"{seen.leaving} is being stopped; the group forms anew with its successor",
    )
