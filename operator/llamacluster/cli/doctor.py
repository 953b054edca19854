"""`kubectl llamacluster doctor`: what the cluster lacks, and what is wrong with LlamaClusters."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from llamacluster.api.quantity import to_bytes
from llamacluster.api.reasons import ClusterReason
from llamacluster.api.types import ConditionStatus, LlamaCluster
from llamacluster.cli import connection
from llamacluster.cli.connection import Place
from llamacluster.cli.output import Output, formatted, output_option
from llamacluster.cli.status import is_ready, troubles
from llamacluster.cli.table import hanging
from llamacluster.cli.terminal import out
from llamacluster.planning.plan import shown

if TYPE_CHECKING:
    from llamacluster.controller.kubeapi import KubeApi

TIMEOUT_SECONDS = 15.0
OLDEST_KUBERNETES = (1, 29)
OPERATOR = "app.kubernetes.io/name=llamacluster-operator"
READS = {
    "version": "/version",
    "crd": "/apis/llamacluster.dev/v1alpha1",
    "leaderworkersets": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"
    "leaderworkersets.leaderworkerset.x-k8s.io",
    "operators": f"/apis/apps/v1/deployments?labelSelector={OPERATOR.replace('=', '%3D')}",
    "nodes": "/api/v1/nodes",
    "storageclasses": "/apis/storage.k8s.io/v1/storageclasses",
}


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    UNKNOWN = "unknown"


_STYLES = {
    Level.OK: "green",
    Level.WARNING: "bold yellow",
    Level.ERROR: "bold red",
    Level.UNKNOWN: "dim",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    about: str
    message: str
    fix: str = ""


@dataclass(frozen=True)
class Answers:
    """What the API server said, by name of the read; what it does not have is in neither."""

    found: Mapping[str, dict[str, Any]]
    denied: Mapping[str, str] = field(default_factory=dict)


@click.command()
@connection.options
@click.option(
    "-A", "--all-namespaces", is_flag=True, help="Look at the LlamaClusters of all namespaces."
)
@output_option("the same findings, in a list.")
def doctor(place: Place, all_namespaces: bool, output: Output) -> None:
    """Look for what keeps LlamaClusters from working.

    First what the cluster lacks, then what is wrong with each LlamaCluster. Reads alone. What you
    may not read is told as unknown.

    \b
    Exit codes:
      0  nothing is wrong
      1  something is, or the API server refuses
      2  an option is wrong
    """
    findings: list[Finding] = []

    async def act(api: KubeApi, namespace: str) -> None:
        scope = "" if all_namespaces else f"/namespaces/{namespace}"
        answers = await ask(api, {**READS, "clusters": f"{READS['crd']}{scope}/llamaclusters"})
        for check in CHECKS:
            findings.extend(check(answers))

    connection.run(place, act)
    if output is Output.TABLE:
        for finding in findings:
            _print(finding)
    else:
        click.echo(formatted([_plain(finding) for finding in findings], output))
    if any(finding.level is Level.ERROR for finding in findings):
        raise SystemExit(1)


def _plain(finding: Finding) -> dict[str, str]:
    return {key: str(value) for key, value in asdict(finding).items() if value}


def _print(finding: Finding) -> None:
    console = out()
    style = _STYLES[finding.level]
    words = f"{finding.about}: {finding.message}"
    console.print(hanging(f"{finding.level.value:8} ", words, console.width, style))
    if finding.fix:
        console.print(hanging(f"{'':9}-> ", finding.fix, console.width, "cyan"))


async def ask(api: KubeApi, paths: Mapping[str, str]) -> Answers:
    """All at once. Raises ApiError for what is neither an answer nor a refusal."""
    from llamacluster.controller.kubeapi import ApiError

    denied: dict[str, str] = {}

    async def read(name: str, path: str) -> dict[str, Any] | None:
        try:
            return await api.get_raw(path, TIMEOUT_SECONDS)
        except ApiError as error:
            if error.status in (401, 403):
                denied[name] = error.message
            elif error.status != 404:
                raise
            return None

    answers = await asyncio.gather(*(read(name, path) for name, path in paths.items()))
    found = {name: it for name, it in zip(paths, answers, strict=True) if it is not None}
    return Answers(found, denied)


def _kubernetes(answers: Answers) -> Iterator[Finding]:
    told = answers.found.get("version", {})
    text = str(told.get("gitVersion", "?"))
    numbers = tuple(
        int("".join(filter(str.isdigit, str(told.get(part, "")))) or 0)
        for part in ("major", "minor")
    )
    if numbers >= OLDEST_KUBERNETES:
        yield Finding(Level.OK, "Kubernetes", text)
    else:
        oldest = ".".join(map(str, OLDEST_KUBERNETES))
        yield Finding(
            Level.ERROR, "Kubernetes", f"{text} is older than {oldest}", "upgrade the cluster"
        )


def _leaderworkerset(answers: Answers) -> Iterator[Finding]:
    about = "LeaderWorkerSet"
    if about_denied := answers.denied.get("leaderworkersets"):
        yield Finding(Level.UNKNOWN, about, about_denied)
        return
    crd = answers.found.get("leaderworkersets")
    install = "install LeaderWorkerSet 0.9 or newer: docs/install.md"
    if crd is None:
        yield Finding(Level.ERROR, about, "is not installed", install)
        return
    for version in crd["spec"]["versions"]:
        if version["name"] == "v1" and version["served"]:
            status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
            if "observedGeneration" in status:
                yield Finding(Level.OK, about, "v1, 0.9 or newer")
            else:
                yield Finding(Level.ERROR, about, "is older than 0.9", install)
            return
    yield Finding(Level.ERROR, about, "does not serve v1", install)


def _operator(answers: Answers) -> Iterator[Finding]:
    about = "operator"
    if "crd" not in answers.found:
        yield Finding(
            Level.ERROR,
            about,
            "the API server does not know LlamaCluster",
            "helm install llamacluster charts/llamacluster: docs/install.md",
        )
        return
    if denied := answers.denied.get("operators"):
        yield Finding(Level.UNKNOWN, about, denied)
        return
    deployments = answers.found.get("operators", {}).get("items", [])
    if not deployments:
        yield Finding(
            Level.WARNING,
            about,
            "no Deployment of it is in the cluster",
            "start one, unless it runs outside: docs/install.md",
        )
    for deployment in deployments:
        metadata = deployment["metadata"]
        name = f"{metadata['namespace']}/{metadata['name']}"
        if deployment.get("status", {}).get("availableReplicas"):
            image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
            yield Finding(Level.OK, about, f"{name} runs {image}")
        else:
            yield Finding(
                Level.ERROR,
                about,
                f"{name} has no pod that is available",
                f"kubectl -n {metadata['namespace']} describe pods -l {OPERATOR}",
            )


def _nodes(answers: Answers) -> Iterator[Finding]:
    if denied := answers.denied.get("nodes"):
        yield Finding(Level.UNKNOWN, "nodes", denied)
        return
    nodes = [node for node in answers.found["nodes"]["items"] if _takes_pods(node)]
    if not nodes:
        yield Finding(Level.ERROR, "nodes", "none is Ready and takes pods", "kubectl get nodes")
        return
    memory = sorted(to_bytes(node["status"]["allocatable"]["memory"]) for node in nodes)
    yield Finding(
        Level.OK,
        "nodes",
        f"{len(nodes)} take pods, with {shown(sum(memory))} of memory in all and at most"
        f" {shown(memory[-1])} in one",
    )
    kinds = Counter(node["metadata"].get("labels", {}).get("kubernetes.io/arch") for node in nodes)
    if len(kinds) > 1:
        yield Finding(
            Level.WARNING,
            "nodes",
            f"have different architectures: {', '.join(sorted(map(str, kinds)))}",
            "an engine image must be of one: choose by nodeSelector kubernetes.io/arch",
        )
    without = [node["metadata"]["name"] for node in nodes if not _has_ipv4(node)]
    if without:
        yield Finding(
            Level.ERROR,
            "nodes",
            f"have no IPv4 address for pods: {', '.join(without[:5])}",
            "the engine's RPC knows IPv4 alone: use nodes with it",
        )


def _takes_pods(node: Mapping[str, Any]) -> bool:
    if node["spec"].get("unschedulable"):
        return False
    taints = node["spec"].get("taints", [])
    conditions = node["status"].get("conditions", [])
    return not any(taint["effect"] in ("NoSchedule", "NoExecute") for taint in taints) and any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    )


def _has_ipv4(node: Mapping[str, Any]) -> bool:
    ranges = node["spec"].get("podCIDRs", [])
    return not ranges or any(":" not in each for each in ranges)  # some CNIs tell none


def _storage(answers: Answers) -> Iterator[Finding]:
    about = "storage"
    if denied := answers.denied.get("storageclasses"):
        yield Finding(Level.UNKNOWN, about, denied)
        return
    standard = [
        each["metadata"]["name"]
        for each in answers.found["storageclasses"]["items"]
        if each["metadata"]
        .get("annotations", {})
        .get("storageclass.kubernetes.io/is-default-class")
        == "true"
    ]
    if standard:
        yield Finding(Level.OK, about, f"StorageClass {standard[0]} is the default")
    else:
        yield Finding(
            Level.WARNING,
            about,
            "there is no default StorageClass",
            "name one in model.storage.storageClassName where you set model.storage",
        )


def _clusters(answers: Answers) -> Iterator[Finding]:
    if denied := answers.denied.get("clusters"):
        yield Finding(Level.UNKNOWN, "LlamaClusters", denied)
        return
    for stored in answers.found.get("clusters", {}).get("items", []):
        name = f"LlamaCluster {stored['metadata']['namespace']}/{stored['metadata']['name']}"
        try:
            cluster = LlamaCluster.model_validate(stored)
        except ValidationError as error:
            yield Finding(Level.ERROR, name, f"does not follow the API: {error}")
            continue
        yield from _cluster(name, cluster)


def _cluster(name: str, cluster: LlamaCluster) -> Iterator[Finding]:
    found = troubles(cluster)
    if not found and is_ready(cluster):
        yield Finding(Level.OK, name, "Ready")
    elif not found:
        yield Finding(
            Level.ERROR,
            name,
            "the operator has not seen its newest spec",
            f"kubectl get deployments -A -l {OPERATOR}",
        )
    at_work = any(
        condition.type == "Progressing" and condition.status is ConditionStatus.TRUE
        for condition in cluster.status.conditions
    )
    for condition in found:
        chosen = condition.reason == ClusterReason.PoliciesDisabled
        mild = chosen or (at_work and condition.type != "Degraded")
        level = Level.WARNING if mild else Level.ERROR
        yield Finding(
            level,
            name,
            f"{condition.type} is {condition.status}, {condition.reason}: {condition.message}",
            f"docs/troubleshooting.md#{condition.reason.lower()}",
        )
    plan = cluster.status.plan
    for advice in plan.advice if plan else []:
        yield Finding(Level.WARNING, name, advice)


CHECKS: tuple[Callable[[Answers], Iterator[Finding]], ...] = (
    _kubernetes,
    _leaderworkerset,
    _operator,
    _nodes,
    _storage,
    _clusters,
)
