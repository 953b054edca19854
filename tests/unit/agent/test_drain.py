"""How long a part goes on that was told to stop."""

from __future__ import annotations

from threading import Event

from hypothesis import given
from hypothesis import strategies as st

from llamacluster.agent.drain import Drain
from tests.unit.agent.fakes import FastClock


def test_it_is_over_when_the_work_is() -> None:
    drain = Drain(300, FastClock())
    assert not drain.is_over(busy=False)
    drain.tell()
    assert not drain.is_over(busy=True)
    assert drain.is_over(busy=False)


def test_told_again_it_is_over_at_once() -> None:
    drain = Drain(300, FastClock())
    drain.tell()
    drain.tell()
    assert drain.is_over(busy=True)


@given(grace=st.integers(1, 86_400))
def test_it_is_over_before_the_kubelet_kills(grace: int) -> None:
    clock = FastClock()
    drain = Drain(grace, clock)
    assert grace / 2 <= drain.seconds < grace
    assert 0 < drain.linger_seconds <= drain.seconds / 5
    drain.tell()
    clock.wait(Event(), drain.seconds / 2)
    assert drain.has_begun
    assert not drain.is_at_its_end
    clock.wait(Event(), drain.seconds)
    assert drain.is_over(busy=True)
    assert drain.lasts >= drain.seconds
