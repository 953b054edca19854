"""`python -m tests.kind`: the cluster that the demo and the tests run on."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys

from tests.kind import docker
from tests.kind.cluster import Cluster, down_all, environment
from tests.kind.command import CommandFailed, SetupError
from tests.kind.images import build_images, size

DEFAULT_NAME = "llamacluster"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m tests.kind", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for name, text in (
        ("up", "make the cluster, or take the one that is there"),
        ("down", "remove the cluster"),
        ("images", "build the product's images and give them to the cluster's nodes"),
        ("env", 'print what a shell needs to use the cluster: eval "$(… env)"'),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--name", default=DEFAULT_NAME, help="name of the cluster")
        if name == "up":
            command.add_argument(
                "--renew",
                action="store_true",
                help="make a cluster anew that was made from another node image, or in which tests"
                " were killed",
            )
        if name == "down":
            command.add_argument(
                "--all",
                action="store_true",
                help="all clusters, and the Docker engine that was started for them",
            )
    return top


def main(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    cluster = Cluster(args.name)
    try:
        match args.command:
            case "up":
                cluster.up(renew=args.renew)
            case "down" if args.all:
                down_all()
            case "down":
                cluster.down()
            case "images":
                images(cluster)
            case "env":
                for name, value in environment(cluster).items():
                    print(f"export {name}={shlex.quote(value)}")
    except KeyboardInterrupt:
        return 130
    except (CommandFailed, SetupError) as error:
        if not getattr(error, "told", False):
            print(f"{error}", file=sys.stderr)
        return 1
    return 0


def images(cluster: Cluster) -> None:
    built = build_images()
    engine = docker.need_running()
    for image in (built.engine, built.operator):
        print(f"{image}  {size(engine, image) / 1e6:.0f} MB")
        if cluster.exists():
            cluster.load(image)


if __name__ == "__main__":
    # A run that is asked to end cleans up as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
