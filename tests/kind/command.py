"""Running a command: its output is kept, and a failure says what was run and what was seen."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Thread

TAIL_LINES = 25


class CommandFailed(Exception):
    """A command ended badly.

    `exit_code` is None when it could not be started or ran out of time. `log` is the file that
    holds its whole output, where there is one.
    """

    def __init__(
        self,
        command: Sequence[str],
        exit_code: int | None,
        stderr_tail: str,
        log: Path | None = None,
    ) -> None:
        self.command = list(command)
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail
        self.log = log
        how = "did not finish" if exit_code is None else f"exit code {exit_code}"
        super().__init__(f"{shlex.join(self.command)}: {how}\n{stderr_tail}".rstrip())


class SetupError(Exception):
    """Something on this machine is missing or in the way; the message says what to do."""


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last lines of a text."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> str:
    """Standard output of a short command.

    `env` is added to this process's own; `timeout` is in seconds.
    """
    try:
        done = subprocess.run(
            list(command),
            env=os.environ | dict(env or {}),
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            stdin=None if stdin is not None else subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as late:
        raise CommandFailed(command, None, f"still running after {late.timeout:.0f} s") from late
    except OSError as missing:
        raise CommandFailed(command, None, str(missing)) from missing
    if done.returncode != 0:
        raise CommandFailed(command, done.returncode, tail(done.stderr or done.stdout))
    return done.stdout


def succeeds(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 30
) -> bool:
    """Whether a short command ends with exit code 0."""
    try:
        run(command, env=env, timeout=timeout)
    except CommandFailed:
        return False
    return True


def run_logged(
    command: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a long command with all of its output appended to `log`, each line given to `on_line`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    with log.open("a", errors="replace") as out:
        out.write(f"$ {shlex.join(command)}\n")
        out.flush()
        try:
            process = subprocess.Popen(
                list(command),
                env=os.environ | dict(env or {}),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as missing:
            raise CommandFailed(command, None, str(missing), log) from missing
        assert process.stdout is not None
        try:
            for line in process.stdout:
                out.write(line)
                lines = [*lines[-TAIL_LINES:], line.rstrip()]
                if on_line and line.strip():
                    on_line(line.strip())
            exit_code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if exit_code != 0:
        raise CommandFailed(command, exit_code, tail("\n".join(lines)), log)


@contextlib.contextmanager
def listening_to(
    command: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Runs a command for as long as the block. A thread gives `on_line` what it prints."""
    process = subprocess.Popen(
        list(command), env=os.environ | dict(env or {}), stdout=subprocess.PIPE, text=True
    )

    def read() -> None:
        for line in process.stdout or ():
            on_line(line.rstrip("\n"))

    Thread(target=read, daemon=True).start()
    try:
        yield
    finally:
        process.kill()
        process.wait()
