"""Asking an agent: over HTTP, and of any version."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llamacluster.agent.contract import messages
from llamacluster.agent.contract.places import (
    AGENT_PORT,
    LIVEZ,
    PROBE_PORT,
    STATUS,
    TUNNEL_CONTAINER,
)
from llamacluster.controller import agents
from llamacluster.controller.agents import AgentsByApiServer, AgentsByPodAddress, checked
from tests.build import Manifest
from tests.fakekubeapi import FakeKubeApi
from tests.unit.controller.build import leader_status, pod

ADDRESS = "127.77.0.1"
"""Of this machine, and of no other test."""
Handler = Callable[[web.Request], Any]


@asynccontextmanager
async def agent(
    handler: Handler, path: str = STATUS, port: int = AGENT_PORT
) -> AsyncIterator[Manifest]:
    """The pod of an agent that answers so."""
    application = web.Application()
    application.router.add_get(path, handler)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, ADDRESS, port).start()
    try:
        yield pod(podIP=ADDRESS)
    finally:
        await runner.cleanup()


async def ask(asked: Manifest) -> messages.LeaderStatus | None:
    async with aiohttp.ClientSession() as session:
        return await AgentsByPodAddress(session).leader_status(asked)


async def test_an_answer_that_comes_in_pieces_is_put_together() -> None:
    long = {**leader_status(), "log": "x" * 500_000}

    async def handler(_: web.Request) -> web.Response:
        return web.json_response(long)

    async with agent(handler) as asked:
        assert await ask(asked) == long


@pytest.mark.parametrize(
    "response",
    [
        lambda: web.Response(status=500, text=json.dumps(leader_status())),
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        lambda: web.Response(text="not JSON"),
        lambda: web.Response(text="[1, 2]"),
        lambda: web.Response(text="x" * (agents.MAX_ANSWER_BYTES + 1)),
    ],
    ids=["an error", "a redirect", "no JSON", "another JSON", "too much"],
)
async def test_anything_else_is_no_answer(
    response: Callable[[], web.Response],
) -> None:
    async def handler(_: web.Request) -> web.Response:
        return response()

    async with agent(handler) as asked:
        assert await ask(asked) is None


async def test_a_pod_without_an_address_is_not_asked() -> None:
    assert await ask(pod(podIP="")) is None


async def test_a_refused_connection_is_no_answer() -> None:
    assert await ask(pod(podIP=ADDRESS)) is None


async def test_a_refusal_of_the_api_servers_proxy_is_no_answer() -> None:
    assert await AgentsByApiServer(FakeKubeApi()).leader_status(pod()) is None


def test_fields_that_the_operator_does_not_know_do_not_matter() -> None:
    answer = {**leader_status(), "newer": {"field": 1}}
    assert checked(answer) == answer


@pytest.mark.parametrize(
    "failure",
    [None, 3, {}, {"reason": "", "message": "", "count": 2}]
    + [{"reason": "Why", "message": "m", "count": count} for count in (None, "2", 0, 2**31)],
)
def test_a_failure_that_is_told_otherwise_is_none(failure: object) -> None:
    answer = checked({**leader_status(), "lastFailure": failure})
    assert answer is not None
    assert answer["lastFailure"] is None


def test_a_failure_with_too_many_words_is_cut() -> None:
    failure = {"reason": "R" * 5000, "message": "m" * 100_000, "count": 2}
    answer = checked({**leader_status(), "lastFailure": failure})
    assert answer is not None
    assert answer["lastFailure"] == {
        "reason": "R" * agents.MAX_REASON,
        "message": "m" * agents.MAX_MESSAGE,
        "count": 2,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "worker"},
        {"phase": "Dancing"},
        {"phase": None},
        {"reason": 3},
        {"message": None},
        {"workers": None},
        {"workers": [{"name": "w"}]},
        {"workers": ["w"]},
        {"engine": {}},
    ],
)
def test_an_answer_without_what_the_operator_reads_is_none(changes: Manifest) -> None:
    assert checked({**leader_status(), **changes}) is None


def test_words_that_are_too_long_for_a_condition_are_cut() -> None:
    engine = {**leader_status()["engine"], "version": "v" * 100_000}
    words = {"reason": "R" * 5000, "message": "m" * 100_000, "engine": engine}
    answer = checked({**leader_status(), **words})
    assert answer is not None
    assert len(answer["engine"]["version"]) == agents.MAX_VERSION
    assert len(answer["reason"]) == agents.MAX_REASON
    assert len(answer["message"]) == agents.MAX_MESSAGE


def test_an_answer_that_nests_without_end_is_none() -> None:
    assert agents.parsed(b"[" * 500_000) is None


def test_half_a_character_is_replaced() -> None:
    gate = {
        "keys": None,
        "certificateExpires": None,
        "closed": {"reason": "R", "message": "\udfff"},
    }
    recovery = {"reason": "R", "message": "\ud800", "at": "x", "seconds": 1}
    told = {**leader_status(message="a \ud800\U0001f600"), "gate": gate, "lastRecovery": recovery}
    answer = agents.parsed(json.dumps(told).encode())
    assert answer is not None
    assert answer["message"] == "a ?\U0001f600"
    json.dumps(answer, ensure_ascii=False).encode()


def test_a_condition_always_has_a_reason() -> None:
    answer = checked({**leader_status(messages.Phase.Loading), "reason": ""})
    assert answer is not None
    assert answer["reason"] == "Loading"


async def reaches(asked: Manifest) -> bool | None:
    async with aiohttp.ClientSession() as session:
        return await AgentsByPodAddress(session).reaches(asked)


async def lives(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def test_a_worker_is_reached_when_its_agent_answers() -> None:
    async with agent(lives, LIVEZ) as worker:
        assert await reaches(worker) is True
    assert await reaches(worker) is False
    assert await reaches(pod(podIP=None)) is None
    assert await AgentsByApiServer(FakeKubeApi()).reaches(pod()) is None


async def test_an_encrypted_worker_is_tried_where_the_kubelet_probes_it() -> None:
    async with agent(lives, LIVEZ, PROBE_PORT) as worker:
        worker["spec"] = {"containers": [{"name": "worker"}, {"name": TUNNEL_CONTAINER}]}
        assert await reaches(worker) is True
    async with agent(lives, LIVEZ):
        assert await reaches(worker) is False


async def test_a_proxy_that_takes_the_connection_proves_nothing() -> None:
    async def upstream_error(_: web.Request) -> web.Response:
        return web.Response(status=503, text="upstream connect error")

    async with agent(upstream_error, LIVEZ) as worker:
        assert await reaches(worker) is None

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, ADDRESS, AGENT_PORT):
        assert await reaches(worker) is None


async def test_a_worker_that_takes_the_connection_may_tell_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    monkeypatch.setattr(agents, "TIMEOUT_SECONDS", 0.2)
    async with await asyncio.start_server(say_nothing, ADDRESS, AGENT_PORT):
        with pytest.raises(TimeoutError):
            await reaches(pod(podIP=ADDRESS))
        over.set()
