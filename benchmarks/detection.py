"""How soon a group says that it is broken, idle and busy, and how soon it is whole again.

    python -m benchmarks.detection [--encrypted]

A group of two workers in containers of the real image, which needs no cluster: seconds from each
fault until the leader is not ready, and from when its cause is gone until it is, beyond the time in
which the engine loads. The bars: 5 s, or 15 s where something is silent, and then 10 s.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

from benchmarks.group import OPTIONS, serving
from llamacluster.agent.contract.places import AGENT_PORT, READYZ
from llamacluster.agent.leader import STABLE_SECONDS
from tests.engine.group import DOMAIN, Group

NOTICED_BAR, SILENT_BAR, BACK_BAR = 5.0, 15.0, 10.0
PATIENCE_SECONDS = 120.0
LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with a part of the group."""

    name: str
    inject: Callable[[Group], object]
    undo: Callable[[Group], object] = lambda _: None
    bar: float = NOTICED_BAR


def _docker(*args: str) -> Callable[[Group], object]:
    return lambda group: group.engine.docker(*args, group.worker(2).id)


def _cut(group: Group) -> None:
    group.engine.docker("network", "disconnect", group.network, group.worker(2).id)


def _join(group: Group) -> None:
    alias = f"{group.name}-2.{DOMAIN}"
    group.engine.docker("network", "connect", "--alias", alias, group.network, group.worker(2).id)


FAULTS = (
    Fault("worker: engine killed", lambda g: g.worker(2).kill_processes("ggml-rpc-server")),
    Fault(
        "worker: engine frozen",
        lambda g: g.worker(2).kill_processes("ggml-rpc-server", signal.SIGSTOP),
        bar=SILENT_BAR,
    ),
    Fault("worker: frozen", _docker("pause"), _docker("unpause"), SILENT_BAR),
    Fault("worker: cut off", _cut, _join, SILENT_BAR),
    Fault("leader: engine killed", lambda g: g.leader.kill_processes("llama-server")),
    Fault(
        "leader: engine frozen",
        lambda g: g.leader.kill_processes("llama-server", signal.SIGSTOP),
        bar=SILENT_BAR,
    ),
)


def until(ready: bool, url: str) -> float:
    """The time at which the leader was ready, or was not."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while _is_ready(url) is not ready:
        if time.monotonic() > deadline:
            raise SystemExit(f"not {'ready' if ready else 'unready'} in {PATIENCE_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
    return time.monotonic()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False


@contextlib.contextmanager
def busy(group: Group) -> Iterator[None]:
    """A client that always has a request under way, whatever becomes of it."""
    done = Event()
    body = {"prompt": "Hello", "n_predict": 4096, "ignore_eos": True}

    def ask() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):
                group.leader.post("/completion", body, OPTIONS.server_port)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(ask)
        try:
            yield
        finally:
            done.set()


def measure(group: Group, fault: Fault, what: str) -> bool:
    """Prints a row; whether it is within its bars."""
    url = group.leader.url(AGENT_PORT) + READYZ
    until(True, url)
    time.sleep(STABLE_SECONDS + 1)  # a group that has served for less waits before it forms anew
    began = time.monotonic()
    fault.inject(group)
    noticed = until(False, url) - began
    fault.undo(group)
    gone = time.monotonic()
    back = until(True, url) - gone - (group.status()["loadSeconds"] or 0)
    within = noticed <= fault.bar and back <= BACK_BAR
    print(
        f"{fault.name:24}{what:6}{noticed:9.1f}{fault.bar:6.0f}{back:9.1f}{BACK_BAR:6.0f}"
        + ("" if within else "  OVER"),
        flush=True,
    )
    return within


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--encrypted", action="store_true", help="with RPC encryption")
    args = parser.parse_args()
    with serving(encrypted=args.encrypted) as group:
        print(f"{'seconds':24}{'':6}{'noticed':>9}{'bar':>6}{'back':>9}{'bar':>6}")
        within = [measure(group, fault, "idle") for fault in FAULTS]
        with busy(group):
            within += [measure(group, fault, "busy") for fault in FAULTS]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
