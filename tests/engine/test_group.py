"""Real agents and the real engine: a leader and two workers in containers of the engine image."""

from __future__ import annotations

import base64
import json
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from llamacluster.agent.contract.options import GateOptions, LeaderOptions
from llamacluster.agent.contract.places import ATTACH, ENGINE_PORT, READYZ
from llamacluster.planning.split import assigned_device, tensor_split
from tests.engine.group import DOMAIN, Group, eventually
from tests.model import SENTENCE

pytestmark = pytest.mark.engine

OPTIONS = LeaderOptions(
    model_uri="file:///test-models/tiny.gguf", layers=(13, 12), context_size=1024, parallel=2
)
LONG_OPTIONS = replace(OPTIONS, context_size=4096)
"""For an answer that goes on for long."""
GREEDY = {"prompt": "Who wrote this?", "temperature": 0, "n_predict": 64, "n_probs": 5}
NewGroup = Callable[[], Group]


def whole(group: Group, options: LeaderOptions = OPTIONS, gate: GateOptions | None = None) -> Group:
    """With all its pods, which start at once, as in the cluster."""
    with ThreadPoolExecutor() as pool:
        workers = [pool.submit(group.start_worker, n) for n, _ in enumerate(options.layers, 1)]
        leader = pool.submit(group.start_leader, options, gate=gate)
    for pod in (*workers, leader):
        pod.result()
    return group


@pytest.fixture(scope="module")
def serving(shared_groups: NewGroup) -> Group:
    group = whole(shared_groups())
    group.until("Ready")
    return group


def test_a_chat_is_answered_through_all_workers(serving: Group) -> None:
    answer = serving.ask(
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Who are you? ünïcode 模型"}], "temperature": 0},
    )
    assert answer["choices"][0]["message"]["content"] == SENTENCE
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_the_greedy_output_is_that_of_a_plain_server(serving: Group) -> None:
    plain = serving.start_plain_server(
        *("-m", "/test-models/tiny.gguf", "-c", "2048", "-np", "2", "--fit", "off"),
        *("-t", "1", "--cache-ram", "0"),
    )
    eventually(lambda: _is_healthy(serving))
    code, body = plain.post("/completion", GREEDY, 8080)
    assert code == 200
    alone, together = json.loads(body), serving.ask("/completion", GREEDY)
    assert together["content"] == alone["content"] == SENTENCE
    assert _tokens(together) == _tokens(alone)


def test_the_workers_hold_all_layers_and_the_leader_none(serving: Group) -> None:
    status = serving.status()
    assert [row["layers"] for row in status["placement"]] == [13, 12]
    assert [row["worker"] for row in status["placement"]] == ["x-0-1", "x-0-2"]
    for row in status["placement"]:
        assert row["modelBytes"] > 250_000
        assert row["contextBytes"] > 1 << 20
        assert row["computeBytes"] > 0
    assert status["leader"] is not None
    assert status["leader"]["layers"] == 0
    assert status["leader"]["modelBytes"] < 100_000


def test_limits_of_the_pod_set_threads(serving: Group) -> None:
    status = serving.worker_status(1)
    assert status["threads"] == 1
    assert status["memoryLimitBytes"] == 512 << 20


def test_both_pods_of_a_ready_group_are_ready(serving: Group) -> None:
    assert serving.leader.get(READYZ) == (200, "ok\n")
    assert serving.worker(2).get(READYZ) == (200, "ok\n")


def test_the_split_rule_is_the_engines(new_group: NewGroup) -> None:
    group = whole(
        new_group(), replace(OPTIONS, layers=(9, 8, 8), extra_args=("--log-verbosity", "5"))
    )
    status = group.until("Ready")
    told = [
        int(line.partition("device RPC")[2].partition(",")[0])
        for line in group.leader.log().splitlines()
        if "load_tensors: layer" in line and "assigned to device" in line
    ]
    assert told == assigned_device(tensor_split([9, 8, 8]), 24)
    assert [row["layers"] for row in status["placement"]] == [told.count(i) for i in range(3)]


def test_embeddings_and_chat_from_one_model(new_group: NewGroup) -> None:
    group = whole(new_group(), replace(OPTIONS, embeddings=True))
    group.until("Ready")
    answer = group.ask("/v1/embeddings", {"input": ["one", "another"]})
    first, second = (row["embedding"] for row in answer["data"])
    assert len(first) == 64
    assert first != second
    assert group.ask("/completion", GREEDY)["content"] == SENTENCE


def test_quantised_caches_change_nothing(new_group: NewGroup) -> None:
    group = whole(new_group(), replace(OPTIONS, cache_type_k="q8_0", cache_type_v="q8_0"))
    group.until("Ready")
    assert group.ask("/completion", GREEDY)["content"] == SENTENCE


def test_a_killed_rpc_server_makes_the_group_unready_and_it_heals(new_group: NewGroup) -> None:
    group = whole(new_group())
    before = group.until("Ready")
    group.worker(2).kill_processes("ggml-rpc-server")
    lost = group.until("WorkerLost")
    assert "x-0-2" in lost["message"]
    after = group.until("Ready", formations=2)
    assert after["epoch"] != before["epoch"]
    assert group.ask("/completion", GREEDY)["content"] == SENTENCE


def test_a_worker_pod_that_is_gone_is_named_until_it_is_back(new_group: NewGroup) -> None:
    group = whole(new_group())
    group.until("Ready")
    group.engine.docker("kill", group.worker(1).id)
    group.until("WorkerLost")
    waiting = group.until("WaitingForWorkers")
    assert "1 of 2 workers missing: x-0-1" in waiting["message"]
    assert group.leader.get(READYZ)[0] == 503
    group.engine.docker("start", group.worker(1).id)
    group.until("Ready", formations=2)
    assert group.ask("/completion", GREEDY)["content"] == SENTENCE


def test_a_killed_engine_heals(new_group: NewGroup) -> None:
    group = whole(new_group())
    group.until("Ready")
    group.leader.kill_processes("llama-server")
    assert "137" in group.until("EngineFailed")["message"]
    group.until("Ready", formations=2)


def test_a_frozen_engine_heals(new_group: NewGroup) -> None:
    group = whole(new_group())
    group.until("Ready")
    group.leader.kill_processes("llama-server", signal.SIGSTOP)
    assert "SIGSTOP" in group.until("EngineHung")["message"]
    group.until("Ready", formations=2)


def test_a_frozen_rpc_server_heals(new_group: NewGroup) -> None:
    group = whole(new_group())
    group.until("Ready")
    group.worker(1).kill_processes("ggml-rpc-server", signal.SIGSTOP)
    assert "x-0-1: RPC server was stopped by a signal" in group.until("WorkerLost")["message"]
    group.until("Ready", formations=2)
    assert group.ask("/completion", GREEDY)["content"] == SENTENCE


def test_a_worker_that_falls_silent_in_the_midst_of_a_request_heals(new_group: NewGroup) -> None:
    group = whole(new_group(), LONG_OPTIONS)
    group.until("Ready")
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(
            lambda: group.leader.post(
                "/completion", {"prompt": "Hello", "n_predict": 100_000, "ignore_eos": True}, 8080
            )
        )
        slots = f"http://127.0.0.1:{ENGINE_PORT}/slots"
        look = f"from urllib.request import urlopen; print(urlopen('{slots}').read())"
        eventually(lambda: '"is_processing":true' in group.leader.run_python(look))
        group.engine.docker("pause", group.worker(2).id)
        group.until("WorkerLost")
        code, _ = asked.result(timeout=60)  # it does not hang
        assert code in (502, 503)
    group.engine.docker("unpause", group.worker(2).id)
    group.until("Ready", formations=2)


STALLING = """#!/usr/bin/python3
# In front of the RPC server: passes {most} bytes on to it, and then nothing any more; nor while
# there is a file /tmp/stalled.
import pathlib, socket, subprocess, sys, threading
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
port, args["-p"] = int(args["-p"]), "50099"
words = (word for pair in args.items() for word in pair)
subprocess.Popen(["/usr/local/bin/ggml-rpc-server", *words])
left = {most}

def pass_on(source, target, counted):
    global left
    stalled = pathlib.Path("/tmp/stalled")
    while (data := source.recv(4096)) and left > 0 and not stalled.exists():
        target.sendall(data)
        left -= len(data) if counted else 0
    if data:
        threading.Event().wait()
    target.shutdown(socket.SHUT_WR)

with socket.create_server((args["-H"], port)) as server:
    while True:
        near, _ = server.accept()
        far = socket.create_connection(("127.0.0.1", 50099))
        threading.Thread(target=pass_on, args=(near, far, True)).start()
        threading.Thread(target=pass_on, args=(far, near, False)).start()
"""


@pytest.mark.parametrize("most", [0, 100_000], ids=["before it begins", "in its midst"])
def test_a_load_that_stands_still_is_begun_anew(
    new_group: NewGroup, models: Path, most: int
) -> None:
    """As when a connection is forgotten by what lies between the nodes: agents still answer."""
    group = stalling(new_group(), models, most)
    status = group.until("EngineHung")
    assert "the load has stood still for 1" in status["message"]
    eventually(lambda: group.leader.log().count("starting engine") > 1)


def test_a_connection_that_is_forgotten_while_it_serves_heals(
    new_group: NewGroup, models: Path
) -> None:
    """All agents answer, and the engine waits for a worker that never hears of it."""
    group = stalling(new_group(), models, most=1 << 30)
    group.until("Ready")
    group.worker(1).run_python("open('/tmp/stalled', 'w')")
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(group.leader.post, "/completion", GREEDY, 8080)
        assert "a request is under way" in group.until("EngineHung")["message"]
        group.worker(1).run_python("import os; os.remove('/tmp/stalled')")
        code, _ = asked.result(timeout=60)
        assert code in (502, 503)
    group.until("Ready", formations=2)
    assert group.ask("/completion", GREEDY)["content"] == SENTENCE


def stalling(group: Group, models: Path, most: int) -> Group:
    """Between whose engines at most so many bytes go one way."""
    program = models / f"stalling-{most}" / "ggml-rpc-server"
    program.parent.mkdir()
    program.write_text(STALLING.format(most=most))
    program.chmod(0o755)
    # The leader has it too, for all builds must be equal.
    path = ("--env", f"PATH=/test-models/{program.parent.name}:/usr/local/bin:/usr/bin:/bin")
    for index in (1, 2):
        group.start_worker(index, *path)
    group.start_leader(replace(OPTIONS, hung_engine_seconds=4), *path)
    return group


def test_a_cut_in_the_network_heals(new_group: NewGroup) -> None:
    group = whole(new_group())
    group.until("Ready")
    group.engine.docker("network", "disconnect", group.network, group.worker(1).id)
    assert "lost x-0-1" in group.until("WorkerLost")["message"]
    alias = ("--alias", f"{group.name}-1.{DOMAIN}")
    group.engine.docker("network", "connect", *alias, group.network, group.worker(1).id)
    group.until("Ready", formations=2)
    assert group.ask("/completion", GREEDY)["content"] == SENTENCE


def test_a_leader_that_starts_anew_takes_its_workers_over(new_group: NewGroup) -> None:
    group = whole(new_group())
    before = group.until("Ready")
    group.engine.docker("kill", group.leader.id)
    group.engine.docker("start", group.leader.id)
    # In a pod the network outlives its containers; here it went with the leader's.
    group.engine.docker("restart", "--time", "0", group.gate.id)
    after = group.until("Ready")
    assert after["epoch"] != before["epoch"]
    assert group.worker_status(1)["epoch"] == after["epoch"]


def test_a_leader_waits_for_a_worker_that_is_late(new_group: NewGroup) -> None:
    group = new_group()
    group.start_worker(1)
    eventually(lambda: _answers(group, 1))
    group.start_leader(OPTIONS)
    waiting = group.until("WaitingForWorkers")
    assert "1 of 2 workers missing: x-0-2: its name has no address" in waiting["message"]
    group.start_worker(2)
    group.until("Ready")


def test_attach_starts_a_clean_rpc_server(new_group: NewGroup) -> None:
    group = new_group()
    worker = group.start_worker(1)
    eventually(lambda: _answers(group, 1) and worker.get(READYZ)[0] == 200)
    before = group.worker_status(1)
    assert before["child"] is not None
    for epoch in ("first", "second"):
        request = {"epoch": epoch, "leader": "x-0", "leaderSince": 1, "worker": "x-0-1"}
        code, body = worker.post(ATTACH, request)
        answer = json.loads(body)
        assert code == 200
        assert answer["epoch"] == epoch
        assert answer["listening"]
        assert answer["child"]["pid"] != before["child"]["pid"]
        before = answer


def test_a_container_that_is_told_to_stop_as_it_starts_stops(new_group: NewGroup) -> None:
    """A first process loses the signals that come before its handlers."""
    group = new_group()
    worker = group.start_worker(1)
    worker.signal("TERM")
    eventually(lambda: not worker.is_running())
    assert worker.wait() == 0


def test_attach_under_another_name_is_refused(new_group: NewGroup) -> None:
    group = new_group()
    worker = group.start_worker(1)
    eventually(lambda: _answers(group, 1))
    request = {"epoch": "e", "leader": "x-0", "leaderSince": 1, "worker": "x-0-2"}
    code, body = worker.post(ATTACH, request)
    assert (code, body) == (421, "this is x-0-1, not x-0-2\n")


def test_a_flag_that_the_engine_does_not_know_is_told(new_group: NewGroup) -> None:
    group = whole(new_group(), replace(OPTIONS, extra_args=("--no-such-flag",)))
    status = group.until("EngineBadFlag")
    assert "error: invalid argument: --no-such-flag" in status["message"]


def test_a_missing_model_is_told_and_heals(new_group: NewGroup, models: Path) -> None:
    group = whole(new_group(), replace(OPTIONS, model_uri="file:///test-models/late.gguf"))
    assert "no file /test-models/late.gguf" in group.until("ModelNotFound")["message"]
    shutil.copy(models / "tiny.gguf", models / "late.gguf")
    group.until("Ready")


def test_another_build_of_the_engine_is_refused(
    new_group: NewGroup, models: Path, engine_image: str
) -> None:
    group = new_group()

    def in_image(*command: str) -> str:
        return group.engine.docker(
            "run", "--rm", "--entrypoint", command[0], engine_image, *command[1:]
        )

    # A byte more at its end: the same program, but not the same build.
    program = in_image("sh", "-c", "readlink -f $(command -v ggml-rpc-server)").strip()
    other = models / "other-rpc-server"
    other.write_bytes(base64.b64decode(in_image("base64", program)) + b"\0")
    other.chmod(0o755)
    group.start_worker(1, "--volume", f"{other}:{program}:ro")
    group.start_worker(2)
    group.start_leader(OPTIONS)
    status = group.until("EngineMismatch")
    assert "x-0-1 has" in status["message"]
    assert "x-0-2 has" not in status["message"]


def _is_healthy(group: Group) -> bool:
    try:
        return group.pods["plain"].get("/health", 8080)[0] == 200
    except OSError:
        return False


def _answers(group: Group, index: int) -> bool:
    try:
        return bool(group.worker_status(index))
    except OSError:
        return False


def _tokens(answer: dict[str, list[dict[str, object]]]) -> list[object]:
    return [(row["id"], row["top_logprobs"]) for row in answer["completion_probabilities"]]
