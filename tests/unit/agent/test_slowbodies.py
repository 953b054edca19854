"""Who sends a body too slowly is cut off, and nobody else."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from llamacluster.agent.haproxy import Runtime
from llamacluster.agent.log import Log
from llamacluster.agent.slowbodies import SlowBodies
from tests.unit.agent.fakes import FastClock


class FakeRuntime(Runtime):
    """An HAProxy with these unfinished bodies. `tests/engine/test_gate.py` has the real one."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.runs = True
        self.bodies: dict[str, str] = {}
        self.cut: list[str] = []

    def unfinished_bodies(self) -> dict[str, str]:
        if not self.runs:
            raise ConnectionRefusedError
        return dict(self.bodies)

    def cut_off(self, session: str) -> None:
        self.cut.append(session)


def looked(bodies: SlowBodies, clock: FastClock, seconds: int) -> None:
    for _ in range(seconds):
        bodies.look()
        clock._seconds += 1


def test_a_body_has_a_minute() -> None:
    runtime, clock = FakeRuntime(), FastClock()
    bodies = SlowBodies(runtime, clock, Log("gate", StringIO()))
    runtime.bodies = {"0x1": "10.0.0.1:5"}
    looked(bodies, clock, 50)
    runtime.bodies["0x2"] = "10.0.0.2:5"
    assert runtime.cut == []
    looked(bodies, clock, 12)
    assert runtime.cut == ["0x1"]


def test_another_client_in_the_same_place_has_its_own_minute() -> None:
    runtime, clock = FakeRuntime(), FastClock()
    bodies = SlowBodies(runtime, clock, Log("gate", StringIO()))
    for client in ("10.0.0.1:5", "10.0.0.1:6", "10.0.0.1:7"):
        runtime.bodies = {"0x1": client}
        looked(bodies, clock, 55)
    assert runtime.cut == []


def test_an_haproxy_that_does_not_run_has_no_bodies() -> None:
    runtime, clock = FakeRuntime(), FastClock()
    runtime.runs = False
    looked(SlowBodies(runtime, clock, Log("gate", StringIO())), clock, 100)
    assert runtime.cut == []
