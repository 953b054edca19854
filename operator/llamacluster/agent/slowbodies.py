"""Cuts off clients that send a request's body too slowly.

HAProxy bounds the wait for a body's beginning, and for each further byte, but not for the whole: a
client that sends a byte a minute would hold one of the engine's slots for days.
"""

from __future__ import annotations

from llamacluster.agent.clock import Clock
from llamacluster.agent.haproxy import Runtime
from llamacluster.agent.log import Log

BODY_SECONDS = 60.0
"""For a whole body, from when its request got a slot: the largest, of 64 MiB, takes 1 MiB/s."""
LOOK_SECONDS = 5.0


class SlowBodies:
    """Remembers since when each body has been on its way."""

    def __init__(self, runtime: Runtime, clock: Clock, log: Log) -> None:
        self._runtime = runtime
        self._clock = clock
        self._log = log
        self._since: dict[tuple[str, str], float] = {}
        self._next_look = 0.0

    def look(self) -> None:
        """Cuts off those that have taken too long."""
        now = self._clock.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        try:
            found = self._runtime.unfinished_bodies()
            self._since = {body: self._since.get(body, now) for body in found.items()}
            for (session, client), since in self._since.items():
                if now - since >= BODY_SECONDS:
                    self._runtime.cut_off(session)
                    self._log.warning("a body came too slowly and was cut off", client=client)
        except OSError:
            return  # it does not run, or is too busy to say; the next look tries it again
