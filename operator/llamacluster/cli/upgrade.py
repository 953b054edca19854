"""`kubectl llamacluster upgrade`: asks for the upgrade that the status tells of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from llamacluster.api.reasons import ClusterReason
from llamacluster.api.status import ConditionStatus, UpgradeStatus
from llamacluster.cli import connection
from llamacluster.cli.connection import Place
from llamacluster.cli.duration import Duration
from llamacluster.cli.output import Output, formatted, output_option
from llamacluster.cli.terminal import BadInput, Failed, err, out, printable
from llamacluster.planning.reasons import Reason
from llamacluster.resources.metadata import UPGRADE_ANNOTATION, group_set_name

if TYPE_CHECKING:
    from llamacluster.controller.kubeapi import KubeApi

LOOK_SECONDS = 2.0
HOPELESS = {Reason.DoesNotFit, ClusterReason.RolloutStuck}
"""What waiting does not change."""


class Outcome(StrEnum):
    """What the command has come to."""

    UP_TO_DATE = "UpToDate"
    AVAILABLE = "Available"
    CANCELLED = "Cancelled"
    REQUESTED = "Requested"
    UPGRADED = "Upgraded"


@dataclass(frozen=True)
class Request:
    """What the command is to do."""

    name: str
    namespace: str
    dry_run: bool = False
    cancel: bool = False
    wait: bool = False
    timeout_seconds: float = 1800


@click.command()
@connection.name_argument
@connection.options
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--cancel", is_flag=True, help="Take the request back, while it has not begun.")
@click.option("--wait", is_flag=True, help="Wait until all groups are upgraded and Ready.")
@click.option(
    "--timeout",
    type=Duration(least_seconds=1),
    default="30m",
    show_default=True,
    help="How long to wait at most, such as 90s or 1h.",
)
@output_option(
    "its outcome (UpToDate, Available, Cancelled, Requested or Upgraded), and the upgrade, as in"
    " status.upgrade."
)
def upgrade(
    name: str,
    place: Place,
    dry_run: bool,
    cancel: bool,
    wait: bool,
    timeout: int,
    output: Output,
) -> None:
    """Roll out what a newer operator would make of NAME.

    A newer operator, or another default engine image, restarts nothing by itself: status.upgrade
    says what is available. This asks for it by an annotation on the LeaderWorkerSet; the spec stays
    as it is. Groups are replaced as spec.rollout says.

    \b
    Exit codes:
      0  asked for, or nothing to upgrade; with --wait: upgraded and Ready
      1  the API server refuses; with --wait: it fails, or takes too long
      2  there is no such LlamaCluster, or an option is wrong
    """
    if cancel and (dry_run or wait):
        raise BadInput("--cancel takes the request back: it goes without --dry-run and --wait")
    show = _print if output is Output.TABLE else _nothing

    async def act(api: KubeApi, namespace: str) -> None:
        request = Request(name, namespace, dry_run, cancel, wait, timeout)
        answer = await perform(api, request, show)
        if output is not Output.TABLE:
            click.echo(formatted(answer, output))

    connection.run(place, act)


def _print(line: str | Text) -> None:
    out().print(line, soft_wrap=True)


def _nothing(_: str | Text) -> None:
    pass


def _tell(line: str) -> None:
    err().print(Text(printable(line), "dim"), soft_wrap=True)


async def perform(
    api: KubeApi,
    request: Request,
    show: Callable[[str | Text], None] = _print,
    tell: Callable[[str], None] = _tell,
) -> dict[str, Any]:
    """Do it; what it has come to, for programs. `show` gets the lines for people, `tell` what is
    waited for. Raises Failed, BadInput and ApiError."""
    from llamacluster.controller.kubeapi import LEADERWORKERSETS

    cluster = await connection.read(api, request.namespace, request.name)
    offered = cluster.status.upgrade
    if cluster.status.observed_generation != cluster.metadata.generation:
        raise Failed(
            f"the operator has not seen the newest spec of {request.name} yet: try again; is it"
            " running?"
        )
    if offered is None:
        show(f"{request.name} is up to date: there is nothing to upgrade")
        return _answer(request, Outcome.UP_TO_DATE, None)
    target = (LEADERWORKERSETS, request.namespace, group_set_name(cluster))
    if request.cancel:
        await api.annotate(*target, {UPGRADE_ANNOTATION: None})
        show(f"the upgrade of {request.name} is not asked for any more")
        return _answer(request, Outcome.CANCELLED, offered)
    show(Text(f"LlamaCluster {request.name}: what changes in its pods", "bold"))
    for change in offered.changes:
        show(f"  {printable(change)}")
    if request.dry_run:
        return _answer(request, Outcome.AVAILABLE, offered)
    await api.annotate(*target, {UPGRADE_ANNOTATION: offered.id})
    show(f"upgrade of {request.name} asked for")
    if not request.wait:
        return _answer(request, Outcome.REQUESTED, offered)
    message = await _upgraded(api, request, offered, tell)
    show(f"{request.name} is upgraded: {printable(message)}")
    return _answer(request, Outcome.UPGRADED, offered)


def _answer(request: Request, outcome: Outcome, offered: UpgradeStatus | None) -> dict[str, Any]:
    # Whether it was asked for before, the outcome knows better.
    return {
        "name": request.name,
        "namespace": request.namespace,
        "outcome": outcome.value,
        "upgrade": offered
        and offered.model_dump(mode="json", by_alias=True, exclude={"requested"}),
    }


async def _upgraded(
    api: KubeApi, request: Request, offered: UpgradeStatus, tell: Callable[[str], None]
) -> str:
    """What Ready says when all groups have the upgrade."""
    import aiohttp

    from llamacluster.controller.kubeapi import ApiError

    loop = asyncio.get_running_loop()
    deadline = loop.time() + request.timeout_seconds
    said = ""
    while True:
        try:
            status = (await connection.read(api, request.namespace, request.name)).status
        except (ApiError, TimeoutError, aiohttp.ClientError) as error:
            if isinstance(error, ApiError) and error.status < 500:
                raise
            line = f"the API server does not answer: {str(error) or 'in time'}"
        else:
            ready = next((c for c in status.conditions if c.type == "Ready"), None)
            begun = status.upgrade is None or status.upgrade.id != offered.id
            # True with another reason: some groups still answer with what they were made with.
            done = (ConditionStatus.TRUE, ClusterReason.Ready)
            if begun and ready and (ready.status, ready.reason) == done:
                return ready.message
            for condition in status.conditions:
                failed = condition.status is ConditionStatus.FALSE and condition.reason in HOPELESS
                if failed and condition.type in ("Planned", "Progressing"):
                    raise Failed(f"{condition.reason}: {condition.message}")
            line = f"{ready.reason}: {ready.message}" if ready else "nothing said yet"
        if line != said:
            tell(line)
            said = line
        if loop.time() >= deadline:
            raise Failed(f"not upgraded within {request.timeout_seconds:.0f} s: {said}")
        await asyncio.sleep(LOOK_SECONDS)
