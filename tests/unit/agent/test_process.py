"""Real processes behave as the agents need."""

from __future__ import annotations

import os
import signal
import sys
from threading import Event, Thread, Timer

import pytest

from llamacluster.agent import process
from llamacluster.agent.process import Child, Launcher, stop
from tests.unit.agent.realtime import PATIENCE_SECONDS, until

BUSY = "import signal; signal.alarm(120)\nwhile True: pass"
"""Not for ever: nobody ends it when the tests are killed."""


def started(launcher: Launcher, code: str) -> tuple[Child, list[str], Event]:
    lines: list[str] = []
    ended = Event()
    child = launcher.start([sys.executable, "-c", code], lines.append, ended.set)
    return child, lines, ended


def test_lines_come_before_the_end_is_told() -> None:
    child, lines, ended = started(Launcher(), "import sys; print('a'); sys.exit(print('b') or 3)")
    assert ended.wait(20)
    assert lines == ["a", "b"]
    assert child.exit_code() == 3


def test_who_asks_for_the_exit_code_has_had_all_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LAST_WORDS_SECONDS", PATIENCE_SECONDS)
    read, lines = Event(), list[str]()

    def slowly(line: str) -> None:
        read.wait(20)
        lines.append(line)

    child = Launcher().start([sys.executable, "-c", "print('why')"], slowly, lambda: None)
    assert child.wait(20) == 0
    assert not lines
    Timer(0.1, read.set).start()
    assert child.exit_code() == 0
    assert lines == ["why"]


def test_an_end_by_signal_is_told_as_a_shell_does() -> None:
    child, _, _ = started(Launcher(), "import os; os.abort()")
    assert child.wait(20) == 128 + signal.SIGABRT


def test_a_process_that_a_signal_stopped_is_frozen_until_it_goes_on() -> None:
    ready = Event()
    busy = f"print('on', flush=True)\n{BUSY}"
    child = Launcher().start([sys.executable, "-c", busy], lambda _: ready.set(), lambda: None)
    assert ready.wait(20)
    assert not child.is_frozen()
    child.send(signal.SIGSTOP)
    until(child.is_frozen)
    taken = child.cpu_seconds()
    child.send(signal.SIGCONT)
    until(lambda: child.cpu_seconds() > taken)
    assert not child.is_frozen()
    stop(child, 0)
    assert not child.is_frozen()
    assert child.cpu_seconds() == 0


def test_what_other_threads_take_is_not_the_first_ones() -> None:
    beside = (
        "import threading, time\n"
        "def busy():\n    while True: pass\n"
        "threading.Thread(target=busy, daemon=True).start()\ntime.sleep(120)"
    )
    child, _, _ = started(Launcher(), beside)
    until(lambda: child.cpu_seconds() > child.main_cpu_seconds() + 0.5)
    stop(child, 0)
    busy, _, _ = started(Launcher(), BUSY)
    until(lambda: busy.main_cpu_seconds() > 0.2)
    stop(busy, 0)
    assert busy.main_cpu_seconds() == 0


def test_what_a_process_has_read_is_as_the_kernel_counts_it() -> None:
    lines: list[str] = []
    count = "import time\nprint(open('/proc/self/io').read(), flush=True)\ntime.sleep(60)"
    child = Launcher().start([sys.executable, "-c", count], lines.append, lambda: None)
    until(lambda: any(line.startswith("read_bytes:") for line in lines))
    told = next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))
    assert child.read_bytes() >= told
    stop(child, 0)
    assert child.read_bytes() == 0


def test_stop_is_gentle_first_and_then_certain() -> None:
    deaf = (
        "import signal; signal.signal(15, signal.SIG_IGN); print('on', flush=True); signal.pause()"
    )
    ready = Event()
    child = Launcher().start([sys.executable, "-c", deaf], lambda _: ready.set(), lambda: None)
    assert ready.wait(20)
    stop(child, 0.05)
    assert child.exit_code() == 128 + signal.SIGKILL


def test_orphans_are_collected_and_own_children_left() -> None:
    launcher = Launcher()
    own, _, ended = started(launcher, "")
    orphan = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
    assert ended.wait(20)
    launcher.reap_orphans()
    assert own.exit_code() == 0
    try:
        os.waitpid(orphan, os.WNOHANG)
    except ChildProcessError:
        return
    raise AssertionError("the orphan was still there")


def test_orphans_are_looked_for_while_own_children_end() -> None:
    launcher = Launcher()
    done = Event()
    errors: list[BaseException] = []

    def look() -> None:
        try:
            while not done.is_set():
                launcher.reap_orphans()
        except OSError as error:
            errors.append(error)

    looking = Thread(target=look)
    looking.start()
    for _ in range(100):
        ended = Event()
        child = launcher.start(["/bin/false"], lambda _: None, ended.set)
        assert ended.wait(20)
        assert child.exit_code() == 1
    done.set()
    looking.join()
    assert not errors
