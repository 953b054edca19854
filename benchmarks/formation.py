"""How long a group takes from "all its pods run" to Ready, beyond the engine's own load time.

    python -m benchmarks.formation --cluster llamacluster --namespace demo

Each round deletes all pods of a running LlamaCluster and follows the new ones by a watch. The bar
is 5 s of overhead: attaching the workers, the first token, and the kubelet's readiness probe.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.e2e.live import Live
from tests.kind.cluster import Cluster


@dataclass(frozen=True)
class Round:
    """Seconds of one forming."""

    running_to_ready: float
    engine_load: float
    agent_overhead: float
    """Of running_to_ready, what the leader's agent itself says it took beyond the engine."""

    @property
    def overhead(self) -> float:
        return self.running_to_ready - self.engine_load


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cluster", default="llamacluster", help="kind cluster")
    parser.add_argument("--namespace", default="demo")
    parser.add_argument("--name", default="tiny", help="a LlamaCluster with one group, Ready")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    live = Live(Cluster(args.cluster), args.namespace, args.name)
    live.wait_until_ready()

    print(f"{'round':<8}{'running to Ready':>18}{'engine load':>13}{'overhead':>10}{'ratio':>8}")
    rounds = []
    for number in range(1, args.rounds + 1):
        found = measure(live)
        rounds.append(found)
        print(row(str(number), found.running_to_ready, found.engine_load, found.overhead))
    middle = (
        statistics.median(r.running_to_ready for r in rounds),
        statistics.median(r.engine_load for r in rounds),
        statistics.median(r.overhead for r in rounds),
    )
    print(row("median", *middle))
    own = statistics.median(r.agent_overhead for r in rounds)
    print(f"Of the overhead the leader's agent itself took {own:.2f} s (median).")


def row(name: str, total: float, load: float, overhead: float) -> str:
    ratio = total / load if load else float("inf")
    return f"{name:<8}{total:>16.2f} s{load:>11.2f} s{overhead:>8.2f} s{ratio:>7.1f}x"


def measure(live: Live) -> Round:
    """Delete all pods of the group and follow the new ones until the leader is Ready."""
    old = {pod["metadata"]["uid"] for pod in live.pods().values()}
    live.kubectl(
        "delete",
        "pods",
        "-l",
        live.selector,
        "--wait=false",
    )
    running: dict[str, float] = {}
    for seen, pod in watch(live):
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        if uid in old or "deletionTimestamp" in pod["metadata"]:
            running.pop(name, None)
            continue
        status = pod["status"]
        if all("running" in c["state"] for c in status.get("containerStatuses", [{"state": {}}])):
            running.setdefault(name, seen)
        ready = any(
            c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", [])
        )
        if ready and name == f"{live.name}-group-0" and len(running) == len(old):
            told = live.leader_status()
            load, formed = told["loadSeconds"] or 0.0, told["formedSeconds"] or 0.0
            return Round(seen - max(running.values()), load, formed - load)
    raise RuntimeError("the watch ended before the group was Ready")


def watch(live: Live) -> Iterator[tuple[float, dict[str, Any]]]:
    """States of the group's pods as they come, with the time at which they came."""
    command = live.cluster.kubectl_command(
        *("get", "pods", f"-n={live.namespace}", "-l", live.selector, "--watch", "-o", "json")
    )
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        text, decoder = "", json.JSONDecoder()
        for line in process.stdout:
            text += line
            if line.rstrip() == "}":  # kubectl indents: only an object's last line starts so
                yield time.monotonic(), decoder.decode(text)
                text = ""
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
