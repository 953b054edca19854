"""HAProxy, in the gate and in the tunnel: its process, and what it is told as it runs.

Over its runtime API it takes keys and certificates, and no connection notices. Whoever reaches that
API reads HAProxy's memory, private keys and all. So it is at a Unix socket in a folder of HAProxy's
container alone, never on loopback, which all containers of a pod share.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket

from llamacluster.agent.backoff import Backoff
from llamacluster.agent.clock import Clock
from llamacluster.agent.log import Log
from llamacluster.agent.process import Child, Launcher
from llamacluster.planning.reasons import GroupError, Reason

PROGRAM = "haproxy"
STOP_SECONDS = 1.0
STABLE_SECONDS = 60.0
SOCKET = "haproxy.sock"
ANSWER_SECONDS = 5.0
MAX_COMMAND_BYTES = 15_000
"""A command with all that belongs to it must fit one of HAProxy's buffers, of 16 KiB."""
ENTRIES_PER_COMMAND = 100


def haproxy_program() -> str:
    """Path of HAProxy. Raises GroupError if the image has none."""
    path = shutil.which(PROGRAM, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if path:
        return path
    raise GroupError(
        Reason.EngineFailed,
        f"the image has no {PROGRAM} on its PATH: use an image made from images/engine",
    )


class HAProxy:
    """HAProxy's process, which is started again when it ends by itself."""

    def __init__(
        self,
        program: str,
        file: Path,
        configuration: str,
        launcher: Launcher,
        clock: Clock,
        log: Log,
    ) -> None:
        """`file` is where HAProxy finds its configuration."""
        self._argv = [program, "-db", "-f", str(file)]
        self._file = file
        self._configuration = configuration
        self._launcher = launcher
        self._clock = clock
        self._log = log
        self._backoff = Backoff(0.1, 10.0)
        self._started = 0.0

    def start(self, on_exit: Callable[[], None]) -> Child:
        self._file.write_text(self._configuration)
        child = self._launcher.start(self._argv, self._log.passed_through, on_exit)
        self._started = self._clock.monotonic()
        self._log.info("started HAProxy", pid=child.pid)
        return child

    def ended(self, code: int | None) -> float:
        """Says that it ended by itself; in how many seconds it is to be started again."""
        if self._clock.monotonic() - self._started > STABLE_SECONDS:
            self._backoff.reset()
        wait = self._backoff.next_seconds()
        self._log.error(f"HAProxy ended with {code}", retry_seconds=f"{wait:.1f}")
        return wait


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
        """The certificate and key that were read from `file` are these for new connections."""
        self._replace("cert", file, pem)

    def replace_authorities(self, file: Path, pem: str) -> None:
        """The authorities that were read from `file` are these for new connections."""
        self._replace("ca-file", file, pem)

    def lead_to(self, servers: Sequence[str], address: str) -> None:
        """These servers (BACKEND/NAME) are at this IPv4 address for new connections, and are in use
        from now on."""
        commands = (
            f"set server {server} {what}"
            for server in servers
            for what in (f"addr {address}", "state ready")
        )
        expected = ("IP changed", "nothing changed")
        answer = self._ask("; ".join(commands))
        for line in answer.splitlines():
            if line and not line.startswith(expected):
                raise RuntimeRefused(line)

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

    def _replace(self, kind: str, file: Path, pem: str) -> None:
        answer = self._ask(f"set ssl {kind} {file} <<\n{pem}")
        if "transaction created" not in answer.lower():
            raise RuntimeRefused(answer)
        answer = self._ask(f"commit ssl {kind} {file}")
        if "Success!" not in answer:
            self._ask(f"abort ssl {kind} {file}")
            raise RuntimeRefused(answer)

    def _tell(self, command: str) -> None:
        """A command that is answered by nothing when it is done."""
        if answer := self._ask(command):
            raise RuntimeRefused(answer)

    def _ask(self, command: str) -> str:
        with socket(AF_UNIX, SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(self._path))
            connection.sendall(command.encode() + b"\n")
            return b"".join(_received(connection)).decode("utf-8", "replace").strip()


def _received(connection: socket) -> Iterator[bytes]:
    while chunk := connection.recv(65536):
        yield chunk
