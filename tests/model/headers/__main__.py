"""Writes header files from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tests.model import headers
from tests.model.headers import ARCHITECTURES, FILE_TYPES, MODELS, write_header, write_sparse


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("tests.model.headers", description=headers.__doc__)
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument(
        "--model", choices={**MODELS, **ARCHITECTURES}, help="default: all of MODELS"
    )
    parser.add_argument("--file-type", choices=FILE_TYPES, default="Q4_K_M")
    parser.add_argument(
        "--sparse", action="store_true", help="make files as long as the real ones, with holes"
    )
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    for model in [args.model] if args.model else MODELS:
        path = args.out / f"{model}-{args.file_type}.gguf"
        (write_sparse if args.sparse else write_header)(path, model, args.file_type)
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
