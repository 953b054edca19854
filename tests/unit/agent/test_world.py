"""The life of a group in a world in which everything may happen at any time.

Hypothesis chooses what happens to the pods; the agents are the real ones. Whatever it was, the laws
hold throughout, and once it is over the group serves again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llamacluster.agent.contract import Phase
from llamacluster.agent.leader import MOST_BACKOFF_SECONDS
from llamacluster.planning.reasons import GroupError, Reason
from tests.model import Shape, write
from tests.unit.agent.world import GRACE_SECONDS, LOAD_SECONDS, World

NOTICED_SECONDS = 32.0
"""A hung engine with two looks of 10 s and what lies between them; the others much sooner."""
BACK_SECONDS = MOST_BACKOFF_SECONDS + LOAD_SECONDS + 60.0
"""The longest wait before a try, an attach that runs into its time, and the load."""

WORKERS = st.sampled_from(["x-0-1", "x-0-2"])


class Life(RuleBasedStateMachine):
    """One group."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        model = Path(self.folder.name) / "model.gguf"
        write(model, Shape(layers=4))
        self.world = World(model)

    # What happens.

    @rule(seconds=st.sampled_from([0.5, 3, 12, 70]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds, self.look)

    @rule(name=WORKERS, code=st.sampled_from([0, 134, 137]))
    def an_rpc_server_ends(self, name: str, code: int) -> None:
        for child in self.world.workers[name].alive:
            child.end(code)

    @rule(name=WORKERS)
    def an_rpc_server_freezes(self, name: str) -> None:
        for child in self.world.workers[name].alive:
            child.frozen = True

    @rule(name=WORKERS)
    def a_worker_is_cut_off_or_back(self, name: str) -> None:
        pod = self.world.workers[name]
        pod.reached = not pod.reached

    @rule(name=WORKERS)
    def a_worker_stands_still_or_goes_on(self, name: str) -> None:
        pod = self.world.workers[name]
        pod.answers = not pod.answers

    @rule(name=WORKERS)
    def a_workers_pod_is_replaced(self, name: str) -> None:
        self.world.end(self.world.workers[name])
        self.world.make_worker(name)

    @rule(name=WORKERS)
    def a_worker_is_told_to_stop(self, name: str) -> None:
        self.world.tell(self.world.workers[name])

    @rule(name=WORKERS)
    def a_worker_that_has_ended_is_replaced(self, name: str) -> None:
        if self.world.workers[name].has_ended:
            self.world.make_worker(name)

    @rule(code=st.sampled_from([1, 134, 137]))
    def the_engine_ends(self, code: int) -> None:
        for child in self.world.leader.alive:
            child.say("./ggml-rpc.cpp:685: Remote RPC server crashed" if code == 134 else "bye")
            child.end(code)

    @rule()
    def the_engine_freezes(self) -> None:
        for child in self.world.leader.alive:
            child.frozen = True

    @rule()
    def the_engine_hangs(self) -> None:
        self.world.leader.http.hangs = bool(self.world.leader.alive)

    @rule(fails=st.booleans())
    def first_tokens_fail_or_come(self, fails: bool) -> None:
        error = GroupError(Reason.EngineFailed, "no token") if fails else None
        self.world.leader.http.token = error

    @rule(running=st.integers(0, 2))
    def requests_come_and_go(self, running: int) -> None:
        sockets = self.world.leader.sockets
        sockets.running = sockets.clients = running

    @rule()
    def the_leaders_pod_is_replaced(self) -> None:
        self.world.end(self.world.leader)
        self.world.make_leader()

    @precondition(lambda self: len(self.world.leaders) == 1)
    @rule()
    def the_leaders_node_is_lost_and_it_is_replaced(self) -> None:
        """The old one still runs, and may be reached again."""
        self.world.leader.reached = False
        self.world.make_leader()

    @precondition(lambda self: len(self.world.leaders) > 1)
    @rule()
    def the_lost_leader_is_reached_again(self) -> None:
        self.world.leaders[0].reached = True

    @precondition(lambda self: len(self.world.leaders) > 1)
    @rule()
    def the_kubelet_ends_the_lost_leader(self) -> None:
        self.world.end(self.world.leaders[0])

    @rule(running=st.integers(0, 1))
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
                world.end(lost)
            world.leader.http.token, world.leader.http.hangs = None, False
            for child in world.leader.alive:
                child.frozen = False
            for name, pod in list(world.workers.items()):
                pod.reached = pod.answers = True
                if pod.has_ended or pod.drain.has_begun:
                    world.end(pod)
                    world.make_worker(name)
            world.leader.sockets.running = world.leader.sockets.clients = 0
            world.pass_time(BACK_SECONDS, self.look)
            assert world.leader.is_ready, world.log.getvalue()[-4000:]
            assert world.is_whole()
        finally:
            for pod in (world.leader, *world.workers.values()):
                world.tell(pod)
                world.tell(pod)
            world.clock.pass_time(GRACE_SECONDS)
            left = [pod.name for pod in world.pods if not pod.has_ended]
            self.folder.cleanup()
        assert not left, f"told to stop, and still there: {left}"


Life.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLife = pytest.mark.filterwarnings("error")(Life.TestCase)
