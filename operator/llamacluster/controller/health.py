"""Probes of the operator's pod, for a leader and for one that stands by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from llamacluster.controller.web import serving

LIVE, READY = "/livez", "/readyz"


@asynccontextmanager
async def serve(address: str, problem: Callable[[], str | None]) -> AsyncIterator[None]:
    """Answer at `address` (HOST:PORT). Live is whoever answers; ready is who has no problem."""

    async def live(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.Response:
        said = problem()
        return web.Response(text=f"{said or 'ok'}\n", status=503 if said else 200)

    app = web.Application()
    app.add_routes([web.get(LIVE, live), web.get(READY, ready)])
    async with serving(address, app):
        yield
