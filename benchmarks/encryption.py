"""What RPC encryption costs: the same group plain and encrypted, side by side in one run.

    python -m benchmarks.encryption

Both groups are containers of the engine image on this machine, a leader and two workers each, and
stand ready all the time; they are asked in turns, so that what else the machine does hits both. The
engine itself says its speed for prompt and decode. Workers on one machine have no network between
them: what is measured is the tunnels' own work and waiting, at its worst beside the little that the
test model computes. On two cores the tunnels also take time from the engines.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.group import certificates
from llamacluster.agent.contract.options import LeaderOptions
from tests.engine.group import Group
from tests.kind import docker, host, images
from tests.model import Shape, write

SLOTS = 1
CONTEXT = 2048
PROMPT = [100] * 1024
TOKENS = 256
BODY = {
    "prompt": PROMPT,
    "n_predict": TOKENS,
    "ignore_eos": True,
    "cache_prompt": False,
    "temperature": 0,
}
CPU_OF_HAPROXY = """
import os, pathlib
ticks = 0
for process in pathlib.Path('/proc').glob('[0-9]*'):
    if (process / 'comm').read_text().strip() == 'haproxy':
        fields = (process / 'stat').read_text().rpartition(')')[2].split()
        ticks += int(fields[11]) + int(fields[12])
print(ticks / os.sysconf('SC_CLK_TCK'))
"""


@dataclass(frozen=True)
class Speeds:
    """Tokens per second."""

    prompt: float
    decode: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=256, help="of the model's layers")
    parser.add_argument("--feed-forward", type=int, default=1024)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write(folder / "model.gguf", Shape(24, args.width, args.feed_forward))
        size = (folder / "model.gguf").stat().st_size
        print(f"Model of {size / 1e6:.0f} MB in 24 layers over two workers; median of rounds.")
        engine = docker.find_or_start()
        image = images.build_engine(engine, host.REPOSITORY)
        groups = [
            Group(engine, image, folder),
            Group(engine, image, folder, tls=certificates(folder)),
        ]
        try:
            measure(groups, args.rounds)
        finally:
            for group in groups:
                group.remove()


def measure(groups: Sequence[Group], rounds: int) -> None:
    options = LeaderOptions("file:///test-models/model.gguf", (13, 12), CONTEXT, SLOTS)
    for group in groups:
        for index in (1, 2):
            group.start_worker(index)
        group.start_leader(options)
    for group in groups:
        group.until("Ready", seconds=600)
        ask(group)  # warm
    plain, encrypted = groups
    before = cpu(encrypted)
    seen: list[tuple[Speeds, Speeds]] = []
    for number in range(1, rounds + 1):
        seen.append((ask(plain), ask(encrypted)))
        print(f"round {number}: plain {told(seen[-1][0])}   encrypted {told(seen[-1][1])}")
    used = (cpu(encrypted) - before) / (rounds * (TOKENS + len(PROMPT)))
    print(f"\n{'tokens/s':<10}{'plain':>10}{'encrypted':>12}{'ratio':>8}")
    for name in ("prompt", "decode"):
        one, other = (
            statistics.median(getattr(pair[index], name) for pair in seen) for index in (0, 1)
        )
        print(f"{name:<10}{one:>10.1f}{other:>12.1f}{other / one:>8.2f}")
    milliseconds = statistics.median(1000 / pair[1].decode - 1000 / pair[0].decode for pair in seen)
    print(f"A token of the decode takes {milliseconds:.2f} ms longer.")
    print(f"The three tunnels take {used * 1000:.2f} ms of CPU for each token, prompt or decode.")


def ask(group: Group) -> Speeds:
    """The engine's own account of one request."""
    timings = group.ask("/completion", BODY)["timings"]
    return Speeds(timings["prompt_per_second"], timings["predicted_per_second"])


def told(speeds: Speeds) -> str:
    return f"{speeds.prompt:7.1f} {speeds.decode:6.1f}"


def cpu(group: Group) -> float:
    """CPU seconds that the tunnels of a group have taken."""
    tunnels = [pod for name, pod in group.pods.items() if name.startswith("tunnel")]
    return sum(float(tunnel.run_python(CPU_OF_HAPROXY)) for tunnel in tunnels)


if __name__ == "__main__":
    main()
