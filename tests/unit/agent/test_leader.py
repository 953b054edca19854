"""The life of a group, with fakes at its edges."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from itertools import count
from pathlib import Path
from threading import Event, Thread

import pytest

from llamacluster.agent.contract.messages import LeaderStatus, Phase
from llamacluster.agent.contract.options import LeaderOptions
from llamacluster.agent.contract.places import METRICS, READYZ, SERVING, WELCOMING
from llamacluster.agent.drain import Drain
from llamacluster.agent.fetch import ModelStore
from llamacluster.agent.leader import Leader
from llamacluster.agent.log import Log
from llamacluster.agent.source import Web
from llamacluster.agent.status import FAILURE_SHOWN_SECONDS, GroupStatus
from llamacluster.agent.workers import worker_hosts
from llamacluster.planning.gguf import read_header
from llamacluster.planning.model import model_of
from llamacluster.planning.reasons import GroupError, Reason
from tests.model import Shape, write
from tests.unit.agent.fakes import (
    BUILD,
    HELD,
    FakeHttp,
    FakeLauncher,
    FakePeers,
    FakeSockets,
    FastClock,
)
from tests.unit.agent.realtime import PATIENCE_SECONDS


class Running:
    """A leader of two workers."""

    def __init__(self, root: Path) -> None:
        self.model = root / "model.gguf"
        write(self.model, Shape(layers=4))
        self.peers = FakePeers()
        self.launcher = FakeLauncher()
        self.http = FakeHttp()
        self.sockets = FakeSockets()
        self.gate_asks = True
        self.log = StringIO()
        self.thread: Thread | None = None

    def start(
        self,
        layers: tuple[int, ...] = (3, 2),
        extra_args: tuple[str, ...] = (),
        model_bytes: int | None = None,
    ) -> None:
        clock, log, stopping = FastClock(), Log("leader", self.log), Event()
        self.clock = clock
        folder = self.model.parent
        self.leader = Leader(
            LeaderOptions(
                *(f"file://{self.model}", layers, 1024, 2),
                extra_args=extra_args,
                model_bytes=model_bytes,
            ),
            "x-0.x.ns",
            "llama-server",
            threads=1,
            build=BUILD,
            status=GroupStatus("x-0", BUILD, 1, None, clock),
            store=ModelStore(folder, folder, folder, log, stopping, Web()),
            peers=self.peers,
            launcher=self.launcher,
            http=self.http,
            sockets=self.sockets,
            held_memory=lambda _: HELD,
            drain=Drain(300, clock),
            pool=ThreadPoolExecutor(3),
            clock=clock,
            log=log,
            stopping=stopping,
            since=1,
        )
        self.thread = Thread(target=self.leader.run)
        self.thread.start()

    def serving(self) -> int:
        """What the gate is told when it asks."""
        return self.leader.routes()[f"GET {SERVING}"](b"").code

    def welcoming(self) -> int:
        """The same, for those who ask it for its health."""
        return self.leader.routes()[f"GET {WELCOMING}"](b"").code

    def ready(self) -> int:
        return self.leader.routes()[f"GET {READYZ}"](b"").code

    def status(self) -> LeaderStatus:
        if self.gate_asks:
            self.serving()
            self.welcoming()
        return self.leader._status.snapshot()

    def until(self, look: Callable[[LeaderStatus], object]) -> LeaderStatus:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not look(status := self.status()):
            assert time.monotonic() < deadline, (status, self.log.getvalue()[-3000:])
        return status

    def until_ended(self) -> None:
        assert self.thread is not None
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive()

    def until_reason(self, reason: Reason) -> LeaderStatus:
        return self.until(lambda status: status["reason"] == reason)

    def until_formed(self, times: int = 1) -> LeaderStatus:
        return self.until(lambda s: s["reason"] == "Ready" and s["formations"] == times)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    it = Running(tmp_path)
    yield it
    if it.thread:
        it.leader.stop()
        it.leader.stop()
        it.thread.join(PATIENCE_SECONDS)
        assert not it.thread.is_alive()
        assert all(child.exit_code() is not None for _, child in it.launcher.started)


def test_a_group_forms_and_says_so(running: Running) -> None:
    running.start()
    status = running.until_formed()
    assert running.http.asked == 1
    assert [row["attached"] for row in status["workers"]] == [True, True]
    assert {request["epoch"] for request in running.peers.attached} == {status["epoch"]}
    assert [row["layers"] for row in status["placement"]] == [3, 2]
    assert status["model"] is not None
    assert (status["model"]["layers"], status["model"]["architecture"]) == (4, "llama")
    assert running.leader.routes()[f"GET {READYZ}"](b"").code == 200


def test_the_engine_is_told_everything_explicitly(running: Running) -> None:
    running.start(extra_args=("--threads", "7"))
    running.until_formed()
    argv = " ".join(running.launcher.started[0][0])
    for flag in (
        "--rpc addr-x-0-1:50052,addr-x-0-2:50052",
        "--fit off",
        "--n-gpu-layers 5",
        "--tensor-split 2.5,2.5",
        "--ctx-size 2048 --parallel 2",
        "--cache-ram 0",
        "--alias model",
    ):
        assert flag in argv
    assert argv.endswith("--threads 7")


def test_an_engine_that_is_frozen_is_replaced(running: Running) -> None:
    running.start()
    running.until_formed()
    running.launcher.last.frozen = True
    assert "SIGSTOP" in running.until_reason(Reason.EngineHung)["message"]
    running.until_formed(2)
    assert len(running.launcher.started) == 2


def is_replaced_for_its_hang(running: Running) -> str:
    """The engine of a group that is formed answers nothing; what is said of it."""
    running.http.responsive = False
    message = running.until_reason(Reason.EngineHung)["message"]
    running.http.responsive = True
    running.until_formed(2)
    return message


def test_an_engine_that_hangs_is_replaced(running: Running) -> None:
    running.start()
    running.until_formed()
    assert "nor any worker works on it" in is_replaced_for_its_hang(running)


def test_an_engine_that_answers_and_gets_no_further_is_replaced(running: Running) -> None:
    running.start()
    running.until_formed()
    running.http.gets_on = False
    message = running.until_reason(Reason.EngineHung)["message"]
    assert "nor any worker works on it" in message
    running.http.gets_on = True
    running.until_formed(2)


def test_clients_that_have_prompts_tokenized_do_not_hide_a_hang(running: Running) -> None:
    running.start()
    running.until_formed()
    running.launcher.last.cpu_seconds = count().__next__  # type: ignore[method-assign]
    is_replaced_for_its_hang(running)


def test_a_long_step_in_the_leader_alone_is_no_hang(running: Running) -> None:
    running.start()
    running.until_formed()
    running.launcher.last.main_cpu_seconds = count().__next__  # type: ignore[method-assign]
    running.http.responsive = False
    began = running.clock.monotonic()
    running.until(lambda _: running.clock.monotonic() > began + 600)
    assert running.status()["reason"] == "Ready"
    running.http.responsive = True


def test_a_first_token_that_does_not_come_is_a_hang(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    comes = Event()
    monkeypatch.setattr(running.http, "make_first_token", lambda *_: comes.wait(20))
    running.http.responsive = False
    running.start()
    running.until_reason(Reason.EngineHung)
    running.http.responsive = True
    comes.set()
    running.until_formed()


def test_a_load_that_stands_still_is_begun_anew(running: Running) -> None:
    running.http.healthy = False
    running.start()
    message = running.until_reason(Reason.EngineHung)["message"]
    assert re.search(r"the load has stood still for 6\d s", message)
    running.http.healthy = True
    running.until_formed()
    assert running.launcher.started[0][1].exit_code() == 137  # no grace: it hangs


def test_metrics_are_told_without_asking_the_engine(running: Running) -> None:
    running.start()
    running.until_formed()
    route = running.leader.routes()[f"GET {METRICS}"]
    text = ""
    while "llamacpp:requests_processing 1" not in text:  # from the first look for signs of life
        text = str(route(b"").body)
    assert 'kv_cache_tokens{slots="busy"} 7' in text
    running.http.responsive = False
    running.until_reason(Reason.EngineHung)
    answer = route(b"")
    assert answer.code == 200
    assert "llamacluster_group_ready 0" in str(answer.body)
    running.http.responsive = True
    running.until_formed(2)
    assert 'recoveries_total{reason="EngineHung"} 1' in str(route(b"").body)


def test_a_missing_worker_is_named(running: Running) -> None:
    running.peers.nameless.add("x-0-2")
    running.start()
    status = running.until_reason(Reason.WaitingForWorkers)
    assert status["message"] == "1 of 2 workers missing: x-0-2: its name has no address yet"
    assert running.leader.routes()[f"GET {READYZ}"](b"").code == 503
    running.peers.nameless.clear()
    running.until_formed()


def test_a_worker_of_another_build_is_refused_and_then_taken(running: Running) -> None:
    running.peers.builds["x-0-2"] = {"version": "0.6.0", "build": "bbbb"}
    running.start()
    message = running.until_reason(Reason.EngineMismatch)["message"]
    assert "the leader has llama.cpp 0.7.0 [aaaa] but x-0-2 has 0.6.0 [bbbb]" in message
    assert not running.launcher.started
    running.peers.builds.clear()
    running.until_formed()


def test_a_restarted_rpc_server_is_a_lost_worker(running: Running) -> None:
    running.start()
    first = running.until_formed()
    running.peers.epochs["x-0-2"] = None
    second = running.until_formed(2)
    assert "lost x-0-2: message of x-0-2; the group forms anew" in running.log.getvalue()
    assert second["epoch"] != first["epoch"]
    assert first["lastRecovery"] is None
    recovery = second["lastRecovery"]
    assert recovery is not None
    assert recovery["reason"] == "WorkerLost"
    assert recovery["seconds"] > 0
    assert running.launcher.started[0][1].exit_code() == 137  # no grace: it may hang


def test_a_silent_worker_is_lost(running: Running) -> None:
    running.start()
    running.until_formed()
    running.peers.silent.add("x-0-1")
    running.until_reason(Reason.WaitingForWorkers)
    assert "lost x-0-1: its agent does not answer" in running.log.getvalue()
    running.peers.silent.clear()
    running.until_formed(2)


def test_an_engine_that_lost_its_worker_names_the_worker(running: Running) -> None:
    running.start()
    running.until_formed()
    running.peers.silent.add("x-0-2")
    running.launcher.last.say("./ggml-rpc.cpp:685: Remote RPC server crashed")
    running.launcher.last.end(134)
    running.until(lambda status: status["reason"] != "Ready")
    running.until_reason(Reason.WaitingForWorkers)
    assert "lost x-0-2" in running.log.getvalue()
    running.peers.silent.clear()


def test_a_bad_flag_stays_said_while_it_is_tried_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the fake clock runs on between two steps of a try.
    monkeypatch.setattr("llamacluster.agent.status.FAILURE_SHOWN_SECONDS", 1e9)

    def refuse(child: object) -> None:
        running.launcher.last.say("error: invalid argument: --nonsense")
        running.launcher.last.end(1)

    running.launcher.begin = refuse
    running.start()
    first = running.until_reason(Reason.EngineBadFlag)
    seen = set()
    while len(running.launcher.started) < 6:
        seen.add(running.status()["reason"])
    assert seen == {"EngineBadFlag"}
    assert running.status()["since"] == first["since"]
    assert running.status()["phase"] == "Failed"
    running.launcher.begin = lambda _: None
    running.until_formed()


def test_loads_that_fail_each_time_are_tried_less_and_less(running: Running) -> None:
    def load_long_and_fail(child: object) -> None:
        running.leader._clock.wait(Event(), 100)
        running.launcher.last.say("out of memory")
        running.launcher.last.end(1)

    running.launcher.begin = load_long_and_fail
    running.start()
    while len(running.launcher.started) < 5:
        time.sleep(0.001)
    waits = [float(wait) for wait in re.findall(r"retry_seconds=([\d.]+)", running.log.getvalue())]
    assert waits[3] > 2 * waits[0]


def test_a_group_that_has_served_is_formed_anew_at_once_however_often_it_is_lost(
    running: Running,
) -> None:
    running.start()
    for times in range(1, 7):
        running.until_formed(times)
        served_until = running.clock.monotonic() + 30
        while running.clock.monotonic() < served_until:
            time.sleep(0.001)
        running.launcher.last.end(137)
    running.until_formed(7)
    waits = [float(wait) for wait in re.findall(r"retry_seconds=([\d.]+)", running.log.getvalue())]
    assert len(waits) == 6
    assert max(waits) <= 0.5


def test_no_first_token_is_no_ready(running: Running) -> None:
    running.http.token = GroupError(Reason.EngineFailed, "no token")
    running.start()
    running.until_reason(Reason.EngineFailed)
    assert running.status()["formations"] == 0
    running.http.token = None
    running.until_formed()


def test_a_model_that_is_cut_off_is_told_and_heals(running: Running) -> None:
    whole = running.model.read_bytes()
    running.model.write_bytes(whole[:-1000])
    running.start()
    message = running.until_reason(Reason.ModelInvalid)["message"]
    assert f"has {len(whole) - 1000} bytes but its header speaks of {len(whole)}" in message
    running.model.write_bytes(whole)
    running.until_formed()


def test_a_file_that_is_no_model_is_told(running: Running) -> None:
    running.model.write_bytes(b"<html>not found</html>")
    running.start()
    assert "begins with b'<htm'" in running.until_reason(Reason.ModelInvalid)["message"]


def test_another_model_than_the_planned_one_is_refused(running: Running) -> None:
    running.start(layers=(3, 3))
    message = running.until_reason(Reason.ModelChanged)["message"]
    assert "model.gguf has 4 layers and an output layer, but the plan is for 6" in message


def test_a_model_of_another_quantisation_than_the_planned_one_is_refused(
    running: Running,
) -> None:
    weights = bytes_of(running.model)
    running.start(model_bytes=2 * weights)
    message = running.until_reason(Reason.ModelChanged)["message"]
    assert f"has {weights} bytes of weights, but the plan is for {2 * weights}" in message


def test_the_planned_model_is_served(running: Running) -> None:
    running.start(model_bytes=bytes_of(running.model))
    running.until_formed()


def bytes_of(model: Path) -> int:
    with model.open("rb") as file:
        return model_of([read_header(file)]).bytes


def test_what_the_engines_hold_is_told(running: Running) -> None:
    running.start()
    running.until_formed()
    # Its own comes with the next look of another thread.
    status = running.until(
        lambda status: all(row["memory"] for row in (status, *status["workers"]))
    )
    assert [row["memory"] for row in status["workers"]] == [HELD, HELD]
    assert status["memory"] == HELD


def test_stop_makes_unready_and_ends_the_engine_gently(running: Running) -> None:
    running.start()
    running.until_formed()
    running.sockets.listens = False
    running.leader.stop()
    assert running.status()["phase"] == "Draining"
    running.until_ended()
    assert running.launcher.last.exit_code() == 128 + 15


# Draining.


def test_ready_means_that_the_gate_lets_in(running: Running) -> None:
    running.gate_asks = False
    running.start()
    running.until(lambda status: status["message"] == "waiting for the gate to let requests in")
    assert running.ready() == 503
    assert running.serving() == 200
    began = running.clock.monotonic()
    running.until(lambda _: running.clock.monotonic() > began + 60)
    assert running.ready() == 503  # that it has asked the one is not enough
    assert running.welcoming() == 200
    running.until_formed()
    assert running.ready() == 200
    running.sockets.listens = False
    assert running.ready() == 503


def test_the_engine_stays_until_the_gate_has_let_its_last_client_go(running: Running) -> None:
    running.start()
    running.until_formed()
    running.sockets.clients = 1
    running.leader.stop()
    assert (running.ready(), running.welcoming()) == (503, 503)
    assert running.serving() == 200  # who waits in the gate goes on
    running.sockets.listens = False
    began = running.clock.monotonic()
    running.until(lambda _: running.clock.monotonic() > began + 60)
    assert running.launcher.last.exit_code() is None
    running.sockets.clients = 0
    running.until_ended()


def test_a_worker_that_is_lost_while_it_drains_ends_it(running: Running) -> None:
    running.start()
    running.until_formed()
    running.sockets.clients = 1
    running.leader.stop()
    running.peers.epochs["x-0-2"] = None
    running.until_ended()
    assert len(running.launcher.started) == 1


def test_the_end_of_the_grace_ends_a_drain(running: Running) -> None:
    running.start()
    running.until_formed()
    running.sockets.clients, running.sockets.listens = 1, False
    with running.clock.held():
        began = running.clock.monotonic()
        running.leader.stop()
    running.until_ended()
    assert 290 < running.clock.monotonic() - began < 300


def test_told_twice_it_stops_at_once(running: Running) -> None:
    running.start()
    running.until_formed()
    running.sockets.clients, running.sockets.listens = 1, False
    running.leader.stop()
    running.leader.stop()
    running.until_ended()


def test_a_leader_that_is_told_alone_turns_new_requests_away(running: Running) -> None:
    """A failed liveness probe: the gate is told nothing and goes on."""
    running.start()
    running.until_formed()
    running.sockets.running = 1
    running.leader.stop()
    running.until(lambda _: running.serving() == 503)
    assert running.launcher.last.exit_code() is None
    running.sockets.running = 0
    running.until_ended()


def test_a_worker_that_leaves_lets_running_requests_finish(running: Running) -> None:
    running.start()
    running.until_formed()
    running.sockets.running = 1
    running.peers.stopping.add("x-0-2")
    status = running.until(lambda status: status["phase"] == "Draining")
    assert status["reason"] == "WorkerLeaving"
    assert status["message"].startswith("x-0-2 is being stopped: 1 running requests finish")
    assert (running.ready(), running.serving(), running.welcoming()) == (503, 503, 503)
    began = running.clock.monotonic()
    running.until(lambda _: running.clock.monotonic() > began + 60)
    assert running.launcher.last.exit_code() is None
    running.sockets.running = 0
    waiting = running.until_reason(Reason.WaitingForWorkers)
    assert "x-0-2: its pod is being stopped" in waiting["message"]
    running.peers.stopping.clear()
    running.until_formed(2)


def test_a_group_that_is_told_to_stop_serves_on_whichever_pod_is_told_first(
    running: Running,
) -> None:
    running.start()
    running.until_formed()
    running.sockets.running = running.sockets.clients = 1
    running.peers.stopping |= {"x-0-1", "x-0-2"}
    running.until(lambda status: status["phase"] == "Draining")
    running.leader.stop()
    assert running.serving() == 200
    running.sockets.listens, running.sockets.clients = False, 0
    running.until_ended()
    assert len(running.launcher.started) == 1


def test_stop_works_while_it_waits(running: Running) -> None:
    running.peers.nameless.add("x-0-1")
    running.start()
    running.until_reason(Reason.WaitingForWorkers)


def test_names_of_the_workers_come_from_the_leaders_address() -> None:
    assert worker_hosts("x-3.sub.ns", 2) == ("x-3", ["x-3-1.sub.ns", "x-3-2.sub.ns"])


def test_a_failure_gives_way_to_a_try_that_lasts() -> None:
    clock = FastClock()
    status = GroupStatus("x-0", BUILD, 1, None, clock)
    status.fail(GroupError(Reason.EngineFailed, "ended"))
    status.begin_try()
    status.enter(Phase.Waiting, Reason.WaitingForWorkers, "waiting")
    assert status.snapshot()["reason"] == "EngineFailed"
    clock.wait(Event(), FAILURE_SHOWN_SECONDS)
    assert status.snapshot()["reason"] == "WaitingForWorkers"
