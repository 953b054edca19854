"""The user's cluster, chosen as kubectl chooses it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from ssl import SSLError
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.cli.terminal import BadInput, Failed

if TYPE_CHECKING:
    from llamacluster.controller.kubeapi import KubeApi

COMPLETION_SECONDS = 3.0
ANSWER_SECONDS = 10.0
"""For what a command asks first: an API server that is there answers much sooner."""


@dataclass(frozen=True)
class Place:
    """Which cluster, and which namespace of it, as the command line names them."""

    namespace: str | None = None
    kubeconfig: str | None = None
    context: str | None = None


_PLACE = tuple(each.name for each in fields(Place))


def options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that talks to a cluster; they reach it as one `place`."""

    @place_options
    @functools.wraps(command)
    def placed(**given: Any) -> None:
        others = {option: it for option, it in given.items() if option not in _PLACE}
        command(place=_place(click.get_current_context()), **others)

    return placed


def place_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options as they are: of a command, and, as kubectl takes them there, before it."""
    for option in (
        click.option("--context", help="Context of the kubeconfig."),
        click.option(
            "--kubeconfig", type=click.Path(exists=True, dir_okay=False), help="Kubeconfig file."
        ),
        click.option("-n", "--namespace", help="Default: that of the kubeconfig's context."),
    ):
        command = option(command)
    return command


def _place(context: click.Context) -> Place:
    before = context.parent.params if context.parent else {}
    return Place(*(context.params.get(option) or before.get(option) for option in _PLACE))


def name_argument(command: Callable[..., None]) -> Callable[..., None]:
    """The argument NAME, a LlamaCluster, which shells complete."""
    return click.argument("name", shell_complete=_names)(command)


def _names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The LlamaClusters that a shell may offer; none where the API server does not say."""
    from llamacluster.controller.kubeapi import LLAMACLUSTERS

    names: list[str] = []

    async def act(api: KubeApi, namespace: str) -> None:
        listed = await api.get_raw(LLAMACLUSTERS.path(namespace=namespace), COMPLETION_SECONDS)
        names.extend(item["metadata"]["name"] for item in listed["items"])

    with suppress(click.ClickException):
        run(_place(context), act)
    return [name for name in names if name.startswith(incomplete)]


def run(place: Place, act: Callable[[KubeApi, str], Awaitable[None]]) -> None:
    """Calls `act` with the API server and the namespace. Raises BadInput without a cluster, and
    Failed for what the API server says."""
    # Imported here because it takes half a second.
    import aiohttp
    from kubernetes.aio.config import ConfigException

    from llamacluster.controller.kubeapi import ApiError, connect, load_configuration

    server = "the API server"

    async def connected() -> None:
        nonlocal server
        configuration = await load_configuration(place.kubeconfig, place.context)
        configuration.connection_pool_maxsize = 0  # no limit: all logs are read at once
        server = f"the API server at {configuration.host}"
        async with connect(configuration) as api:
            await act(api, place.namespace or _current_namespace(place))

    try:
        asyncio.run(connected())
    except ConfigException as error:
        raise BadInput(str(error)) from error
    except TimeoutError as error:
        raise Failed(f"{server} does not answer in time") from error
    except (ApiError, aiohttp.ClientError) as error:
        if isinstance(error, ApiError) and error.status == 401:
            raise Failed(f"{server} says 401 Unauthorized: log in again") from error
        raise Failed(f"{server}: {error}") from error
    except SSLError as error:  # before anything was asked
        raise BadInput(f"the certificates for {server}: {error}") from error


def _current_namespace(place: Place) -> str:
    """As kubectl chooses it."""
    from kubernetes.aio.config.kube_config import list_kube_config_contexts

    from llamacluster.controller.kubeapi import has_kubeconfig, kubeconfig_path

    path = kubeconfig_path(place.kubeconfig)
    if not has_kubeconfig(path):
        return "default"  # in a pod
    contexts, active = list_kube_config_contexts(path)
    chosen = next((c for c in contexts if c["name"] == place.context), active)
    return str(chosen["context"].get("namespace") or "default")


async def read(api: KubeApi, namespace: str, name: str) -> LlamaCluster:
    """The LlamaCluster. Raises BadInput when there is none, and Failed and ApiError."""
    from llamacluster.controller.kubeapi import LLAMACLUSTERS

    found = await api.get(LLAMACLUSTERS, namespace, name, ANSWER_SECONDS)
    if found is None:
        await _check_kind(api)
        raise BadInput(f"there is no LlamaCluster {name} in namespace {namespace}")
    try:
        return LlamaCluster.model_validate(found)
    except ValidationError as error:
        raise Failed(f"LlamaCluster {name} does not follow the API: {error}") from error


async def _check_kind(api: KubeApi) -> None:
    """Raises Failed where not even the kind is known, for then the name is not to blame."""
    from llamacluster.controller.kubeapi import LLAMACLUSTERS, ApiError

    try:
        await api.get_raw(f"/apis/{LLAMACLUSTERS.group_version}", ANSWER_SECONDS)
    except ApiError as error:
        if error.status == 404:
            raise Failed(
                "the API server does not know LlamaCluster: see kubectl llamacluster doctor"
            ) from error
