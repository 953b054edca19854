"""Who listens on a TCP port and how many are connected to it, without connecting to it.

The RPC server serves one connection at a time and has a backlog of 1: a probe that connects takes
the place of the leader. The containers of a pod share their network, so each also sees what the
others listen on and whom they serve.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

_ESTABLISHED, _CLOSE_WAIT, _LISTEN = "01", "08", "0A"
_TABLE = Path("/proc/net/tcp")


def is_listening(host: str, port: int, table: Path = _TABLE) -> bool:
    """True if a process in this network namespace listens on IPv4 `host` (or on all) and `port`."""
    wanted = {f"{address}:{port:04X}" for address in (_hex(host), "00000000")}
    return any(state == _LISTEN and local in wanted for local, state in _sockets(table))


def connections(port: int, table: Path = _TABLE) -> int:
    """How many are connected to `port` here, over IPv4."""
    end = f":{port:04X}"
    return sum(state == _ESTABLISHED and local.endswith(end) for local, state in _sockets(table))


def is_in_use(port: int, table: Path = _TABLE) -> bool:
    """True while some process here listens on `port`, or answers somebody who connected to it."""
    end, states = f":{port:04X}", (_LISTEN, _ESTABLISHED, _CLOSE_WAIT)
    return any(state in states and local.endswith(end) for local, state in _sockets(table))


def _sockets(table: Path) -> Iterator[tuple[str, str]]:
    """Local address and state of each TCP socket of this network namespace."""
    with table.open() as lines:
        next(lines, None)  # column titles
        for line in lines:
            _, local, _, state, *_ = line.split()
            yield local, state


def _hex(host: str) -> str:
    """As the kernel prints it: the 32 bits in the machine's own (little-endian) byte order."""
    return f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}"
