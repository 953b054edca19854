"""`kubectl llamacluster upgrade`: asks for the upgrade that the status tells of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from pydantic import ValidationError
from rich.text import Text

from llamacluster.api.reasons import ClusterReason
from llamacluster.api.types import ConditionStatus, LlamaCluster, UpgradeStatus
from llamacluster.cli.terminal import BadInput, Failed, err, out, printable
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
@click.argument("name")
@click.option("-n", "--namespace", help="Default: that of the kubeconfig's context.")
@click.option("--kubeconfig", type=click.Path(exists=True, dir_okay=False), help="Kubeconfig file.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--cancel", is_flag=True, help="Take the request back, while it has not begun.")
@click.option("--wait", is_flag=True, help="Wait until all groups are upgraded and Ready.")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=1800, show_default=True, help="Seconds."
)
def upgrade(
    name: str,
    namespace: str | None,
    kubeconfig: str | None,
    context: str | None,
    dry_run: bool,
    cancel: bool,
    wait: bool,
    timeout: float,
) -> None:
    """Roll out what a newer operator would make of the LlamaCluster NAME.

    A newer operator, or another default engine image, restarts nothing by itself: status.upgrade
    says what is available. This asks for it by an annotation on the LeaderWorkerSet; the spec stays
    as it is. Groups are replaced as spec.rollout says.

    \b
    Exit codes:
      0  asked for, or there is nothing to upgrade; with --wait: all groups are upgraded and Ready
      1  the API server refuses, or with --wait: it fails, or takes longer than --timeout
      2  there is no such LlamaCluster, or an option is wrong
    """
    # Imported here because it takes half a second.
    import aiohttp
    from kubernetes.aio.config import ConfigException

    from llamacluster.controller.kubeapi import ApiError, connect, load_configuration

    async def ask() -> None:
        configuration = await load_configuration(kubeconfig, context)
        place = namespace or _current_namespace(kubeconfig, context)
        async with connect(configuration) as api:
            await perform(api, Request(name, place, dry_run, cancel, wait, timeout))

    try:
        asyncio.run(ask())
    except ConfigException as error:
        raise BadInput(f"no cluster to talk to: {error}") from error
    except (ApiError, aiohttp.ClientError, TimeoutError) as error:
        raise Failed(f"the API server: {error}") from error


def _current_namespace(kubeconfig: str | None, context: str | None) -> str:
    """As kubectl chooses it."""
    from kubernetes.aio.config import ConfigException
    from kubernetes.aio.config.kube_config import list_kube_config_contexts

    try:
        contexts, active = list_kube_config_contexts(kubeconfig)
    except ConfigException:
        return "default"  # in a pod
    chosen = next((c for c in contexts if c["name"] == context), active)
    return str(chosen["context"].get("namespace") or "default")


async def perform(
    api: KubeApi, request: Request, tell: Callable[[str], None] | None = None
) -> None:
    """Do it. Raises Failed, BadInput and ApiError."""
    from llamacluster.controller.kubeapi import LEADERWORKERSETS

    cluster = await _read(api, request)
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
        status = (await _read(api, request)).status
        conditions = {condition.type: condition for condition in status.conditions}
        ready = conditions.get("Ready")
        begun = status.upgrade is None or status.upgrade.id != offered.id
        if begun and ready and ready.status is ConditionStatus.TRUE:
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


async def _read(api: KubeApi, request: Request) -> LlamaCluster:
    from llamacluster.controller.kubeapi import LLAMACLUSTERS

    found = await api.get(LLAMACLUSTERS, request.namespace, request.name)
    if found is None:
        raise BadInput(f"there is no LlamaCluster {request.name} in namespace {request.namespace}")
    try:
        return LlamaCluster.model_validate(found)
    except ValidationError as error:
        raise Failed(f"LlamaCluster {request.name} does not follow the API: {error}") from error
