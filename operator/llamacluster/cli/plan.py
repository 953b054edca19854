"""`kubectl llamacluster plan`: the operator's plan, made on the user's machine."""

from __future__ import annotations

import os
import tempfile
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
from rich.text import Text

from llamacluster.agent.contract.messages import Plan, PlanFailure
from llamacluster.agent.contract.options import PlanOptions
from llamacluster.agent.credentials import Credentials, credentials
from llamacluster.agent.plan import plan_with, read_model
from llamacluster.agent.source import Web, shown
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.cli import ENGINE_IMAGE_ENV, connection
from llamacluster.cli.connection import Place
from llamacluster.cli.engines import NoEngine, Refused, plan_on_path
from llamacluster.cli.header import header_at, header_of
from llamacluster.cli.manifest import MAX_BYTES, NOT_NAMED, BadManifest, read_manifest
from llamacluster.cli.output import Output, formatted, output_option
from llamacluster.cli.table import print_plan
from llamacluster.cli.terminal import BadInput, Failed, err, out, printable, say
from llamacluster.planning.formula import Formula
from llamacluster.planning.model import Model
from llamacluster.planning.reasons import GroupError, Reason
from llamacluster.resources.modelsource import credentials_secret
from llamacluster.resources.planjob import plan_options

if TYPE_CHECKING:
    from llamacluster.controller.kubeapi import KubeApi


class Engine(StrEnum):
    """Who is asked how much memory the model takes."""

    AUTO = "auto"
    PATH = "path"
    CONTAINER = "container"
    FORMULA = "formula"


@dataclass(frozen=True)
class Planned:
    """A plan, where the engine was asked, and why not elsewhere."""

    plan: Plan
    where: str
    passed_over: list[NoEngine]


@click.command()
@connection.options
@click.option(
    "-f",
    "--filename",
    "manifest",
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Manifest with one or more LlamaClusters, YAML or JSON; - is standard input.",
)
@output_option(
    "what status.plan is made of, all numbers in bytes; for several LlamaClusters a list."
)
@click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the header from this GGUF file and not from spec.model.uri. The file may end where "
    "the weights begin.",
)
@click.option(
    "--credentials",
    "with_credentials",
    is_flag=True,
    help="Read the Secret that spec.model.credentialsSecret names, in the cluster and with your "
    "rights, and show it to the server in spec.model.uri.",
)
@click.option(
    "--engine",
    type=click.Choice(Engine, case_sensitive=False),
    default=Engine.AUTO,
    show_default="auto",
    help="Who says the numbers: the engine's programs on PATH, those in a container of the engine "
    "image, or a formula; auto: the first of them that can, with a warning where an engine on PATH "
    "refuses the model and the formula says the numbers.",
)
@click.option(
    "--image",
    help=f"Engine image for the container. Default: spec.image, else ${ENGINE_IMAGE_ENV}.",
)
def plan(
    place: Place,
    manifest: str,
    output: Output,
    model: Path | None,
    with_credentials: bool,
    engine: Engine,
    image: str | None,
) -> None:
    """Print how a LlamaCluster would be laid over its workers.

    Reads the header of the model, a few MiB, and says how many workers it takes, which layers each
    holds, and how much memory each needs. Makes nothing in a cluster, and needs none but for
    --credentials.

    \b
    Exit codes:
      0  the model fits
      1  it does not fit, or no plan can be made
      2  the manifest or an option is wrong
    """
    try:
        with click.open_file(manifest, "rb") as content:
            name = "standard input" if manifest == "-" else manifest
            clusters = read_manifest(content.read(MAX_BYTES + 1), name)
    except OSError as error:
        raise BadInput(f"{manifest} cannot be read: {error.strerror}") from error
    except BadManifest as error:
        raise BadInput(str(error)) from error
    answers: list[Plan | PlanFailure] = []
    for cluster in clusters:
        try:
            secrets = place if with_credentials else None
            planned = _planned(cluster, model, engine, image, secrets)
        except GroupError as error:
            named = f"{cluster.metadata.name}: " if len(clusters) > 1 else ""
            say("error", named + error.message, "bold red")
            answers.append({"reason": error.reason.value, "message": error.message})
            continue
        if planned.passed_over:
            _tell_passed_over(planned)
        if output is Output.TABLE:
            if answers:
                click.echo()
            options = plan_options(cluster)
            print_plan(out(), cluster.metadata.name, options, planned.plan, planned.where)
        answers.append(planned.plan)
    if output is not Output.TABLE:
        click.echo(formatted(answers[0] if len(answers) == 1 else answers, output))
    if not all(answer.get("fits") for answer in answers):
        raise SystemExit(1)


def _planned(
    cluster: LlamaCluster,
    file: Path | None,
    engine: Engine,
    image: str | None,
    secrets: Place | None,
) -> Planned:
    """The plan of one LlamaCluster, with a Secret of the cluster at `secrets`, if that is given.
    Raises GroupError and Failed when there can be none."""
    options = plan_options(cluster)
    image = image or cluster.spec.image or os.environ.get(ENGINE_IMAGE_ENV)
    source = str(file) if file else options.model_uri
    with (
        tempfile.TemporaryDirectory(prefix="llamacluster-") as private,
        err().status(_doing(f"reading the header of {shown(source)}")) as status,
    ):
        # The container's user may read the folder inside; that around it keeps all others out.
        folder = Path(private, "headers")
        folder.mkdir()
        if file:
            headers, copy = header_of(file, folder)
        else:
            shown_to_server = _credentials(cluster, secrets)
            headers, copy = header_at(source, folder, Web(True, lambda: shown_to_server))
        model = read_model(headers, copy.name, options)
        return _asked(
            model, copy, options, engine, image, lambda doing: status.update(_doing(doing))
        )


def _credentials(cluster: LlamaCluster, place: Place | None) -> Credentials:
    """For the model's server. Raises Failed and GroupError."""
    secret = credentials_secret(cluster)
    if secret is None:
        return Credentials()
    if place is None:
        # The manifest may be a stranger's, who names a Secret and a server of his own.
        raise GroupError(
            Reason.CredentialsMissing,
            f"Secret {secret} is not read from the cluster and shown to the model's server unless"
            " you say --credentials; the header can also be in a file: --model FILE",
        )
    own = cluster.metadata.namespace
    if own != NOT_NAMED and place.namespace not in (None, own):
        raise BadInput(f"{cluster.metadata.name} is of namespace {own}, not {place.namespace}")
    data: dict[str, bytes] = {}

    async def act(api: KubeApi, namespace: str) -> None:
        from llamacluster.controller.kubeapi import SECRETS

        namespace = namespace if own == NOT_NAMED else own
        host = urlsplit(cluster.spec.model.location).netloc
        say("note", f"shows Secret {namespace}/{secret} to {host}", "dim")
        found = await api.get(SECRETS, namespace, secret, connection.ANSWER_SECONDS)
        data.update((key, b64decode(it)) for key, it in (found or {}).get("data", {}).items())

    try:
        connection.run(place, act)
    except Failed as error:
        raise type(error)(
            f"Secret {secret}, which model.credentialsSecret names, cannot be read:"
            f" {error.message}; the header can also be in a file: --model FILE"
        ) from error
    return credentials(secret, data)


def _asked(
    model: Model,
    copy: Path,
    options: PlanOptions,
    engine: Engine,
    image: str | None,
    tell: Callable[[str], None],
) -> Planned:
    """The plan by the best word that can be had: the engine's, else the formula's."""
    passed_over: list[NoEngine] = []
    if engine in (Engine.AUTO, Engine.PATH):
        tell("asking the engine")
        try:
            return Planned(plan_on_path(model, copy, options), "on PATH", passed_over)
        except NoEngine as error:
            passed_over.append(error)
    if engine in (Engine.AUTO, Engine.CONTAINER):
        try:
            # Imported here because it takes half a second.
            from llamacluster.cli.container import plan_in_container

            if not image:
                raise NoEngine(
                    f"no engine image is named (--image, spec.image, ${ENGINE_IMAGE_ENV})"
                )
            return Planned(
                plan_in_container(image, copy, options, tell), f"in {image}", passed_over
            )
        except NoEngine as error:
            passed_over.append(error)
    if engine in (Engine.PATH, Engine.CONTAINER):
        raise Failed(_why(passed_over))
    return Planned(plan_with(model, Formula(model), options, None), "", passed_over)


def _tell_passed_over(planned: Planned) -> None:
    why = _why(planned.passed_over)
    if planned.where:
        say("note", f"{why}: asked {planned.where}", "dim")
    elif any(isinstance(each, Refused) for each in planned.passed_over):
        # A model that fits by the formula may be one that no engine loads.
        say(
            "warning",
            f"{why}: the numbers are by formula, which does not know whether an engine takes the"
            " model; ask the one that will serve: --engine container --image IMAGE",
            "bold yellow",
        )
    else:
        say("note", f"{why}: the numbers are by formula", "dim")


def _why(passed_over: list[NoEngine]) -> str:
    return "; ".join(map(str, passed_over))


def _doing(text: str) -> Text:
    return Text(printable(text))
