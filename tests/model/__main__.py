"""`python -m tests.model OUT.gguf`: write the test model."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.model.build import Shape, write


def main() -> None:
    parser = argparse.ArgumentParser("tests.model", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", type=int, default=Shape.layers)
    parser.add_argument(
        "--width", type=int, default=Shape.width, help="embedding length, a multiple of 64"
    )
    parser.add_argument(
        "--feed-forward", type=int, default=Shape.feed_forward, help="a multiple of 32"
    )
    parser.add_argument("--context", type=int, default=Shape.context)
    parser.add_argument("--kind", choices=("chat", "embed"), default=Shape.kind)
    args = parser.parse_args()
    shape = Shape(
        layers=args.layers,
        width=args.width,
        feed_forward=args.feed_forward,
        context=args.context,
        kind=args.kind,
    )
    write(args.out, shape, seed=args.seed)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
