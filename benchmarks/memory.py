"""What a plan promises against what a real group takes: planned, told by the engine, and observed.

    python -m benchmarks.memory --workers 2 3 --context-size 2048 --soak 60

Runs a model of 1.7 GiB in containers with the plan's own limits, fills the context of every slot,
goes on for the soak, and then asks for many short answers. The bars: the engine's word within 2 %
of the plan (2.5 % for so small a model), no container over its limit, and no limit more than 25 % +
300 MiB above the peak.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.engine.group import Group
from tests.engine.measured import MIB, measure
from tests.kind import docker, images
from tests.model.headers import write_sparse

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--context-size", type=int, default=1024)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--soak", type=float, default=0.0, help="seconds")
    parser.add_argument("--short-requests", type=int, default=900)
    parser.add_argument("--model", default="qwen3-1.7b")
    parser.add_argument("--file-type", default="Q8_0")
    options = parser.parse_args()
    engine = docker.find_or_start()
    image = images.build_engine(engine, ROOT)
    print(
        "workers worker  planned MiB  told/planned  peak MiB  peak/planned  limit MiB  peak/limit"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        write_sparse(Path(folder) / "m.gguf", options.model, options.file_type)
        for count in options.workers:
            group = Group(engine, image, Path(folder))
            try:
                rows, status = measure(
                    group,
                    "m.gguf",
                    count,
                    options.context_size,
                    options.parallel,
                    options.soak,
                    options.short_requests,
                )
            finally:
                group.remove()
            for index, row in enumerate(rows, 1):
                print(
                    f"{count:7} {index:6} {row.planned / MIB:12.0f}"
                    f" {row.told / row.planned:13.3f} {row.peak / MIB:9.0f}"
                    f" {row.peak / row.planned:13.3f} {row.limit / MIB:10.0f}"
                    f" {row.peak / row.limit:11.3f}"
                )
            if status["formations"] != 1:
                print(f"the group formed {status['formations']} times: a container was killed")


if __name__ == "__main__":
    main()
