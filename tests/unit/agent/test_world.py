"""The life of a group in a world in which everything may happen at any time.

Hypothesis chooses what happens to the pods; the agents are the real ones. Whatever it was, the laws
hold throughout, and once it is over the group serves again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llamacluster.agent.contract.messages import Phase
from llamacluster.agent.contract.places import DEFAULT_HUNG_ENGINE_SECONDS
from llamacluster.agent.leader import MOST_BACKOFF_SECONDS
from llamacluster.agent.pulse import LOADING_TIMES
from llamacluster.planning.reasons import GroupError, Reason
from tests.model import Shape, write
from tests.unit.agent.world import GRACE_SECONDS, LOAD_SECONDS, LeaderPod, World

NOTICED_SECONDS = 32.0
"""A hung engine with two looks of 10 s and what lies between them; the others much sooner."""
BACK_SECONDS = MOST_BACKOFF_SECONDS + LOAD_SECONDS + 60.0
"""The longest wait before a try, an attach that runs into its time, and the load."""
STALL_SECONDS = LOADING_TIMES * DEFAULT_HUNG_ENGINE_SECONDS
"""A load that stands still."""

WORKERS = st.sampled_from(["x-0-1", "x-0-2"])


def happens(**choices: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule after which some time passes: none, or enough to notice, or to recover."""

    def as_rule(change: Callable[..., None]) -> Any:
        def changed(self: Life, seconds: float, **chosen: Any) -> None:
            change(self, **chosen)
            self.world.pass_time(seconds, self.look)

        changed.__name__ = change.__name__
        with_time: Any = rule  # whose overloads know no further choice beside given ones
        return with_time(seconds=st.sampled_from([0.0, 1.0, 6.0, 45.0]), **choices)(changed)

    return as_rule


class Life(RuleBasedStateMachine):
    """One group."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        model = Path(self.folder.name) / "model.gguf"
        write(model, Shape(layers=4))
        self.world = World(model)
        self.world.pass_time(10)
        assert self.world.leader.is_ready

    # What happens.

    @happens(name=WORKERS, code=st.sampled_from([0, 134, 137]))
    def an_rpc_server_ends(self, name: str, code: int) -> None:
        for child in self.world.workers[name].alive:
            child.end(code)

    @happens(name=WORKERS)
    def an_rpc_server_freezes(self, name: str) -> None:
        for child in self.world.workers[name].alive:
            child.frozen = True

    @happens(name=WORKERS)
    def a_worker_is_cut_off_or_back(self, name: str) -> None:
        pod = self.world.workers[name]
        pod.reached = not pod.reached

    @happens(name=WORKERS)
    def a_worker_stands_still_or_goes_on(self, name: str) -> None:
        pod = self.world.workers[name]
        pod.answers = not pod.answers

    @happens(name=WORKERS)
    def a_workers_pod_is_replaced(self, name: str) -> None:
        self.world.end(self.world.workers[name])
        self.world.make_worker(name)

    @happens(name=WORKERS)
    def a_worker_is_told_to_stop(self, name: str) -> None:
        self.world.tell(self.world.workers[name])

    @happens(name=WORKERS)
    def a_worker_that_has_ended_is_replaced(self, name: str) -> None:
        if self.world.workers[name].has_ended:
            self.world.make_worker(name)

    @happens(code=st.sampled_from([1, 134, 137]))
    def the_engine_ends(self, code: int) -> None:
        for child in self.world.leader.alive:
            child.say("./ggml-rpc.cpp:685: Remote RPC server crashed" if code == 134 else "bye")
            child.end(code)

    @happens()
    def the_engine_freezes(self) -> None:
        for child in self.world.leader.alive:
            child.frozen = True

    @happens()
    def the_engine_hangs(self) -> None:
        self.world.leader.http.hangs = bool(self.world.leader.alive)

    @happens()
    def the_load_stands_still(self) -> None:
        """From now on, if one is under way, else from when it has begun."""
        self.world.leader.http.stalls = True

    @happens(fails=st.booleans())
    def first_tokens_fail_or_come(self, fails: bool) -> None:
        error = GroupError(Reason.EngineFailed, "no token") if fails else None
        self.world.leader.http.token = error

    @happens(running=st.integers(0, 2))
    def requests_come_and_go(self, running: int) -> None:
        sockets = self.world.leader.sockets
        sockets.running = sockets.clients = running

    @happens()
    def the_leaders_pod_is_replaced(self) -> None:
        self.world.end(self.world.leader)
        self.world.make_leader()

    @precondition(lambda self: len(self.world.leaders) == 1)
    @happens()
    def the_leaders_node_is_lost_and_it_is_replaced(self) -> None:
        """The old one still runs, and may be reached again."""
        self.world.leader.reached = False
        self.world.pass_time(1)  # of two that started in one millisecond none is the younger
        self.world.make_leader()

    @precondition(lambda self: len(self.world.leaders) > 1)
    @happens()
    def the_lost_leader_is_reached_again(self) -> None:
        self.world.leaders[0].reached = True

    @precondition(lambda self: len(self.world.leaders) > 1)
    @happens()
    def the_kubelet_ends_the_lost_leader(self) -> None:
        self.world.end(self.world.leaders[0])

    @happens(running=st.integers(0, 1))
    def the_leader_is_told_to_stop_and_ends(self, running: int) -> None:
        pod = self.world.leader
        pod.sockets.running = pod.sockets.clients = running
        self.world.tell(pod)
        assert not pod.is_ready
        self.world.pass_time(GRACE_SECONDS, self.look)
        assert pod.has_ended
        assert not pod.alive
        self.world.remove(pod)
        self.world.make_leader()

    # What holds throughout.

    @invariant()
    def look(self) -> None:
        world = self.world
        for pod in world.pods:
            assert pod.error is None
            assert len(pod.alive) <= 1, f"{pod.name} runs its engine twice"
        if world.leader.is_ready:
            broken = world.broken_since
            now = world.clock.monotonic()
            assert broken is None or now - broken <= NOTICED_SECONDS, world.log.getvalue()[-4000:]
        for leader in world.leaders:
            if leader.status.snapshot()["phase"] in (Phase.Waiting, Phase.Attaching):
                assert not leader.alive, "an engine runs while its group forms"

    @invariant()
    def becoming_ready_takes_all_workers_under_the_current_epoch(self) -> None:
        leader = self.world.leader
        if leader.is_ready:
            epoch = leader.status.epoch
            last = {name: got for name, got in self.world.attached if got == epoch}
            assert last.keys() == self.world.workers.keys()

    def teardown(self) -> None:
        """Once nothing more happens, the group serves, and then ends when it is told to."""
        world = self.world
        try:
            for lost in world.leaders[:-1]:
                lost.reached = True  # it takes itself for the leader, and changes nothing
            world.leader.http.token, world.leader.http.hangs = None, False
            for child in world.leader.alive:
                child.frozen = False
            for name, worker in list(world.workers.items()):
                worker.reached = worker.answers = True
                if worker.has_ended or worker.drain.has_begun:
                    world.end(worker)
                    world.make_worker(name)
            world.leader.sockets.running = world.leader.sockets.clients = 0
            world.pass_time(STALL_SECONDS + BACK_SECONDS, self.look)
            assert world.leader.is_ready, world.log.getvalue()[-4000:]
            assert world.is_whole()
        finally:
            for pod in (*world.leaders, *world.workers.values()):
                world.tell(pod)
                world.tell(pod)
            world.clock.pass_time(GRACE_SECONDS)
            left = [pod.name for pod in world.pods if not pod.has_ended]
            self.folder.cleanup()
        assert not left, f"told to stop, and still there: {left}"


Life.TestCase.settings = settings(
    max_examples=10, stateful_step_count=10, suppress_health_check=list(HealthCheck)
)
TestLife = Life.TestCase


# The same world, one fault at a time: how soon it is noticed, and that it heals.


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    write(tmp_path / "model.gguf", Shape(layers=4))
    made = World(tmp_path / "model.gguf")
    made.pass_time(10)
    assert made.leader.is_ready
    yield made
    for pod in made.pods:
        made.tell(pod)
        made.tell(pod)
    made.clock.pass_time(GRACE_SECONDS)
    assert all(pod.has_ended and not pod.alive for pod in made.pods)


def _kill_worker(world: World) -> None:
    world.workers["x-0-2"].alive[0].end(137)


def _freeze_worker(world: World) -> None:
    world.workers["x-0-2"].alive[0].frozen = True


def _cut_worker_off(world: World) -> None:
    world.workers["x-0-2"].reached = False


def _stop_whole_worker(world: World) -> None:
    world.workers["x-0-2"].answers = False


def _replace_worker(world: World) -> None:
    world.end(world.workers["x-0-2"])
    world.make_worker("x-0-2")


def _kill_engine(world: World) -> None:
    world.leader.alive[0].end(137)


def _freeze_engine(world: World) -> None:
    world.leader.alive[0].frozen = True


def _hang_engine(world: World) -> None:
    world.leader.http.hangs = True


@pytest.mark.parametrize("requests", [0, 2], ids=["idle", "busy"])
@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (_kill_worker, 5),
        (_freeze_worker, 5),
        (_cut_worker_off, 15),
        (_stop_whole_worker, 15),
        (_replace_worker, 5),
        (_kill_engine, 1),
        (_freeze_engine, 5),
        (_hang_engine, NOTICED_SECONDS),
    ],
)
def test_a_fault_is_noticed_in_time_and_heals(
    world: World, fault: Callable[[World], None], seconds: float, requests: int
) -> None:
    world.leader.sockets.running = world.leader.sockets.clients = requests
    engine = world.leader.alive[0]
    epoch = world.leader.status.epoch
    fault(world)
    unready: list[float] = []
    began = world.clock.monotonic()

    def look() -> None:
        if not world.leader.is_ready:
            unready.append(world.clock.monotonic() - began)

    world.pass_time(seconds, look)
    assert unready
    assert engine.exit_code() is not None
    for pod in world.workers.values():
        pod.reached = pod.answers = True
    world.pass_time(BACK_SECONDS)
    assert world.leader.is_ready
    assert world.is_whole()
    assert world.leader.status.epoch != epoch


@pytest.mark.parametrize(
    "fault", [_kill_worker, _freeze_worker, _cut_worker_off, _stop_whole_worker, _freeze_engine]
)
def test_a_fault_during_a_load_is_noticed_in_time_and_heals(
    world: World, fault: Callable[[World], None]
) -> None:
    world.leader.alive[0].end(137)
    world.pass_time(2)
    [engine] = world.leader.alive
    world.leader.http.stalls = True
    fault(world)
    world.pass_time(15)
    assert engine.exit_code() is not None
    for pod in world.workers.values():
        pod.reached = pod.answers = True
    world.pass_time(BACK_SECONDS)
    assert world.leader.is_ready
    assert world.is_whole()


def test_a_load_that_stands_still_is_begun_anew(world: World) -> None:
    world.leader.alive[0].end(137)
    world.pass_time(2)
    world.leader.http.stalls = True
    began = len(world.leader.launcher.started)
    world.pass_time(STALL_SECONDS - 2)
    assert len(world.leader.launcher.started) == began
    world.pass_time(4)
    assert world.leader.status.snapshot()["reason"] == Reason.EngineHung
    world.pass_time(BACK_SECONDS)
    assert world.leader.is_ready


# Two pods that take themselves for the leader.


def _lose_the_leaders_node(world: World, clock_is_behind_seconds: float = 0) -> LeaderPod:
    """The former leader, which goes on where nobody reaches it. It has a successor, whose node's
    clock may be behind."""
    former = world.leader
    former.reached = False
    world.pass_time(40)
    world.make_leader(clock_is_behind_seconds)
    return former


def test_a_leader_that_comes_back_takes_nothing_from_its_successor(world: World) -> None:
    former = _lose_the_leaders_node(world)
    world.pass_time(20)
    assert world.leader.is_ready
    epoch = world.leader.status.epoch
    former.reached = True

    def look() -> None:
        assert world.leader.is_ready
        assert world.leader.status.epoch == epoch
        assert not former.alive
        assert not former.is_ready

    world.pass_time(15)
    world.pass_time(600, look)
    assert "with a leader that started after this one" in former.status.summary


def test_a_leader_that_comes_back_takes_no_new_worker_for_long(world: World) -> None:
    former = _lose_the_leaders_node(world)
    world.pass_time(20)
    former.reached = True
    for name in list(world.workers):
        world.end(world.workers[name])
        world.make_worker(name)
        world.pass_time(BACK_SECONDS)
        assert world.leader.is_ready
        assert world.is_whole()
        epoch = world.leader.status.epoch
        world.pass_time(120)
        assert world.leader.status.epoch == epoch


def test_clocks_that_differ_keep_a_successor_out_only_while_the_former_is_there(
    world: World,
) -> None:
    former = _lose_the_leaders_node(world, clock_is_behind_seconds=3600)
    world.pass_time(30)
    assert world.leader.is_ready, "nobody reaches the former"
    former.reached = True
    world.pass_time(120)
    world.end(former)  # its kubelet has learned that it is gone
    world.pass_time(BACK_SECONDS)
    assert world.leader.is_ready
    assert world.is_whole()


def test_a_drain_ends_with_the_grace_whatever_runs(world: World) -> None:
    pod = world.leader
    pod.sockets.running = pod.sockets.clients = 1
    world.tell(pod)
    world.pass_time(GRACE_SECONDS / 2)
    assert pod.alive, "a request is finished"
    world.pass_time(GRACE_SECONDS / 2)
    assert pod.has_ended
    assert not pod.alive


def test_a_group_that_cannot_serve_is_tried_for_ever_but_not_too_often(world: World) -> None:
    world.leader.http.token = GroupError(Reason.EngineFailed, "no token")
    world.leader.alive[0].end(1)
    world.pass_time(300)
    tries = len(world.leader.launcher.started)
    world.pass_time(600)
    more = len(world.leader.launcher.started) - tries
    cycle = MOST_BACKOFF_SECONDS + LOAD_SECONDS + 1
    assert 600 / cycle - 1 <= more <= 600 / (0.75 * MOST_BACKOFF_SECONDS) + 1
    world.leader.http.token = None
    world.pass_time(BACK_SECONDS)
    assert world.leader.is_ready
