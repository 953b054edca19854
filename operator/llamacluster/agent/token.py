"""The token by which the agents of a LlamaCluster know each other.

It is a file of a Secret that is mounted into leaders and workers, and nothing else: no argument,
environment, log or status has it. The file is read at each use, because the kubelet replaces it
when the Secret changes, in each pod at another time up to two minutes later. For that time the
token that the file held before goes on counting, so that a change breaks no group.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from threading import Lock

from llamacluster.agent.clock import Clock

SCHEME = "Bearer "
MAX_BYTES = 1024
FORMER_COUNTS_SECONDS = 300.0


class ControlToken:
    """The token in `file`."""

    def __init__(self, file: Path, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._lock = Lock()  # guards what follows
        self._newest: str | None = None
        self._former: str | None = None
        self._changed_at = 0.0

    def known(self) -> list[str]:
        """The tokens that count now, the newest first; none while there is no file."""
        try:
            with self._file.open("rb") as file:
                read = file.read(MAX_BYTES).decode("ascii").strip()
        except (OSError, ValueError):
            read = ""
        now = self._clock.monotonic()
        with self._lock:
            if read and read != self._newest:
                self._newest, self._former = read, self._newest
                self._changed_at = now
            if now - self._changed_at > FORMER_COUNTS_SECONDS:
                self._former = None
            return [token for token in (self._newest, self._former) if token]

    def accepts(self, header: str) -> bool:
        """Whether this Authorization header has a token that counts."""
        if not header.startswith(SCHEME):
            return False
        given = header.removeprefix(SCHEME).encode()
        return any(hmac.compare_digest(given, token.encode()) for token in self.known())
