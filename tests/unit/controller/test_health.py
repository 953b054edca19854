"""The probes of the operator's pod, over HTTP."""

from __future__ import annotations

import socket

import aiohttp

from llamacluster.controller.health import LIVE, READY, serve


async def test_who_has_a_problem_lives_but_is_not_ready() -> None:
    problems: list[str | None] = [None]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    async with serve(address, lambda: problems[-1]), aiohttp.ClientSession() as session:

        async def ask(path: str) -> tuple[int, str]:
            async with session.get(f"http://{address}{path}") as answer:
                return answer.status, await answer.text()

        assert await ask(LIVE) == (200, "ok\n")
        assert await ask(READY) == (200, "ok\n")
        problems.append("no LeaderWorkerSet")
        assert await ask(LIVE) == (200, "ok\n")
        assert await ask(READY) == (503, "no LeaderWorkerSet\n")
