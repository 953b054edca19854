"""What the agents themselves cost beside their engines, in the real image, idle and under load.

    python -m benchmarks.agents --seconds 60

A group of two workers in containers; the agents' readiness is asked every two seconds, as the
kubelet does. CPU is that of the agent's process alone, without its engine's; memory is its PSS. The
bars for the leader's agent: 1 % of one core and 40 MiB.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

from benchmarks.group import serving
from llamacluster.agent.contract.places import READYZ
from tests.engine.group import Container, Group

PROBE_SECONDS = 2.0
CPU_BAR, MEMORY_BAR = 0.01, 40.0

READ = """
import os
ticks = os.sysconf("SC_CLK_TCK")
words = open("/proc/1/stat").read().rpartition(")")[2].split()
pss = next(line for line in open("/proc/1/smaps_rollup") if line.startswith("Pss:"))
print((int(words[11]) + int(words[12])) / ticks, int(pss.split()[1]) / 1024)
"""


@dataclass(frozen=True)
class Cost:
    """Of one agent's process: its container's first."""

    cpu_seconds: float
    """Since its start."""
    mebibytes: float


def cost(pod: Container) -> Cost:
    cpu, memory = map(float, pod.run_python(READ).split())
    return Cost(cpu, memory)


@contextmanager
def probed(*pods: Container) -> Iterator[None]:
    """Readiness probes, as a kubelet makes them."""
    done = Event()

    def probe() -> None:
        while not done.wait(PROBE_SECONDS):
            for pod in pods:
                pod.get(READYZ)

    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(probe)
        try:
            yield
        finally:
            done.set()
            probing.result()


@contextmanager
def loaded(group: Group) -> Iterator[None]:
    """Two clients that always have a request under way."""
    done = Event()

    def ask() -> None:
        while not done.is_set():
            group.ask("/completion", {"prompt": "Hello", "n_predict": 64, "ignore_eos": True})

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            yield
        finally:
            done.set()
            for each in asking:
                each.result()


def measure(group: Group, seconds: float, what: str) -> bool:
    """Prints a row for each agent; whether the leader's is within the bars."""
    pods = {"leader": group.leader, "gate": group.gate, "worker": group.worker(1)}
    before = {name: cost(pod) for name, pod in pods.items()}
    began = time.monotonic()
    time.sleep(seconds)  # what is measured
    after = {name: cost(pod) for name, pod in pods.items()}
    took = time.monotonic() - began
    within = True
    for name in pods:
        cores = (after[name].cpu_seconds - before[name].cpu_seconds) / took
        memory = after[name].mebibytes
        print(f"{what:8}{name:8}{100 * cores:10.2f} %{memory:10.1f} MiB")
        if name == "leader":
            within = cores <= CPU_BAR and memory <= MEMORY_BAR
    return within


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    args = parser.parse_args()
    with serving() as group, probed(group.leader, group.worker(1), group.worker(2)):
        print(f"{'':8}{'agent':8}{'of a core':>12}{'PSS':>14}")
        within = [measure(group, args.seconds, "idle")]
        with loaded(group):
            within.append(measure(group, args.seconds, "loaded"))
    bars = f"{100 * CPU_BAR:g} % of a core, {MEMORY_BAR:g} MiB"
    print(f"The leader's agent is {'within' if all(within) else 'OVER'} its bars: {bars}.")


if __name__ == "__main__":
    main()
