"""`llamacluster-operator run`: the operator's process, in the cluster or on a laptop; and
`llamacluster-operator test`, for `helm test`."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Sequence

import aiohttp
import kopf
import structlog
from kubernetes.aio.config import ConfigException

from llamacluster import __version__
from llamacluster.cli import ENGINE_IMAGE_ENV, NAMESPACE_ENV, POD_ENV
from llamacluster.cli.logs import configure_logs
from llamacluster.cli.selftest import selftest
from llamacluster.controller.election import LeaseLost, LeaseName
from llamacluster.controller.kubeapi import connect, load_configuration
from llamacluster.controller.operator import Options, run
from llamacluster.resources.networkpolicy import OperatorPods

log = structlog.get_logger()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "test":
        return asyncio.run(_test(arguments))
    as_json = arguments.log_format == "json" or (
        arguments.log_format == "auto" and not sys.stderr.isatty()
    )
    configure_logs(arguments.log_level, as_json=as_json)
    if not arguments.engine_image:
        return _failed(f"no engine image: give --engine-image or set {ENGINE_IMAGE_ENV}", 2)
    if arguments.own_labels and not arguments.own_namespace:
        return _failed(f"--own-labels needs --own-namespace or ${NAMESPACE_ENV}", 2)
    if arguments.leader_elect and not arguments.own_namespace:
        return _failed(f"--leader-elect needs --own-namespace or ${NAMESPACE_ENV}", 2)
    try:
        asyncio.run(_run(arguments))
    except asyncio.CancelledError:
        return 0  # SIGTERM
    except (ConfigException, OSError) as error:  # OSError: an address that is taken
        return _failed(str(error), 2)
    except KeyboardInterrupt:
        return 130
    except ExceptionGroup as group:
        expected, unexpected = group.split((kopf.LoginError, aiohttp.ClientError))
        if unexpected or expected is None:
            raise
        return _failed(f"the API server cannot be used: {_first(expected)}", 1)
    return 0


def _failed(message: str, exit_code: int) -> int:
    print(f"llamacluster-operator: {message}", file=sys.stderr)
    return exit_code


def _first(group: ExceptionGroup[Exception]) -> str:
    """The first line of the first error in a group, whatever groups it is in."""
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return (str(error) or type(error).__name__).splitlines()[0]


async def _run(arguments: argparse.Namespace) -> None:
    configuration = await load_configuration(arguments.kubeconfig, arguments.context)
    options = Options(
        engine_image=arguments.engine_image,
        namespaces=tuple(arguments.namespace),
        concurrency=arguments.concurrency,
        health=arguments.health,
        lease=LeaseName(arguments.own_namespace, arguments.leader_elect, _identity())
        if arguments.leader_elect
        else None,
        metrics=arguments.metrics,
        pods=OperatorPods(arguments.own_namespace, arguments.own_labels)
        if arguments.own_labels
        else None,
        in_cluster="KUBERNETES_SERVICE_HOST" in os.environ and not arguments.kubeconfig,
    )
    try:
        await run(configuration, options)
    except LeaseLost as lost:
        log.error("lease lost: ends", reason=str(lost))
        # At once: nothing that is under way may go on beside the next leader.
        sys.stderr.flush()
        os._exit(1)


async def _test(arguments: argparse.Namespace) -> int:
    try:
        configuration = await load_configuration(arguments.kubeconfig, arguments.context)
    except ConfigException as error:
        return _failed(str(error), 2)
    async with connect(configuration) as api:
        return await selftest(
            *(api, arguments.namespace, arguments.model, arguments.pull_secret, arguments.seconds)
        )


def _identity() -> str:
    """Of this process; begins with the pod's name."""
    return f"{os.environ.get(POD_ENV) or socket.gethostname()}_{secrets.token_hex(4)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("llamacluster-operator", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    cluster = argparse.ArgumentParser(add_help=False)
    cluster.add_argument(
        "--kubeconfig", help="default: the pod's service account, or ~/.kube/config"
    )
    cluster.add_argument("--context", help="context of the kubeconfig")
    test = commands.add_parser(
        "test",
        allow_abbrev=False,
        parents=[cluster],
        help="serve a token from a pod of the namespace: helm test",
    )
    test.add_argument("--namespace", required=True, help="namespace of the LlamaCluster")
    test.add_argument("--model", required=True, metavar="URI", help="a small model")
    test.add_argument(
        "--pull-secret",
        action="append",
        default=[],
        metavar="NAME",
        help="Secret of the namespace to pull the engine's image with; may be repeated",
    )
    test.add_argument("--seconds", type=_positive, default=280, help="for all; default: 280")
    command = commands.add_parser(
        "run", allow_abbrev=False, parents=[cluster], help="watch and reconcile"
    )
    command.add_argument(
        "--namespace",
        action="append",
        default=[],
        help="namespace to watch; may be repeated; default: all",
    )
    command.add_argument(
        "--engine-image",
        default=os.environ.get(ENGINE_IMAGE_ENV),
        help=f"image of LlamaClusters that name none; default: ${ENGINE_IMAGE_ENV}",
    )
    command.add_argument(
        "--concurrency", type=_positive, default=8, help="LlamaClusters worked on at the same time"
    )
    command.add_argument(
        "--health",
        type=_address,
        metavar="HOST:PORT",
        help="serve /livez and /readyz there, e.g. 0.0.0.0:8081",
    )
    command.add_argument(
        "--leader-elect",
        metavar="LEASE",
        help="work only while holding this Lease of --own-namespace, so that several operators may"
        " run; default: work at once",
    )
    command.add_argument(
        "--metrics",
        type=_address,
        metavar="HOST:PORT",
        help="serve /metrics there, e.g. 0.0.0.0:8080; default: nowhere",
    )
    command.add_argument(
        "--own-namespace",
        metavar="NAMESPACE",
        default=os.environ.get(NAMESPACE_ENV),
        help="namespace of the operator's own pods, for NetworkPolicies to let them in; "
        f"default: ${NAMESPACE_ENV}",
    )
    command.add_argument(
        "--own-labels", type=_labels, metavar="KEY=VALUE,...", help="labels of the same pods"
    )
    command.add_argument(
        "--log-level", default="info", choices=["debug", "info", "warning", "error"]
    )
    command.add_argument("--log-format", default="auto", choices=["auto", "json", "text"])
    return parser


def _labels(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(key and equals for key, equals, _ in pairs):
        raise argparse.ArgumentTypeError(f"{text} is not KEY=VALUE,...")
    return {key: value for key, _, value in pairs}


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT")
    return text


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
