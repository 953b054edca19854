"""The gate in front of a real engine: what it lets through, how many, and how it drains."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread

import pytest

from llamacluster.agent.contract.options import GateOptions
from llamacluster.agent.contract.places import READYZ
from tests.engine.group import Group, eventually
from tests.engine.test_group import GREEDY, LONG_OPTIONS, OPTIONS, NewGroup, whole
from tests.model import SENTENCE

pytestmark = pytest.mark.engine

SLOW = {**GREEDY, "stream": True, "n_predict": 600, "ignore_eos": True}
"""A stream of some seconds: the sentence, and then again and again."""
LONG = {**SLOW, "n_predict": 2000}
"""One that takes longer than the gate lingers."""
AT_ONCE_SECONDS = 60
"""On a busy machine; the grace is 300."""


@pytest.fixture(scope="module")
def serving(shared_groups: NewGroup) -> Group:
    group = whole(shared_groups())
    group.until("Ready")
    return group


class Stream:
    """A streamed completion, read token by token in a thread."""

    def __init__(
        self,
        group: Group,
        body: dict[str, object] = SLOW,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.tokens: list[str] = []
        self.finished = False
        self.error: Exception | None = None
        self._connection = connect(group)
        self._connection.request("POST", "/completion", json.dumps(body), headers or {})
        self.response = self._connection.getresponse()
        assert self.response.status == 200, self.response.read()
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for line in self.response:
                if line.startswith(b"data: "):
                    event = json.loads(line.removeprefix(b"data: "))
                    self.tokens.append(event["content"])
                    self.finished = event["stop"]
        except (OSError, http.client.HTTPException) as error:
            self.error = error

    def whole(self) -> str:
        self._thread.join(600)
        assert self.finished, self.error
        return "".join(self.tokens)

    def close(self) -> None:
        assert self._connection.sock is not None
        self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)  # it reads until the shutdown ends that
        self._connection.close()


def connect(group: Group) -> http.client.HTTPConnection:
    host, _, port = group.leader.url(8080).removeprefix("http://").partition(":")
    return http.client.HTTPConnection(host, int(port), timeout=60)


@pytest.fixture(scope="module")
def trickled(shared_groups: NewGroup) -> Iterator[Future[str]]:
    """A body that trickles in, and a stream beside it, in a group of their own: it takes a minute,
    in which nothing happens, so it begins with the first test and ends with the last."""
    group = whole(shared_groups())
    group.until("Ready")
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(_trickle, group)


def _trickle(group: Group) -> str:
    """What the gate said when the body was cut off. Two slots: one for it, one for the stream."""
    trickle = connect(group)
    trickle.putrequest("POST", "/completion")
    trickle.putheader("Content-Length", str(100_000))
    trickle.endheaders()
    assert trickle.sock is not None
    trickle.sock.sendall(b" " * 30_000)  # more than HAProxy waits for before it gives a slot
    stream = Stream(group)

    def is_cut_off() -> bool:
        assert trickle.sock is not None
        try:
            trickle.sock.send(b" ")
        except OSError:
            return True
        time.sleep(1)  # between two bytes
        return False

    eventually(is_cut_off, 150)
    stream.whole()
    return group.gate.log()


@pytest.mark.usefixtures("trickled")  # from here on
def test_paths_that_are_not_the_apis_are_closed(serving: Group) -> None:
    for path in (
        *("/metrics", "/slots", "/props", "/lora-adapters", "/tools", "/", "/nothing"),
        *("/v1/streams/lookup", "/v1/../slots", "/%73lots", "//slots", "/v1/models/../../slots"),
    ):
        code, body = serving.leader.get(path, 8080)
        assert (path, code) == (path, 404)
        assert json.loads(body)["error"]["type"] == "invalid_request_error"
    for path in ("/props", "/slots/0?action=erase", "/lora-adapters", "/models/load", "/v1/models"):
        assert serving.leader.post(path, {}, 8080)[0] == 404


def test_paths_of_the_api_are_open(serving: Group) -> None:
    assert serving.leader.get("/health", 8080) == (200, '{"status":"ok"}')
    for path in ("/v1/models", "/models", "/v1/models?x=y"):
        code, body = serving.leader.get(path, 8080)
        assert (path, code) == (path, 200)
        assert "tiny" in body
    assert serving.ask("/tokenize", {"content": "Hi"})["tokens"]
    assert serving.ask("/completion", GREEDY)["content"] == SENTENCE


def test_one_connection_carries_many_requests(serving: Group) -> None:
    connection = connect(serving)
    used = set()
    for _ in range(3):
        connection.request("POST", "/completion", json.dumps(GREEDY))
        answer = connection.getresponse()
        assert json.loads(answer.read())["content"] == SENTENCE
        assert connection.sock is not None
        used.add(connection.sock.getsockname())
    assert len(used) == 1


def test_tokens_come_one_by_one(serving: Group) -> None:
    began = time.monotonic()
    stream = Stream(serving)
    eventually(lambda: stream.tokens)
    first = time.monotonic() - began
    stream.whole()
    whole_time = time.monotonic() - began
    assert first < whole_time / 3


def test_bodies_are_bounded(serving: Group) -> None:
    connection = connect(serving)
    connection.putrequest("POST", "/completion")
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection = connect(serving)
    connection.request("POST", "/completion", iter([b"{}"]), encode_chunked=True)
    assert connection.getresponse().status == 411


def test_a_thousand_clients_with_half_a_body_do_not_break_the_gate(serving: Group) -> None:
    clients = []
    for _ in range(1000):
        client = connect(serving)
        client.putrequest("POST", "/completion")
        client.putheader("Content-Length", str(1_000_000))
        client.endheaders(b" " * 12_000)
        clients.append(client)
    for client in clients:
        client.close()
    shown = serving.gate.engine.docker(
        "inspect", "--format", "{{.State.Running}} {{.State.OOMKilled}}", serving.gate.id
    )
    assert shown.split() == ["true", "false"]
    assert serving.ask("/completion", GREEDY)["content"] == SENTENCE
    assert serving.gate.log().count("started HAProxy") == 1


def test_a_flood_gets_answers_or_429(serving: Group) -> None:
    """Each of 200 clients, all at once on 2 slots."""

    def ask(_: int) -> tuple[int, str | None, object]:
        connection = connect(serving)
        connection.request("POST", "/completion", json.dumps({**GREEDY, "n_probs": 0}))
        response = connection.getresponse()
        return response.status, response.getheader("Retry-After"), json.loads(response.read())

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(ask, range(200)))
    counted = Counter(code for code, _, _ in answers)
    assert counted.keys() == {200, 429}
    assert counted[200] >= 2 + 16
    for code, retry_after, body in answers:
        assert isinstance(body, dict)
        if code == 200:
            assert body["content"] == SENTENCE
        else:
            assert retry_after == "5"
            assert body["error"]["code"] == "queue_full"
    assert serving.status()["formations"] == 1
    assert serving.ask("/completion", GREEDY)["content"] == SENTENCE


def test_a_client_that_goes_away_frees_its_slot(serving: Group) -> None:
    streams = [Stream(serving) for _ in range(2)]
    for stream in streams:
        stream.close()
    assert serving.ask("/completion", GREEDY)["content"] == SENTENCE


def test_a_killed_gate_comes_back(serving: Group) -> None:
    serving.gate.kill_processes("haproxy")
    eventually(lambda: _code(serving, "/v1/models") == 200)
    eventually(lambda: serving.leader.get(READYZ)[0] == 200)
    assert serving.ask("/completion", GREEDY)["content"] == SENTENCE


def test_a_pod_without_its_gate_is_not_ready(new_group: NewGroup) -> None:
    group = whole(new_group())
    group.until("Ready")
    group.engine.docker("kill", group.gate.id)
    code, why = group.leader.get(READYZ)
    assert (code, why) == (503, "the gate does not listen: see the log of the container gate\n")
    group.engine.docker("start", group.gate.id)
    eventually(lambda: group.leader.get(READYZ)[0] == 200)
    eventually(lambda: _code(group, "/health") == 200)


def test_who_waits_too_long_is_turned_away(new_group: NewGroup) -> None:
    group = whole(new_group(), gate=GateOptions(2, 1024, queue=3, queue_seconds=1))
    group.until("Ready")
    streams = [Stream(group) for _ in range(2)]
    code, body = group.leader.post("/completion", GREEDY, 8080)
    assert code == 429
    assert "no slot became free in time" in body
    for stream in streams:
        stream.close()


def test_a_group_that_does_not_serve_says_503(new_group: NewGroup) -> None:
    group = whole(new_group())
    group.until("Ready")
    group.engine.docker("kill", group.worker(1).id)
    eventually(lambda: _code(group, "/health") == 503)
    connection = connect(group)
    connection.request("POST", "/completion", json.dumps(GREEDY))
    response = connection.getresponse()
    assert (response.status, response.getheader("Retry-After")) == (503, "10")
    assert json.loads(response.read())["error"]["code"] == "unavailable"


# Draining.


def test_an_idle_group_stops_at_once(new_group: NewGroup) -> None:
    group = whole(new_group())
    group.until("Ready")
    idle = connect(group)  # keeps its connection, as clients do
    idle.request("GET", "/v1/models")
    idle.getresponse().read()
    ended = group.terminate()
    assert max(ended.values()) < AT_ONCE_SECONDS
    assert [pod.wait() for pod in group.pods.values()] == [0, 0, 0, 0]


def test_a_stream_that_runs_is_finished(new_group: NewGroup) -> None:
    patient = GateOptions(2, LONG_OPTIONS.context_size, queue_seconds=600)
    group = whole(new_group(), LONG_OPTIONS, patient)
    group.until("Ready")
    expected = Stream(group, LONG).whole()
    streams = [Stream(group, LONG) for _ in range(2)]
    with _queued(group) as queued:
        began = time.monotonic()
        group.engine.docker("kill", "--signal", "TERM", *(pod.id for pod in group.pods.values()))
        eventually(lambda: group.leader.get(READYZ)[0] == 503)
        eventually(lambda: _refused(group))
        assert not any(stream.finished for stream in streams)  # it was refused while they ran
        for stream in streams:
            assert stream.whole() == expected
        assert queued() == SENTENCE
    served = time.monotonic() - began
    ended = group.ends(began)
    assert max(ended.values()) < served + AT_ONCE_SECONDS
    assert min(ended["x-0-1"], ended["x-0-2"]) > served - 1
    assert [pod.wait() for pod in group.pods.values()] == [0, 0, 0, 0]


def test_a_second_sigterm_stops_at_once(new_group: NewGroup) -> None:
    group = whole(new_group(), LONG_OPTIONS)
    group.until("Ready")
    stream = Stream(group, LONG)
    pods = [pod.id for pod in group.pods.values()]
    group.engine.docker("kill", "--signal", "TERM", *pods)
    eventually(lambda: _refused(group))
    assert not stream.finished
    ended = group.terminate()
    assert max(ended.values()) < AT_ONCE_SECONDS
    assert not stream.finished


def test_the_end_of_the_grace_stops_what_still_runs(new_group: NewGroup) -> None:
    group = new_group()
    for index in (1, 2):
        group.start_worker(index, grace_seconds=4)
    group.start_leader(replace(LONG_OPTIONS, grace_seconds=4))
    group.until("Ready")
    stream = Stream(group, LONG)
    group.terminate()
    assert not stream.finished


def test_a_loading_group_stops_at_once(new_group: NewGroup) -> None:
    group = new_group()
    group.start_worker(1)
    group.start_leader(OPTIONS)
    group.until("WaitingForWorkers")
    eventually(lambda: _code(group, "/health") == 503)  # the first process hears no signal earlier
    ended = group.terminate()
    assert max(ended.values()) < AT_ONCE_SECONDS


def test_a_worker_that_is_deleted_alone_lets_running_requests_finish(new_group: NewGroup) -> None:
    group = whole(new_group(), LONG_OPTIONS)
    group.until("Ready")
    expected = Stream(group, LONG).whole()
    stream = Stream(group, LONG)
    group.worker(2).signal("TERM")
    leaving = group.until("WorkerLeaving")
    assert (leaving["phase"], leaving["message"].partition(":")[0]) == (
        "Draining",
        "x-0-2 is being stopped",
    )
    assert group.leader.get(READYZ)[0] == 503
    eventually(lambda: _code(group, "/v1/models") == 503)
    assert not stream.finished
    assert stream.whole() == expected
    assert group.worker(2).wait() == 0
    assert "1 of 2 workers missing: x-0-2" in group.until("WaitingForWorkers")["message"]
    group.engine.docker("start", group.worker(2).id)
    group.until("Ready", formations=2)
    assert group.ask("/completion", GREEDY)["content"] == SENTENCE


def test_a_worker_whose_leader_vanished_does_not_wait_for_it(new_group: NewGroup) -> None:
    group = whole(new_group())
    group.until("Ready")
    group.engine.docker("pause", group.leader.id)  # closes no connection
    seconds, code = group.worker(1).terminate()
    group.engine.docker("unpause", group.leader.id)
    assert code == 0
    assert seconds < AT_ONCE_SECONDS


def test_a_leader_that_is_told_alone_stops_too(new_group: NewGroup) -> None:
    """As when its liveness probe fails: the gate goes on."""
    group = whole(new_group())
    group.until("Ready")
    seconds, code = group.leader.terminate()
    assert code == 0
    assert seconds < AT_ONCE_SECONDS


def test_a_leader_whose_worker_is_frozen_stops(new_group: NewGroup) -> None:
    group = whole(new_group())
    group.until("Ready")
    group.engine.docker("pause", group.worker(1).id)
    group.leader.signal("TERM")
    seconds, code = group.gate.terminate()
    assert code == 0
    assert seconds < AT_ONCE_SECONDS
    assert group.leader.wait() == 0
    group.engine.docker("unpause", group.worker(1).id)


def test_a_body_that_trickles_in_is_cut_off_and_a_stream_is_not(trickled: Future[str]) -> None:
    assert "a body came too slowly" in trickled.result()


@contextmanager
def _queued(group: Group) -> Iterator[Callable[[], str]]:
    """A request that waits for a slot, and its answer."""
    connection = connect(group)
    connection.request("POST", "/completion", json.dumps(GREEDY))
    time.sleep(0.2)  # nothing tells from outside that it is in the queue

    def answer() -> str:
        response = connection.getresponse()
        body = json.loads(response.read())
        assert response.status == 200, body
        return str(body["content"])

    yield answer
    connection.close()


def _code(group: Group, path: str) -> int | None:
    try:
        return group.leader.get(path, 8080)[0]
    except OSError:
        return None


def _refused(group: Group) -> bool:
    try:
        group.leader.get("/v1/models", 8080)
    except (OSError, http.client.HTTPException):
        return True
    return False
