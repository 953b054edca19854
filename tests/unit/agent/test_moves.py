"""Every combination of what a leader may see has the right next move."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from llamacluster.agent.moves import GATE_NOTICES_SECONDS, Move, Seen, next_move
from llamacluster.planning.reasons import GroupError, Reason

LOST = GroupError(Reason.WorkerLost, "lost x-0-1")
ENDED = GroupError(Reason.EngineFailed, "ended with 1")
HUNG = GroupError(Reason.EngineHung, "hangs")
NO_YES = (False, True)


def everything() -> Iterator[Seen]:
    for stop, lost, ended, frozen, arrived, serving, hung in product(NO_YES, repeat=7):
        for draining, leaving, long, running in product(NO_YES, NO_YES, NO_YES, (0, 1)):
            for drained in NO_YES if draining else (False,):
                yield Seen(
                    stop_at_once=stop,
                    lost=LOST if lost else None,
                    ended=ENDED if ended else None,
                    frozen=frozen,
                    arrived=arrived,
                    serving=serving,
                    hung=HUNG if hung else None,
                    draining=draining,
                    drained=drained,
                    leaving="x-0-2" if leaving else None,
                    leaving_seconds=GATE_NOTICES_SECONDS if leaving and long else 0.0,
                    running=running,
                )


def test_told_to_stop_at_once_nothing_keeps_it() -> None:
    assert {next_move(seen) for seen in everything() if seen.stop_at_once} == {Move.Stop}


def test_told_to_stop_it_takes_no_further_step_and_ends_when_it_is_drained() -> None:
    for seen in everything():
        if seen.draining and not seen.stop_at_once:
            move = next_move(seen)
            assert move not in (Move.Advance, Move.Drain)
            if not isinstance(move, GroupError):
                assert move is (Move.Stop if seen.drained else Move.Wait)


def test_whatever_is_broken_gives_the_group_up_unless_it_stops() -> None:
    for seen in everything():
        broken = seen.lost or seen.ended or seen.frozen or seen.hung
        if broken and not seen.stop_at_once:
            assert isinstance(next_move(seen), GroupError)


def test_a_lost_worker_is_told_before_what_it_makes_of_the_engine() -> None:
    for seen in everything():
        if seen.lost and not seen.stop_at_once:
            assert next_move(seen) is LOST


def test_it_advances_only_when_all_is_well() -> None:
    for seen in everything():
        if next_move(seen) is Move.Advance:
            assert seen.arrived
            broken = seen.lost or seen.ended or seen.frozen or seen.hung
            ending = seen.draining or seen.leaving or seen.stop_at_once
            assert not broken
            assert not ending


def test_a_worker_that_leaves_is_let_go_when_the_last_request_has_ended() -> None:
    for seen in everything():
        if seen.leaving and not (
            seen.stop_at_once
            or seen.draining
            or seen.lost
            or seen.ended
            or seen.frozen
            or seen.hung
        ):
            move = next_move(seen)
            noticed = seen.leaving_seconds >= GATE_NOTICES_SECONDS
            if seen.serving and (seen.running or not noticed):
                assert move is Move.Drain
            else:
                assert isinstance(move, GroupError)
                assert move.reason is Reason.WorkerLeaving
