"""The user's cluster, chosen as kubectl chooses it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from llamacluster.api.types import LlamaCluster
from llamacluster.cli.terminal import BadInput, Failed

if TYPE_CHECKING:
    from llamacluster.controller.kubeapi import KubeApi

COMPLETION_SECONDS = 3.0


@dataclass(frozen=True)
class Place:
    """Which cluster, and which namespace of it, as the command line names them."""

    namespace: str | None = None
    kubeconfig: str | None = None
    context: str | None = None


def options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that talks to a cluster; they reach it as one `place`."""

    @click.option("-n", "--namespace", help="Default: that of the kubeconfig's context.")
    @click.option(
        "--kubeconfig", type=click.Path(exists=True, dir_okay=False), help="Kubeconfig file."
    )
    @click.option("--context", help="Context of the kubeconfig.")
    @functools.wraps(command)
    def placed(
        namespace: str | None, kubeconfig: str | None, context: str | None, **others: Any
    ) -> None:
        command(place=Place(namespace, kubeconfig, context), **others)

    return placed


def name_argument(command: Callable[..., None]) -> Callable[..., None]:
    """The argument NAME, a LlamaCluster, which shells complete."""
    return click.argument("name", shell_complete=_names)(command)


def _names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The LlamaClusters that a shell may offer; none where the API server does not say."""
    from llamacluster.controller.kubeapi import LLAMACLUSTERS

    given = (context.params.get(option) for option in ("namespace", "kubeconfig", "context"))
    names: list[str] = []

    async def act(api: KubeApi, namespace: str) -> None:
        listed = await api.get_raw(LLAMACLUSTERS.path(namespace=namespace), COMPLETION_SECONDS)
        names.extend(item["metadata"]["name"] for item in listed["items"])

    with suppress(click.ClickException):
        run(Place(*given), act)
    return [name for name in names if name.startswith(incomplete)]


def run(place: Place, act: Callable[[KubeApi, str], Awaitable[None]]) -> None:
    """Calls `act` with the API server and the namespace. Raises BadInput without a cluster, and
    Failed for what the API server says."""
    # Imported here because it takes half a second.
    import aiohttp
    from kubernetes.aio.config import ConfigException

    from llamacluster.controller.kubeapi import ApiError, connect, load_configuration

    async def connected() -> None:
        configuration = await load_configuration(place.kubeconfig, place.context)
        configuration.connection_pool_maxsize = 0  # no limit: all logs are read at once
        async with connect(configuration) as api:
            await act(api, place.namespace or _current_namespace(place))

    try:
        asyncio.run(connected())
    except ConfigException as error:
        raise BadInput(f"no cluster to talk to: {error}") from error
    except TimeoutError as error:
        raise Failed("the API server does not answer in time") from error
    except (ApiError, aiohttp.ClientError) as error:
        raise Failed(f"the API server: {error}") from error


def _current_namespace(place: Place) -> str:
    """As kubectl chooses it."""
    from kubernetes.aio.config import ConfigException
    from kubernetes.aio.config.kube_config import list_kube_config_contexts

    try:
        contexts, active = list_kube_config_contexts(place.kubeconfig)
    except ConfigException:
        return "default"  # in a pod
    chosen = next((c for c in contexts if c["name"] == place.context), active)
    return str(chosen["context"].get("namespace") or "default")


async def read(api: KubeApi, namespace: str, name: str) -> LlamaCluster:
    """The LlamaCluster. Raises BadInput when there is none."""
    from llamacluster.controller.kubeapi import LLAMACLUSTERS

    found = await api.get(LLAMACLUSTERS, namespace, name)
    if found is None:
        raise BadInput(f"there is no LlamaCluster {name} in namespace {namespace}")
    try:
        return LlamaCluster.model_validate(found)
    except ValidationError as error:
        raise Failed(f"LlamaCluster {name} does not follow the API: {error}") from error
