"""The running HAProxy, told over its runtime API: it takes keys and certificates as it runs, and no
connection notices. The gate's listens on a Unix socket, a tunnel's on loopback."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, create_connection, socket

from llamacluster.agent.contract import TUNNEL_PORT

ANSWER_SECONDS = 5.0
MAX_COMMAND_BYTES = 15_000
"""A command with all that belongs to it must fit one of HAProxy's buffers, of 16 KiB."""
ENTRIES_PER_COMMAND = 100


class RuntimeRefused(Exception):
    """HAProxy did not do what it was told; the message is its own."""


class Runtime:
    """Speaks to HAProxy. Each method raises OSError while none runs, and RuntimeRefused if it
    answers otherwise than awaited."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def replace_entries(self, acl: Path, entries: Sequence[str]) -> None:
        """The ACL that was read from the file `acl` has these entries from now on, all at once."""
        answer = self._ask(f"prepare acl {acl}")
        made = re.search(r"New version created: (\d+)", answer)
        if not made:
            raise RuntimeRefused(answer)
        version = made[1]
        for start in range(0, len(entries), ENTRIES_PER_COMMAND):
            some = entries[start : start + ENTRIES_PER_COMMAND]
            self._tell("; ".join(f"add acl @{version} {acl} {entry}" for entry in some))
        self._tell(f"commit acl @{version} {acl}")

    def replace_certificate(self, file: Path, pem: str) -> None:
        """The certificate and key that were read from `file` are these from now on."""
        answer = self._ask(f"set ssl cert {file} <<\n{pem}")
        if "Transaction created" not in answer:
            raise RuntimeRefused(answer)
        answer = self._ask(f"commit ssl cert {file}")
        if "Success!" not in answer:
            self._ask(f"abort ssl cert {file}")
            raise RuntimeRefused(answer)

    def certificate_times(self, file: Path) -> tuple[str, str]:
        """notBefore and notAfter of the certificate of `file`, as `ssl.cert_time_to_seconds` reads
        them."""
        answer = self._ask(f"show ssl cert {file}")
        times = dict(re.findall(r"^(notBefore|notAfter): (.+)$", answer, re.M))
        if len(times) < 2:
            raise RuntimeRefused(answer)
        return times["notBefore"], times["notAfter"]

    def unfinished_bodies(self) -> dict[str, str]:
        """Requests that the engine has begun to get and whose clients have not sent all of: the
        client's address by the session's id."""
        found = {}
        for line in self._ask("show sess").splitlines():
            session = re.match(r"(0x[0-9a-f]+): .* src=(\S+) .* srv=(\S+) ", line)
            if session and session[3] != "<none>":
                of_one = self._ask(f"show sess {session[1]}")
                if "req.st=MSG_DATA rsp.st=MSG_RPBEFORE" in of_one:
                    found[session[1]] = session[2]
        return found

    def cut_off(self, session: str) -> None:
        """Ends a session at once; nothing if it has ended."""
        self._ask(f"shutdown session {session}")

    def _tell(self, command: str) -> None:
        """A command that is answered by nothing when it is done."""
        if answer := self._ask(command):
            raise RuntimeRefused(answer)

    def _ask(self, command: str) -> str:
        with socket(AF_UNIX, SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(self._path))
            return _answer(connection, command)


class HaproxyError(Exception):
    """HAProxy does not answer. The message says why."""


def ask(command: str) -> str:
    """What the tunnel's HAProxy answers to `command`. Raises HaproxyError if it does not."""
    try:
        with create_connection(("127.0.0.1", TUNNEL_PORT), ANSWER_SECONDS) as connection:
            return _answer(connection, command)
    except OSError as error:
        raise HaproxyError(f"HAProxy does not answer: {error}") from error


def _answer(connection: socket, command: str) -> str:
    connection.sendall(command.encode() + b"\n")
    return b"".join(_received(connection)).decode("utf-8", "replace").strip()


def _received(connection: socket) -> Iterator[bytes]:
    while chunk := connection.recv(65536):
        yield chunk
