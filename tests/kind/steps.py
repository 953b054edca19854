"""Progress that a person can follow: one line for each step, with its time, and what to do next.

On a terminal the line is renewed in place while the step runs. Elsewhere (a log of a CI job) a long
step says at least once a minute what it is doing.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from tests.kind import host
from tests.kind.command import CommandFailed, run_logged, tail

SECONDS_BETWEEN_LINES = 45.0
SECONDS_BETWEEN_RENEWALS = 0.5


def elapsed(seconds: float) -> str:
    """A time as people say it."""
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60:02d} s"


class Step:
    """A step under way: `doing` says what, `run` runs a command with its output in `log`."""

    def __init__(self, title: str, log: Path) -> None:
        self.title = title
        self.log = log
        self.now_doing = ""
        self.note = ""

    def doing(self, what: str) -> None:
        """Say what the step is at."""
        self.now_doing = what

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        show: bool = True,
    ) -> None:
        """Run a command; its latest line of output is what the step is doing."""
        run_logged(command, self.log, env=env, cwd=cwd, on_line=self.doing if show else None)


class Lines:
    """Writes the lines of one step, from two threads."""

    def __init__(
        self,
        step: Step,
        out: TextIO,
        clock: Callable[[], float],
        width: Callable[[], int] = lambda: shutil.get_terminal_size().columns,
    ) -> None:
        self.step = step
        self.out = out
        self.clock = clock
        self.width = width
        self.started = clock()
        self.told = self.started
        self.in_place = out.isatty()

    def tick(self) -> None:
        """Show that the step is still at work, when it is time to."""
        now = self.clock()
        doing = f": {self.step.now_doing}" if self.step.now_doing else ""
        line = f"  ...  {self.step.title} ({elapsed(now - self.started)}){doing}"
        if self.in_place:
            self.out.write("\r\x1b[2K" + line[: max(20, self.width() - 1)])
            self.out.flush()
        elif now - self.told >= SECONDS_BETWEEN_LINES:
            self.told = now
            self.out.write(line[:160] + "\n")
            self.out.flush()

    def end(self, word: str, note: str = "") -> None:
        """The step's one lasting line."""
        start = "\r\x1b[2K" if self.in_place else ""
        took = elapsed(self.clock() - self.started)
        more = f": {note}" if note else ""
        self.out.write(f"{start}{word:>6} {self.step.title} ({took}){more}\n")
        self.out.flush()


def failure_text(error: BaseException, log: Path, advice: str) -> str:
    """What was seen when a step failed, where the rest is, and what to do."""
    seen = str(error) or type(error).__name__
    kept = error.log if isinstance(error, CommandFailed) and error.log else log
    lines = ["What was seen:", *(f"    {line}" for line in tail(seen).splitlines())]
    if kept.exists():
        lines.append(f"All of it: {kept}")
    if advice:
        lines.append(f"What to do: {advice}")
    return "\n".join(f"       {line}" for line in lines) + "\n"


def log_file(title: str) -> Path:
    """The file for all output of a step: the same for each run, so that it does not pile up."""
    return host.cache() / "log" / (re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") + ".log")


@contextlib.contextmanager
def step(
    title: str,
    advice: str = "",
    *,
    out: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Step]:
    """Run the body as a named step; on an error say which, what was seen and what to do."""
    log = log_file(title)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    current = Step(title, log)
    lines = Lines(current, out or sys.stderr, clock)
    ended = threading.Event()

    def keep_showing() -> None:
        while not ended.wait(SECONDS_BETWEEN_RENEWALS):
            lines.tick()

    shower = threading.Thread(target=keep_showing, daemon=True)
    shower.start()
    try:
        yield current
    except KeyboardInterrupt:
        _stop(ended, shower)
        lines.end("STOP", "interrupted; run the same command again to go on")
        raise
    except BaseException as error:
        _stop(ended, shower)
        lines.end("FAILED")
        if not getattr(error, "told", False):
            lines.out.write(failure_text(error, log, advice))
            lines.out.flush()
            error.told = True  # type: ignore[attr-defined]
        raise
    _stop(ended, shower)
    lines.end("ok", current.note)


def _stop(ended: threading.Event, shower: threading.Thread) -> None:
    ended.set()
    shower.join()
