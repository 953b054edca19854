"""Our Grafana dashboards as pictures, with the data of a Prometheus."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from tests.dashboards.panels import CannotDraw, Prometheus, answered, read
from tests.environment import programs
from tests.kind.command import CommandFailed, run
from tests.kind.host import REPOSITORY
from tests.kind.product import CHART

LOCK = REPOSITORY / "requirements" / "dashboards.txt"
DRAW_SECONDS = 300


Empty = list[tuple[str, str, str]]
"""Dashboard, panel and query of what had no answer."""


def draw(prometheus: Prometheus, chosen: dict[str, str], minutes: float, folder: Path) -> Empty:
    """Writes a picture of each dashboard. Raises CannotDraw or CommandFailed."""
    python = programs("dashboards", LOCK, seconds=600) / "python"
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    empty = []
    for file in sorted((CHART / "dashboards").glob("*.json")):
        drawn = answered(read(file), prometheus, chosen, now, minutes * 60)
        picture = folder.resolve() / f"{file.stem}.png"
        run(
            [str(python), "-m", "tests.dashboards.picture", str(picture)],
            cwd=REPOSITORY,
            stdin=json.dumps(drawn.board),
            timeout=DRAW_SECONDS,
        )
        print(f"{folder / picture.name}: {picture.stat().st_size // 1000} kB")
        empty += [(file.stem, title, query) for title, query in drawn.empty]
    return empty


def lacking(empty: Empty, may_be_empty: Collection[str]) -> list[str]:
    """A line for each query without an answer, but for those of panels that may be empty."""
    return [
        f"{dashboard}: {title}: no data for {query}"
        for dashboard, title, query in empty
        if title not in may_be_empty
    ]


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.dashboards", description=__doc__)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--minutes", type=float, default=60, help="how far back (default: 60)")
    parser.add_argument("--namespace", help="show only the LlamaClusters of this one")
    parser.add_argument("--llamacluster", help="show only those of this name")
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--may-be-empty",
        action="append",
        default=[],
        metavar="TITLE",
        help="a panel of which no query need have data; any other is a failure",
    )
    args = parser.parse_args(argv)
    chosen = {
        name: value
        for name, value in (("namespace", args.namespace), ("llamacluster", args.llamacluster))
        if value
    }
    try:
        empty = draw(Prometheus(args.prometheus), chosen, args.minutes, args.into)
    except (CannotDraw, CommandFailed) as error:
        sys.exit(str(error))
    if failures := lacking(empty, args.may_be_empty):
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main(sys.argv[1:])
