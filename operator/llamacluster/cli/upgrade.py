"""`kubectl llamacluster upgrade`: asks for the upgrade that the status tells of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from rich.text import Text

from llamacluster.api.reasons import ClusterReason
from llamacluster.api.types import ConditionStatus, UpgradeStatus
from llamacluster.cli import connection
from llamacluster.cli.connection import Place
from llamacluster.cli.duration import Duration
from llamacluster.cli.terminal import Failed, err, out, printable
from llamacluster.planning.reasons import Reason
from llamacluster.resources.metadata import UPGRADE_ANNOTATION, group_set_name

if TYPE_CHECKING:
    from llamacluster.controller.kubeapi import KubeApi

LOOK_SECONDS = 2.0
HOPELESS = {Reason.DoesNotFit, ClusterReason.RolloutStuck}
"""What waiting does not change."""


@dataclass(frozen=True)
class Request:
    """What the command was asked for."""

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
    type=Duration(),
    default="30m",
    show_default=True,
    help="How long to wait at most, such as 90s or 1h.",
)
def upgrade(name: str, place: Place, dry_run: bool, cancel: bool, wait: bool, timeout: int) -> None:
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

    async def act(api: KubeApi, namespace: str) -> None:
        await perform(api, Request(name, namespace, dry_run, cancel, wait, timeout))

    connection.run(place, act)


async def perform(
    api: KubeApi, request: Request, tell: Callable[[str], None] | None = None
) -> None:
    """Do it. Raises Failed, BadInput and ApiError."""
    from llamacluster.controller.kubeapi import LEADERWORKERSETS

    cluster = await connection.read(api, request.namespace, request.name)
    offered = cluster.status.upgrade
    if cluster.status.observed_generation != cluster.metadata.generation:
        raise Failed(
            f"the operator has not seen the newest spec of {request.name} yet: try again; is it"
            " running?"
        )
    if offered is None:
        out().print(f"{request.name} is up to date: there is nothing to upgrade")
        return
    target = (LEADERWORKERSETS, request.namespace, group_set_name(cluster))
    if request.cancel:
        await api.annotate(*target, {UPGRADE_ANNOTATION: None})
        out().print(f"the upgrade of {request.name} is not asked for any more")
        return
    _show(request, offered)
    if request.dry_run:
        return
    await api.annotate(*target, {UPGRADE_ANNOTATION: offered.id})
    out().print(f"upgrade of {request.name} asked for")
    if request.wait:
        await _wait(api, request, offered, tell)


def _show(request: Request, offered: UpgradeStatus) -> None:
    out().print(Text(f"LlamaCluster {request.name}: what changes in its pods", "bold"))
    for change in offered.changes:
        out().print(Text(f"  {printable(change)}"), soft_wrap=True)


async def _wait(
    api: KubeApi, request: Request, offered: UpgradeStatus, tell: Callable[[str], None] | None
) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + request.timeout_seconds
    tell = tell or (lambda line: err().print(Text(printable(line), "dim"), soft_wrap=True))
    said = ""
    while True:
        status = (await connection.read(api, request.namespace, request.name)).status
        conditions = {condition.type: condition for condition in status.conditions}
        ready = conditions.get("Ready")
        begun = status.upgrade is None or status.upgrade.id != offered.id
        # True with another reason: some groups still answer with what they were made with.
        done = (ConditionStatus.TRUE, ClusterReason.Ready)
        if begun and ready and (ready.status, ready.reason) == done:
            out().print(f"{request.name} is upgraded: {ready.message}")
            return
        for condition in conditions.values():
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
