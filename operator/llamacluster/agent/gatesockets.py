"""What the pod's sockets tell of the gate, which runs in another container of the leader's pod."""

from __future__ import annotations

from llamacluster.agent.contract import ENGINE_PORT
from llamacluster.agent.listening import connections, is_in_use, is_listening


class GateSockets:
    """The sockets at the API's port and at the engine's."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port

    def gate_listens(self) -> bool:
        """Whether the gate takes new clients."""
        return is_listening("0.0.0.0", self._server_port)

    def gate_is_open(self) -> bool:
        """Whether the gate listens for clients or still has one."""
        return is_in_use(self._server_port)

    def running_requests(self) -> int:
        """Requests that the engine works on: the gate opens a connection for each."""
        return connections(ENGINE_PORT)
