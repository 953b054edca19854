"""`kubectl llamacluster doctor`: what the cluster lacks, and what is wrong with LlamaClusters."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.quantity import to_bytes
from llamacluster.api.reasons import ClusterReason
from llamacluster.api.status import ConditionStatus
from llamacluster.cli import connection
from llamacluster.cli.connection import Place
from llamacluster.cli.output import Output, formatted, output_option
from llamacluster.cli.status import is_ready, troubles
from llamacluster.cli.table import hanging
from llamacluster.cli.terminal import out
from llamacluster.planning.plan import shown

if TYPE_CHECKING:
    from llamacluster.controller.kubeapi import KubeApi

TIMEOUT_SECONDS = 30.0
"""For each read: thousands of nodes take their time."""
OLDEST_KUBERNETES = (1, 29)
OPERATOR = "app.kubernetes.io/name=llamacluster-operator"
CPU_LABEL = "feature.node.kubernetes.io/cpu-cpuid."
SHOWN = 5
"""Names in one line."""
_TAINTS_BY_STATE = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Of nodes that are not ready, cordoned or out of something; others are somebody's choice."""
_GAINS = {
    "AMX": "the fastest prompts",
    "AVX-512": "faster prompts",
    "AVX2": "the usual",
    "SVE": "faster prompts",
    "NEON": "the usual",
}
_SLOW, _UNTOLD = "no AVX2", "unknown"
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
    """The version first, which every API server has and nearly everybody may read; then the rest
    at once. Raises ApiError for what is neither an answer nor a refusal, and where nothing comes of
    the cluster: then the way to it is what is wrong, not the cluster."""
    from llamacluster.controller.kubeapi import ApiError

    found: dict[str, dict[str, Any]] = {}
    denied: dict[str, str] = {}

    async def read(name: str, seconds: float) -> None:
        try:
            found[name] = await api.get_raw(paths[name], seconds)
        except ApiError as error:
            if error.status == 403:
                denied[name] = error.message
            elif error.status != 404:
                raise

    await read("version", connection.ANSWER_SECONDS)
    if "version" not in denied and "gitVersion" not in found.get("version", {}):
        raise ApiError(
            404, "it tells no /version, so it is no API server: see `server` in the kubeconfig"
        )
    await asyncio.gather(*(read(name, TIMEOUT_SECONDS) for name in paths if name != "version"))
    if not found:
        raise ApiError(403, denied["version"])
    return Answers(found, denied)


def _kubernetes(answers: Answers) -> Iterator[Finding]:
    if unknown := _unknown(answers, "version", "Kubernetes"):
        yield unknown
        return
    told = answers.found["version"]
    text = str(told.get("gitVersion"))
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


def _unknown(answers: Answers, read: str, about: str) -> Finding | None:
    """What is to say of a read that brought nothing."""
    if read in answers.found:
        return None
    return Finding(Level.UNKNOWN, about, answers.denied.get(read, "the API server does not tell"))


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
            properties = version["schema"]["openAPIV3Schema"].get("properties", {})
            if "observedGeneration" in properties.get("status", {}).get("properties", {}):
                yield Finding(Level.OK, about, "v1, 0.9 or newer")
            else:
                yield Finding(Level.ERROR, about, "is older than 0.9", install)
            return
    yield Finding(Level.ERROR, about, "does not serve v1", install)


def _operator(answers: Answers) -> Iterator[Finding]:
    about = "operator"
    if denied := answers.denied.get("crd"):
        yield Finding(Level.UNKNOWN, about, denied)
        return
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
    about = "nodes"
    if unknown := _unknown(answers, "nodes", about):
        yield unknown
        return
    usable = _usable(answers)
    if not usable:
        yield Finding(Level.ERROR, about, "none is Ready and takes pods", "kubectl get nodes")
        return
    free = [node for node in usable if not _chosen_taints(node)]
    tainted = [node for node in usable if _chosen_taints(node)]
    if free:
        yield Finding(Level.OK, about, f"{len(free)} take pods, with {_memory(free)}")
    if tainted:
        number = f"{len(tainted)} more" if free else f"all ({len(tainted)})"
        verb = "is" if free and len(tainted) == 1 else "are"
        keys = ", ".join(sorted({key for node in tainted for key in _chosen_taints(node)}))
        yield Finding(
            Level.OK if free else Level.WARNING,
            about,
            f"{number} {verb} tainted ({keys}), with {_memory(tainted)}: tolerations in"
            " workers.tolerations and leader.tolerations let groups on them",
        )
    at_hand = free or tainted
    kinds = Counter(map(_architecture, at_hand))
    if len(kinds) > 1:
        yield Finding(
            Level.WARNING,
            about,
            f"have different architectures: {', '.join(sorted(kinds))}",
            "an engine image must be of one: choose by nodeSelector kubernetes.io/arch",
        )
    without = [node["metadata"]["name"] for node in at_hand if not _has_ipv4(node)]
    if without:
        yield Finding(
            Level.ERROR,
            about,
            f"have no IPv4 address for pods: {_some(without)}",
            "the engine's RPC knows IPv4 alone: use nodes with it",
        )


def _usable(answers: Answers) -> list[dict[str, Any]]:
    """The nodes that take pods, be it of those alone that tolerate their taints."""
    return [node for node in answers.found["nodes"].get("items", []) if _takes_pods(node)]


def _takes_pods(node: Mapping[str, Any]) -> bool:
    if node.get("spec", {}).get("unschedulable"):
        return False
    if any(key.startswith(_TAINTS_BY_STATE) for key in _taints(node)):
        return False
    conditions = node.get("status", {}).get("conditions", [])
    return any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    )


def _taints(node: Mapping[str, Any]) -> list[str]:
    """Keys of those that keep pods out."""
    taints = node.get("spec", {}).get("taints", [])
    return [taint["key"] for taint in taints if taint["effect"] in ("NoSchedule", "NoExecute")]


def _chosen_taints(node: Mapping[str, Any]) -> list[str]:
    return [key for key in _taints(node) if not key.startswith(_TAINTS_BY_STATE)]


def _memory(nodes: Sequence[Mapping[str, Any]]) -> str:
    sizes = [to_bytes(node["status"].get("allocatable", {}).get("memory", "0")) for node in nodes]
    return f"{shown(sum(sizes))} of memory in all and at most {shown(max(sizes))} in one"


def _labels(node: Mapping[str, Any]) -> Mapping[str, str]:
    labels: Mapping[str, str] = node["metadata"].get("labels", {})
    return labels


def _architecture(node: Mapping[str, Any]) -> str:
    return _labels(node).get("kubernetes.io/arch", "unknown")


def _some(names: Sequence[str]) -> str:
    """The first of them, when they are many."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _has_ipv4(node: Mapping[str, Any]) -> bool:
    ranges = node.get("spec", {}).get("podCIDRs", [])
    return not ranges or any(":" not in each for each in ranges)  # some CNIs tell none


def _cpus(answers: Answers) -> Iterator[Finding]:
    """By the labels of node-feature-discovery: a node itself tells its architecture alone."""
    if "nodes" not in answers.found:
        return  # said already
    about = "CPUs"
    found = [(node["metadata"]["name"], _cpu(node)) for node in _usable(answers)]
    counts = Counter(cpu for _, cpu in found)
    told = [f"{cpu} ({gain}): {counts[cpu]}" for cpu, gain in _GAINS.items() if counts[cpu]]
    if told:
        yield Finding(Level.OK, about, "nodes by the best that llama.cpp uses: " + "; ".join(told))
    if slow := [name for name, cpu in found if cpu == _SLOW]:
        yield Finding(
            Level.WARNING,
            about,
            f"no AVX2 in {_some(slow)}: llama.cpp is much slower there",
            f"keep groups off by workers.nodeSelector {CPU_LABEL}AVX2: 'true'",
        )
    if counts[_UNTOLD]:
        yield Finding(
            Level.UNKNOWN,
            about,
            f"no node-feature-discovery tells those of {counts[_UNTOLD]} of {len(found)} nodes:"
            " llama.cpp is faster with AVX2, AVX-512 and AMX",
        )


def _cpu(node: Mapping[str, Any]) -> str:
    """The best of its CPU's features that llama.cpp has code for, as in _GAINS; else what keeps
    it from being told."""
    labels = _labels(node)
    kind = _architecture(node)
    if kind == "arm64":
        return "SVE" if f"{CPU_LABEL}SVE" in labels else "NEON"  # which all of them have
    if kind != "amd64":
        return kind
    if not any(label.startswith(CPU_LABEL) for label in labels):
        return _UNTOLD
    for flag, name in (("AMXINT8", "AMX"), ("AVX512F", "AVX-512"), ("AVX2", "AVX2")):
        if f"{CPU_LABEL}{flag}" in labels:
            return name
    return _SLOW


def _network(answers: Answers) -> Iterator[Finding]:
    """By what operators have tried: that a network plug-in is installed proves nothing."""
    if "clusters" not in answers.found:
        return  # said elsewhere
    about = "network"
    tried: dict[str, list[str]] = {}
    for stored in answers.found["clusters"].get("items", []):
        for condition in stored.get("status", {}).get("conditions", []):
            if condition["type"] == "Isolated":
                tried.setdefault(condition["reason"], []).append(_name(stored))
    if refuted := tried.get(ClusterReason.PoliciesNotEnforced):
        yield Finding(
            Level.ERROR,
            about,
            f"does not enforce NetworkPolicies, or others open the ports of {_some(refuted)}",
            "docs/troubleshooting.md#policiesnotenforced",
        )
    elif proved := tried.get(ClusterReason.PoliciesEnforced):
        yield Finding(Level.OK, about, f"enforces NetworkPolicies: tried at {_some(proved)}")
    else:
        yield Finding(
            Level.UNKNOWN,
            about,
            "nobody has tried yet whether it enforces NetworkPolicies: the operator does at a"
            " LlamaCluster that is Ready",
        )


def _name(stored: Mapping[str, Any]) -> str:
    return f"{stored['metadata']['namespace']}/{stored['metadata']['name']}"


def _storage(answers: Answers) -> Iterator[Finding]:
    about = "storage"
    if unknown := _unknown(answers, "storageclasses", about):
        yield unknown
        return
    standard = [
        each["metadata"]["name"]
        for each in answers.found["storageclasses"].get("items", [])
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
        name = f"LlamaCluster {_name(stored)}"
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
    _cpus,
    _network,
    _storage,
    _clusters,
)
