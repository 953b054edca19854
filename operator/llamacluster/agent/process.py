"""Processes, as an edge that tests replace."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock, Thread
from typing import Protocol

MAX_LINE_BYTES = 16 << 10
LAST_WORDS_SECONDS = 1.0
"""For the lines of a process that has ended; a process of its own may hold its output open."""

_STATE, _UTIME, _STIME = 0, 11, 12
"""Fields of /proc/PID/stat behind the name, see proc_pid_stat(5)."""


class Child(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int: ...

    def exit_code(self) -> int | None:
        """None while it runs; as a shell has it afterwards: 128 + n if signal n ended it. All its
        lines were given by then, so that what it said of its end is known with it."""

    def send(self, signum: signal.Signals) -> None:
        """Sends a signal; nothing if it has ended."""

    def wait(self, seconds: float) -> int | None:
        """Waits for its end, at most `seconds`; the exit code, None if it still runs."""

    def is_frozen(self) -> bool:
        """Whether a signal has stopped it: it lives, and does nothing."""

    def cpu_seconds(self) -> float:
        """CPU time that it has taken; 0 once it has ended."""

    def main_cpu_seconds(self) -> float:
        """The part of it that its first thread has taken."""

    def read_bytes(self) -> int:
        """What it has had read from disks and network file systems, not from the page cache; 0
        once it has ended, or where the kernel does not count it."""


class Launcher:
    """Starts processes of this machine."""

    def __init__(self) -> None:
        self._pids: set[int] = set()
        self._lock = Lock()  # no child is an orphan between its start and its entry in _pids

    def start(
        self,
        argv: Sequence[str],
        on_line: Callable[[str], None],
        on_exit: Callable[[], None],
    ) -> Child:
        """Starts `argv`. From a thread of its own, `on_line` gets each line that it prints and
        `on_exit` is called when it has ended and all its lines were given."""
        with self._lock:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for the agent, which decides what to do
            )
            self._pids.add(process.pid)
        follower = Thread(target=self._follow, args=(process, on_line, on_exit), daemon=True)
        follower.start()
        return _Process(process, follower)

    def reap_orphans(self) -> None:
        """Collects ended processes that nobody waits for: the duty of a process with id 1."""
        while True:
            with self._lock:
                try:
                    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                except ChildProcessError:
                    return
                if ended is None or ended.si_pid in self._pids:
                    return  # its own thread collects it
                os.waitpid(ended.si_pid, os.WNOHANG)

    def _follow(
        self,
        process: subprocess.Popen[bytes],
        on_line: Callable[[str], None],
        on_exit: Callable[[], None],
    ) -> None:
        assert process.stdout is not None  # noqa: S101 - started with a pipe
        with process.stdout as output:
            while line := output.readline(MAX_LINE_BYTES):
                on_line(line.decode("utf-8", "replace").rstrip("\r\n"))
        process.wait()
        with self._lock:  # not while reap_orphans looks at this very process
            self._pids.discard(process.pid)
        on_exit()


class _Process:
    def __init__(self, process: subprocess.Popen[bytes], follower: Thread) -> None:
        self._process = process
        self._follower = follower

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        code = self._process.poll()
        if code is not None:
            self._follower.join(LAST_WORDS_SECONDS)
        return _as_shell(code)

    def send(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def wait(self, seconds: float) -> int | None:
        try:
            return _as_shell(self._process.wait(seconds))
        except subprocess.TimeoutExpired:
            return None

    def is_frozen(self) -> bool:
        return _field(f"/proc/{self.pid}/stat", _STATE) == "T"

    def cpu_seconds(self) -> float:
        return self._cpu_seconds(f"/proc/{self.pid}/stat")

    def main_cpu_seconds(self) -> float:
        return self._cpu_seconds(f"/proc/{self.pid}/task/{self.pid}/stat")

    def read_bytes(self) -> int:
        try:
            lines = Path(f"/proc/{self.pid}/io").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("read_bytes:")), 0)

    def _cpu_seconds(self, stat: str) -> float:
        ticks = int(_field(stat, _UTIME)) + int(_field(stat, _STIME))
        return ticks / os.sysconf("SC_CLK_TCK")


def _field(stat: str, field: int) -> str:
    """A field of the line in /proc that a process or a thread has; "0" once it is gone."""
    try:
        line = Path(stat).read_text()
    except OSError:
        return "0"
    # The name, the second field, may hold spaces and brackets of its own.
    return line.rpartition(")")[2].split()[field]


def stop(child: Child, grace_seconds: float) -> None:
    """Ends a process: SIGTERM, and SIGKILL after the grace; 0 means SIGKILL at once."""
    if grace_seconds > 0:
        child.send(signal.SIGTERM)
        if child.wait(grace_seconds) is not None:
            return
    child.send(signal.SIGKILL)
    child.wait(10)


def _as_shell(code: int | None) -> int | None:
    return code if code is None or code >= 0 else 128 - code
