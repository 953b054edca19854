"""Whether a TCP port is listened on, without connecting to it.

The RPC server serves one connection at a time and has a backlog of 1: a probe that connects takes
the place of the leader.
"""

from __future__ import annotations

import socket
from pathlib import Path

_LISTEN = "0A"
_TABLE = Path("/proc/net/tcp")


def is_listening(host: str, port: int, table: Path = _TABLE) -> bool:
    """True if a process in this network namespace listens on IPv4 `host` (or on all) and `port`."""
    wanted = {f"{address}:{port:04X}" for address in (_hex(host), "00000000")}
    with table.open() as lines:
        next(lines, None)  # column titles
        for line in lines:
            _, local, _, state, *_ = line.split()
            if state == _LISTEN and local in wanted:
                return True
    return False


def _hex(host: str) -> str:
    """As the kernel prints it: the 32 bits in the machine's own (little-endian) byte order."""
    return f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}"
