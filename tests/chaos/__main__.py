"""`make chaos`: faults in a random order, for as long as is asked, under steady load."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests.chaos.faults import KINDS, Kind, Target
from tests.chaos.laws import first_law
from tests.chaos.stage import (
    put_controllers_on_control_plane,
    serve_model,
    serving,
    settle,
    settle_cluster,
    struck,
)
from tests.chaos.strike import Outcome, strike
from tests.chaos.table import HEAD, row
from tests.chaos.witness import Witness
from tests.conftest import fresh_namespace
from tests.kind.cluster import Cluster
from tests.kind.command import CommandFailed
from tests.kind.images import build_images

PAUSE_SECONDS = 5.0
"""At least so long the group serves between two faults."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("make chaos")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=60, help="seconds from fault to fault")
    parser.add_argument("--only", default="", help="kinds of faults whose name has this in it")
    parser.add_argument("--encrypted", action="store_true", help="a group with RPC encryption")
    args = parser.parse_args(arguments)
    kinds = [kind for kind in KINDS if args.only in kind.name]
    cluster = Cluster(os.environ.get("LLAMACLUSTER_TEST_CLUSTER", "llamacluster-test"))
    try:
        with cluster.lent():
            images = build_images()
            cluster.load(images.engine)
            cluster.load(images.operator)
            put_controllers_on_control_plane(cluster, images)
            with fresh_namespace(cluster) as namespace:
                serve_model(cluster, images, namespace)
                group = struck("chaos", encrypted=args.encrypted)
                with serving(cluster, images, namespace, group) as witness:
                    broken = run(witness, kinds, Random(args.seed), args.minutes * 60, args.every)  # noqa: S311
    except KeyboardInterrupt:
        print("\nstopped; all faults are taken back")
        return 130
    print("\n".join(broken) if broken else "no law was broken")
    return 1 if broken else 0


def run(
    witness: Witness, kinds: list[Kind], chance: Random, seconds: float, every: float
) -> list[str]:
    """Strike until the time is over, or the group does not come back; what was broken."""
    ends = time.monotonic() + seconds
    target = Target(witness.live, chance)
    outcomes: list[Outcome] = []
    deck: list[Kind] = []
    print(HEAD)
    while time.monotonic() < ends:
        began = time.monotonic()
        if not deck:
            deck = chance.sample(kinds, len(kinds))
        outcomes.append(strike(target, deck.pop(), witness))
        print(row(len(outcomes), outcomes[-1]))
        for broken in outcomes[-1].broken:
            print(f"     {broken}")
        if outcomes[-1].broken:
            print(f"     logs: {save_logs(witness)}")
        if outcomes[-1].recovered is None:
            break
        settle_cluster(witness.live.cluster)
        settle(witness)
        time.sleep(max(PAUSE_SECONDS, began + every - time.monotonic()))
    done = sum(answer.outcome == "done" for answer in witness.answers)
    print(f"{len(outcomes)} faults, {done} answers as the oracle's")
    late = first_law(witness.unjudged())
    return [*(f"{o.name}: {broken}" for o in outcomes for broken in o.broken), *late]


def save_logs(witness: Witness) -> Path:
    """What the pods of the group and the operator said, in a folder."""
    live, folder = witness.live, Path(tempfile.mkdtemp(prefix="llamacluster-chaos-"))
    with contextlib.suppress(CommandFailed):
        (folder / "llc.yaml").write_text(live.kubectl("get", "llc", live.name, "-o", "yaml"))
        (folder / "pods.yaml").write_text(live.kubectl("get", "pods", "-o", "yaml"))
        (folder / "events.txt").write_text(live.kubectl("get", "events"))
        for pod in live.pods():
            for previous in ((), ("--previous",)):
                with contextlib.suppress(CommandFailed):
                    said = live.kubectl(
                        *("logs", pod, "--all-containers", "--timestamps", *previous)
                    )
                    (folder / f"{pod}{''.join(previous)}.log").write_text(said)
    (folder / "answers.txt").write_text("\n".join(map(str, witness.answers[-500:])))
    (folder / "sights.txt").write_text("\n".join(map(str, witness.sights[-100:])))
    return folder


if __name__ == "__main__":
    # A run that is asked to end takes its faults back as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
