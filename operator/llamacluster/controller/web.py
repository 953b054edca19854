"""What the operator serves over HTTP, each at an address of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def serving(address: str, application: web.Application) -> AsyncIterator[int]:
    """Serve at HOST:PORT; the port that it became. Raises OSError if it cannot be had."""
    # A second for answers under way: who lost the lease has no more time.
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    host, _, port = address.rpartition(":")
    try:
        await web.TCPSite(runner, host, int(port)).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
