"""`kubectl llamacluster logs`, on an API server in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time

import pytest
from click.testing import CliRunner

from llamacluster.cli import connection
from llamacluster.cli.logline import words
from llamacluster.cli.plugin import plugin
from llamacluster.cli.podlogs import Page, Wanted, nanoseconds, print_logs
from llamacluster.cli.terminal import BadInput, Failed
from llamacluster.controller.kubeapi import LLAMACLUSTERS, PODS, ApiError
from tests.build import Manifest, stored
from tests.fakekubeapi import FakeKubeApi
from tests.virtualtime import in_virtual_time

ENGINE = "0.00.111.571 I "


def pod(name: str, group: int, worker: int, *containers: str, restarts: int = 0) -> Manifest:
    labels = {
        "llamacluster.dev/cluster": "x",
        "leaderworkerset.sigs.k8s.io/group-index": str(group),
        "leaderworkerset.sigs.k8s.io/worker-index": str(worker),
    }
    statuses = [
        {
            "name": container,
            "containerID": f"containerd://{name}/{container}/{restarts}",
            "state": {"running": {}},
            "lastState": {"terminated": {"containerID": "before"}} if restarts else {},
        }
        for container in containers
    ]
    return {
        "metadata": {"name": name, "namespace": "ns", "labels": labels},
        "status": {"containerStatuses": statuses},
    }


def at(second: float, text: str) -> str:
    return f"2026-11-22T12:00:{second:012.9f}Z {text}"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.fixture
def api() -> FakeKubeApi:
    made = FakeKubeApi()
    made.put(LLAMACLUSTERS, stored())
    made.put(PODS, pod("x-group-0", 0, 0, "leader", "gate"))
    made.put(PODS, pod("x-group-0-1", 0, 1, "worker"))
    made.put(PODS, pod("x-group-1", 1, 0, "leader"))
    planner = pod("x-plan-abc", 0, 0, "plan")
    planner["metadata"]["labels"] = {"llamacluster.dev/cluster": "x"}
    made.put(PODS, planner)
    made.logs = {
        ("x-group-0", "leader"): [at(1, "first"), at(4, "fourth")],
        ("x-group-0", "gate"): [at(3, "third")],
        ("x-group-0-1", "worker"): [at(2, "second")],
        ("x-group-1", "leader"): [at(5, "fifth")],
    }
    return made


async def printed(
    api: FakeKubeApi,
    capsys: pytest.CaptureFixture[str],
    *,
    everything: bool = False,
    wanted: Wanted | None = None,
) -> list[str]:
    await print_logs(api, "ns", "x", wanted or Wanted(), Page(everything), follow=False)
    return capsys.readouterr().out.splitlines()


async def test_lines_of_all_pods_come_in_the_order_of_time(
    api: FakeKubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await printed(api, capsys) == [
        "2026-11-22",
        "12:00:01 leader 0   first",
        "12:00:02 worker 0-1 second",
        "12:00:03 gate 0     third",
        "12:00:04 leader 0   fourth",
        "12:00:05 leader 1   fifth",
    ]


@pytest.mark.parametrize(
    ("wanted", "texts"),
    [
        (Wanted(group=1), ["fifth"]),
        (Wanted(worker=1), ["second"]),
        (Wanted(containers=("gate", "worker")), ["second", "third"]),
    ],
)
async def test_only_what_is_wanted_is_read(
    api: FakeKubeApi, capsys: pytest.CaptureFixture[str], wanted: Wanted, texts: list[str]
) -> None:
    lines = await printed(api, capsys, wanted=wanted)
    assert [line.split()[-1] for line in lines[1:]] == texts
    assert len(api.log_queries) == len(texts)


async def test_the_api_server_is_asked_for_times_and_bounds(
    api: FakeKubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(PODS, pod("x-group-0-1", 0, 1, "worker", restarts=1))
    wanted = Wanted(since_seconds=60, tail=5, previous=True)
    await printed(api, capsys, wanted=wanted)
    assert api.log_queries == [
        {
            "container": "worker",
            "timestamps": "true",
            "sinceSeconds": "60",
            "tailLines": "5",
            "previous": "true",
        }
    ]


async def test_long_runs_of_the_engines_own_words_are_folded(
    api: FakeKubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = [at(10 + n / 1000, f"{ENGINE}print_info: {n}") for n in range(212)]
    few = [at(12, f"{ENGINE}slot launch_slot_: id 0")]
    api.logs = {
        ("x-group-0", "leader"): [
            at(9, 'time=x agent=leader level=info msg="attached all" epoch=3'),
            *noise,
            at(11, "0.00.200.000 W a warning"),
            *few,
            at(13, f"{ENGINE}slot print_timing: |        eval time = 1 ms"),
        ]
    }
    assert await printed(api, capsys) == [
        "2026-11-22",
        "12:00:09 leader 0   attached all epoch=3",
        "                    … 212 lines of the engine",
        "12:00:11 leader 0   a warning",
        "12:00:12 leader 0   slot launch_slot_: id 0",
        "12:00:13 leader 0   slot print_timing: |        eval time = 1 ms",
    ]
    assert len(await printed(api, capsys, everything=True)) == 217


def test_programs_get_every_line_as_it_is(
    api: FakeKubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "run", lambda _, act: asyncio.run(act(api, "ns")))
    noise = [f"{ENGINE}print_info: {n}" for n in range(9)]
    api.logs["x-group-0-1", "worker"] = [at(2 + n / 100, line) for n, line in enumerate(noise)]
    done = CliRunner().invoke(plugin, ["logs", "x", "-o", "json", "--group=0"])
    assert done.exit_code == 0
    first, *others = [json.loads(line) for line in done.stdout.splitlines()]
    assert first == {
        "time": "2026-11-22T12:00:01.000000000Z",
        "pod": "x-group-0",
        "container": "leader",
        "text": "first",
    }
    assert [each["text"] for each in others] == [*noise, "third", "fourth"]


def test_following_goes_on_with_what_comes_and_who_comes(
    api: FakeKubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    async def follow() -> None:
        await print_logs(api, "ns", "x", Wanted(tail=1), Page(), follow=True)

    async def change() -> None:
        following = asyncio.create_task(follow())
        await asyncio.sleep(1)
        # A container starts anew, and another one says more.
        api.put(PODS, pod("x-group-0-1", 0, 1, "worker", restarts=1))
        api.logs["x-group-0-1", "worker"] = [at(20, "again")]
        api.logs["x-group-0", "gate"] += [at(21, "more")]
        await asyncio.sleep(10)
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following

    in_virtual_time(change())
    texts = [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert texts == ["first", "second", "third", "fourth", "fifth", "again", "more"]
    gate = [query for query in api.log_queries if query["container"] == "gate"]
    assert gate[0]["tailLines"] == "1"
    assert gate[1] == {
        "container": "gate",
        "timestamps": "true",
        "follow": "true",
        "sinceTime": "2026-11-22T12:00:03Z",
    }


async def test_a_log_that_is_gone_is_a_note_and_the_others_are_printed(
    api: FakeKubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.refusals["pods/log"] = ApiError(400, "previous terminated container not found")
    await print_logs(api, "ns", "x", Wanted(group=1), Page(), follow=False)
    said = capsys.readouterr()
    assert (said.out, said.err) == (
        "",
        "note: leader 1: previous terminated container not found\n",
    )
    api.refusals["pods/log"] = ApiError(403, "you may not")
    with pytest.raises(ApiError, match="you may not"):
        await print_logs(api, "ns", "x", Wanted(), Page(), follow=False)


async def test_nothing_to_print_says_where_to_look(api: FakeKubeApi) -> None:
    with pytest.raises(Failed, match="has started yet: see kubectl llamacluster status x"):
        await print_logs(api, "ns", "x", Wanted(group=7), Page(), follow=False)
    with pytest.raises(BadInput, match="no LlamaCluster y"):
        await print_logs(api, "ns", "y", Wanted(), Page(), follow=False)


def test_times_are_compared_as_times() -> None:
    second = 10**9
    assert nanoseconds("1970-01-01T00:00:01Z") == second
    assert nanoseconds("1970-01-01T01:00:01.5+01:00") == second + second // 2
    assert nanoseconds("1970-01-01T00:00:00.000000001Z") == 1
    assert nanoseconds("unable") is None
    assert nanoseconds("2026-99-01T00:00:00Z") is None


@pytest.mark.parametrize(
    ("line", "text", "is_noise"),
    [
        ("time=t agent=worker level=warning msg=lost leader=x", "lost leader=x", False),
        (r'time=t agent=gate level=info msg="a \"b\""', 'a "b"', False),
        ("0.00.111.571 D graph_reserve: x", "graph_reserve: x", True),
        ("0.00.111.571 E load failed", "load failed", False),
        ("0.00.111.571 I slot: prompt eval time = 7 ms", "slot: prompt eval time = 7 ms", False),
        ("0.00.100.988 W srv: no API key is set and CORS", "srv: no API key is set and CORS", True),
        ("Accepted client connection", "Accepted client connection", True),
        ("ggml-rpc.cpp:650: GGML_ASSERT failed", "ggml-rpc.cpp:650: GGML_ASSERT failed", False),
    ],
)
def test_what_a_line_says(line: str, text: str, is_noise: bool) -> None:
    said = words(line)
    assert (said.text, said.is_noise) == (text, is_noise)


def test_a_line_of_no_kind_goes_on_with_the_one_before_it() -> None:
    assert not words("\ttop_k = 40").is_noise
    assert words("\ttop_k = 40", after_noise=True).is_noise
    assert not words("terminate called after throwing", after_noise=True).is_noise
    assert not words("/src/ggml.c:1: GGML_ASSERT(x)", after_noise=True).is_noise


def test_a_time_that_is_none_is_refused() -> None:
    done = CliRunner().invoke(plugin, ["logs", "x", "--since", "5 minutes"])
    assert done.exit_code == 2
    assert re.search("no time such as", done.stderr)
