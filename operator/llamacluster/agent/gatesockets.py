"""What the leader knows of the gate, which runs in another container of its pod."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

from llamacluster.agent.contract.messages import GateStatus
from llamacluster.agent.contract.places import ENGINE_PORT, GATE_PORT
from llamacluster.agent.listening import connections, is_in_use, is_listening
from llamacluster.agent.metrics import GateLoad, gate_load

COUNTS_SECONDS = 1.0
MAX_COUNTS_BYTES = 64 << 10


class GateSockets:
    """The sockets at the API's port and at the engine's, and what the gate's agent and HAProxy
    say."""

    def __init__(self, server_port: int, status_file: Path) -> None:
        self._server_port = server_port
        self._status_file = status_file

    def told(self) -> GateStatus | None:
        """What the gate's agent says of the API's Secrets; None while it has said nothing."""
        try:
            told: GateStatus = json.loads(self._status_file.read_bytes())
        except (OSError, ValueError):
            return None
        return told

    def load(self) -> GateLoad | None:
        """What HAProxy counts; None while it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", GATE_PORT, timeout=COUNTS_SECONDS)
        try:
            connection.request("GET", "/;csv")
            told = connection.getresponse().read(MAX_COUNTS_BYTES)
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return gate_load(told.decode("utf-8", "replace"))

    def gate_listens(self) -> bool:
        """Whether the gate takes new clients."""
        return is_listening("0.0.0.0", self._server_port)

    def gate_is_open(self) -> bool:
        """Whether the gate listens for clients or still has one."""
        return is_in_use(self._server_port)

    def running_requests(self) -> int:
        """Requests that the engine works on: the gate opens a connection for each."""
        return connections(ENGINE_PORT)
