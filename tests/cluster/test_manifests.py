"""What the API server takes and refuses, in words that tell the user what to do."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError
from pydantic import ValidationError

from llamacluster.api.engineflags import REFUSED_FLAGS
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.cli.manifest import BadManifest, read_manifest
from llamacluster.controller.kubeapi import LLAMACLUSTERS, load_configuration
from tests.build import Manifest, a_plan, manifest
from tests.cluster import hostile
from tests.generated import manifests, some, spoilt
from tests.kind.cluster import Cluster
from tests.kind.command import CommandFailed
from tests.kind.host import REPOSITORY

pytestmark = pytest.mark.cluster

EXAMPLES = REPOSITORY / "examples"
HTTP = "http://models/m.gguf"
TOLERATION = {"key": "a", "operator": "Exists"}
SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}


@dataclass(frozen=True)
class Verdict:
    """What the API server says of a manifest."""

    code: int
    message: str
    stored: Manifest
    """What it would store."""

    @property
    def accepted(self) -> bool:
        return self.code == HTTPStatus.CREATED


async def judge(cluster: Cluster, wanted: Iterable[Manifest]) -> list[Verdict]:
    """What `kubectl create --dry-run=server` with strict fields would say of each."""
    configuration = await load_configuration(str(cluster.kubeconfig), None)
    at_once = asyncio.Semaphore(16)
    async with ApiClient(configuration) as client:
        dynamic = DynamicClient(client)

        async def ask(one: Manifest) -> Verdict:
            async with at_once:
                try:
                    answer = await dynamic.request(
                        "post",
                        LLAMACLUSTERS.path(namespace="default"),
                        body={**one, "metadata": {**one["metadata"], "namespace": "default"}},
                        query_params=[("fieldValidation", "Strict"), ("dryRun", "All")],
                        serialize=False,
                    )
                    return Verdict(HTTPStatus.CREATED, "", json.loads(await answer.read()))
                except DynamicApiError as error:
                    message = json.loads(error.body or "{}")["message"]
                    return Verdict(error.status, message, {})

        return await asyncio.gather(*map(ask, wanted))


def create(cluster: Cluster, wanted: Manifest) -> None:
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(wanted))


def model(**fields: Any) -> Manifest:
    return {"model": {"uri": HTTP, **fields}}


def workers(**fields: Any) -> Manifest:
    return {"workers": {"count": 2, **fields}}


def inference(**fields: Any) -> Manifest:
    return {"inference": fields}


def at(stored: Manifest, path: str) -> Any:
    """The value at `a.b.c`; None where there is none."""
    value: Any = stored
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


# Accepted: the spec, and what is stored at some places of it.
ACCEPTED: dict[str, tuple[Manifest, dict[str, Any]]] = {
    "the least": (
        {},
        {
            "topology": "Distributed",
            "replicas": 1,
            "inference.contextSize": 4096,
            "inference.parallel": 1,
            "inference.cacheTypeK": "f16",
            "inference.cacheTypeV": "f16",
            "inference.batchSize": 2048,
            "inference.ubatchSize": 512,
            "inference.embeddings": False,
            "rollout.maxUnavailable": None,
            "rollout.maxSurge": 0,
            "rollout.progressDeadlineSeconds": 300,
            "recovery.hungEngineSeconds": 20,
            "server.queue.timeoutSeconds": 60,
            "recovery.lostNodeSeconds": 30,
            "server.port": 8080,
            "server.service.type": "ClusterIP",
            "image": None,
            "model.storage": None,
            "workers.threads": None,
            "workers.topologySpreadConstraints": None,
        },
    ),
    "https with a query": (model(uri="https://h/a/m.gguf?download=true"), {}),
    "a split model": (model(uri="https://h/m-00001-of-00003.gguf"), {}),
    "a port in the URI": (model(uri="http://h:8080/m.gguf"), {}),
    "a file on Hugging Face": (model(uri="hf://Qwen/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf"), {}),
    "in a folder, of a tag": (model(uri="hf://o/r/Q4/m-00001-of-00003.gguf@v1.0"), {}),
    "of a pull request": (model(uri="hf://o/r/m.gguf@refs/pr/1"), {}),
    "its address": (model(uri="https://huggingface.co/o/r/resolve/main/m.gguf"), {}),
    "with letters of many tongues": (model(uri="hf://o/r/mü模.gguf"), {}),
    "a token for Hugging Face": (
        model(uri="hf://o/r/m.gguf", credentialsSecret={"name": "hub"}),
        {"model.credentialsSecret.name": "hub"},
    ),
    "credentials for a server": (model(uri="https://h/m", credentialsSecret={"name": "a.b"}), {}),
    "storage for a file on Hugging Face": (
        model(uri="hf://o/r/m.gguf", storage={"size": "1Gi"}),
        {"model.storage.accessModes": ["ReadWriteOnce"]},
    ),
    "a claim": (model(uri="pvc://my-claim/m.gguf"), {}),
    "a claim with a dot, a file in folders": (model(uri="pvc://a.b/c/d/m.gguf"), {}),
    "a file of the image": (model(uri="file:///models/m.gguf"), {}),
    "a checksum": (model(sha256="0" * 64), {}),
    "storage": (
        model(storage={"size": "40Gi"}),
        {"model.storage.size": "40Gi", "model.storage.accessModes": ["ReadWriteOnce"]},
    ),
    "storage of a number of bytes": (
        model(storage={"size": 1073741824, "storageClassName": "fast"}),
        {"model.storage.size": 1073741824},
    ),
    "a group more for a rollout": ({"rollout": {"maxSurge": 1, "maxUnavailable": 0}}, {}),
    "lost nodes are given up at once": ({"recovery": {"lostNodeSeconds": 0}}, {}),
    "no replicas": ({"replicas": 0}, {"replicas": 0}),
    "many replicas": ({"replicas": 1000}, {}),
    "one worker": ({"workers": {"count": 1}}, {}),
    "as many workers as the engine can have": ({"workers": {"count": 15}}, {}),
    "resources": (
        workers(resources={"limits": {"cpu": 2, "memory": "1.5Gi"}, "requests": {"cpu": "500m"}}),
        {"workers.resources.limits.cpu": 2, "workers.resources.limits.memory": "1.5Gi"},
    ),
    "memory, and a count to be planned": (
        {"workers": {"resources": {"limits": {"memory": "32Gi"}}}},
        {"workers.count": None},
    ),
    **{
        f"memory {memory!r}": ({"workers": {"resources": {"limits": {"memory": memory}}}}, {})
        for memory in ("1m", "100", 1, "1e40", "0.5Ki")
    },
    "extended resources": (workers(resources={"limits": {"example.com/npu": 1}}), {}),
    "threads": (workers(threads=8), {"workers.threads": 8}),
    "node selector and tolerations": (
        workers(nodeSelector={"example.com/disk": "fast"}, tolerations=[TOLERATION]),
        {"workers.tolerations": [TOLERATION]},
    ),
    "affinity": (
        workers(
            affinity={
                "podAntiAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "weight": 100,
                            "podAffinityTerm": {
                                "topologyKey": "kubernetes.io/hostname",
                                "labelSelector": {"matchLabels": {"app": "x"}},
                            },
                        }
                    ]
                }
            }
        ),
        {},
    ),
    "spread constraints": (workers(topologySpreadConstraints=[SPREAD]), {}),
    "no spread constraints": (
        workers(topologySpreadConstraints=[]),
        {"workers.topologySpreadConstraints": []},
    ),
    "labels and annotations": (
        {"leader": {"metadata": {"labels": {"a/b": ""}, "annotations": {"c": "any text"}}}},
        {},
    ),
    "an empty part is filled field by field": (
        {"inference": {}, "server": {}},
        {"inference.contextSize": 4096, "server.port": 8080, "server.service.type": "ClusterIP"},
    ),
    "a partly given part is filled": (
        inference(contextSize=8192),
        {"inference.contextSize": 8192, "inference.parallel": 1},
    ),
    "a quantised cache": (inference(cacheTypeK="q8_0", cacheTypeV="q4_0"), {}),
    "equal batches": (inference(batchSize=512, ubatchSize=512), {}),
    "embeddings": (inference(embeddings=True), {"inference.embeddings": True}),
    "a template": (inference(chatTemplate="chatml"), {}),
    "engine arguments": (
        inference(extraArgs=["--temp", "0.2", "--no-webui", "$(X)"]),
        {"inference.extraArgs": ["--temp", "0.2", "--no-webui", "$(X)"]},
    ),
    "an argument that only begins like one of ours": (
        inference(extraArgs=["--rpc-x", "2", "-c2"]),
        {},
    ),
    "a load balancer": (
        {"server": {"service": {"type": "LoadBalancer", "annotations": {"a/b": "c"}}}},
        {"server.port": 8080},
    ),
    "an image by digest": ({"image": f"registry.example/e@sha256:{'a' * 64}"}, {}),
    "pull policy and secrets": (
        {"imagePullPolicy": "Never", "imagePullSecrets": [{"name": "a"}]},
        {},
    ),
}

UNPLANNABLE: list[Manifest] = [
    {},
    {"resources": {}},
    {"resources": {"limits": {"cpu": 1}}},
    {"resources": {"requests": {"memory": "1Gi"}}},
]
# Refused: the spec, the field, and the part of the message that tells the user what is wrong.
REFUSED: dict[str, tuple[Manifest, str, str]] = {
    "no model": ({"model": None}, "spec.model", "Required value"),
    "no workers": ({"workers": None}, "spec.workers", "Required value"),
    **{
        f"neither count nor memory: {spec}": (
            {"workers": spec},
            "spec.workers",
            "give workers.count, or workers.resources.limits.memory so that the count can be",
        )
        for spec in UNPLANNABLE
    },
    **{
        f"memory {memory!r}": (
            {"workers": {"count": 2, "resources": {"limits": {"memory": memory}}}},
            "spec.workers.resources.limits",
            "a memory limit of 0 holds nothing",
        )
        for memory in ("0", 0, "0.0Gi", "0e5", "+0")
    },
    "a leader without memory": (
        {"leader": {"resources": {"limits": {"memory": "0"}}}},
        *("spec.leader.resources.limits", "a memory limit of 0 holds nothing"),
    ),
    "no URI": ({"model": {}}, "spec.model.uri", "Required value"),
    "an unknown topology": ({"topology": "Ring"}, "spec.topology", '"Distributed"'),
    "another scheme": (model(uri="ftp://h/m.gguf"), "spec.model.uri", "should match"),
    "no scheme": (model(uri="/models/m.gguf"), "spec.model.uri", "should match"),
    "a host without a file": (model(uri="https://h"), "spec.model.uri", "should match"),
    "a folder": (model(uri="https://h/folder/"), "spec.model.uri", "should match"),
    "a space in the URI": (model(uri="https://h/m y.gguf"), "spec.model.uri", "should match"),
    "a password": (model(uri="https://u:p@h/m.gguf"), "spec.model.uri", "should match"),
    "a fragment": (model(uri="https://h/m.gguf#x"), "spec.model.uri", "should match"),
    **{
        f"{uri} on Hugging Face": (
            model(uri=uri),
            *("spec.model.uri", "hf:// names a file of a repository: hf://ORG/REPO/FILE.gguf"),
        )
        for uri in (
            *("hf://o", "hf://o/r", "hf://o/r/", "hf://o/r:Q4_K_M", "hf://o/r/m.bin"),
            *("hf://m.gguf", "hf://o/m.gguf", "hf://o//m.gguf", "hf://o/r//m.gguf"),
            *("hf://o/r/../m.gguf", "hf://o/r/m.gguf@", "hf://o/r/.gguf"),
            *("hf://o/r@v1/m.gguf", "hf://o/r/m.gguf@v1@v2", "hf://o/r/m.gguf?download=true"),
            "hf://o/r/m.gguf@-x",
        )
    },
    **{
        f"{uri}, a page": (
            model(uri=uri),
            *("spec.model.uri", "the address of a page: write hf://ORG/REPO/FILE.gguf"),
        )
        for uri in (
            *("hf://o/r/resolve/main/m.gguf", "hf://o/r/blob/main/m.gguf"),
            *(f"https://huggingface.co/o/r/{way}/main/m.gguf" for way in ("blob", "raw", "tree")),
        )
    },
    "credentials in the clear": (
        model(uri="http://h/m.gguf", credentialsSecret={"name": "hub"}),
        *("spec.model.credentialsSecret", "remove it, or use an https:// or hf:// uri"),
    ),
    "credentials for a claim": (
        model(uri="pvc://c/m.gguf", credentialsSecret={"name": "hub"}),
        *("spec.model.credentialsSecret", "remove it, or use an https:// or hf:// uri"),
    ),
    "a Secret in capitals": (
        model(uri="https://h/m.gguf", credentialsSecret={"name": "Hub"}),
        *("spec.model.credentialsSecret.name", "should match"),
    ),
    "a Secret without a name": (
        model(uri="https://h/m.gguf", credentialsSecret={}),
        *("spec.model.credentialsSecret.name", "Required value"),
    ),
    "a claim without a file": (model(uri="pvc://claim"), "spec.model.uri", "should match"),
    "a claim in capitals": (model(uri="pvc://Claim/m.gguf"), "spec.model.uri", "should match"),
    "a relative file": (model(uri="file://m.gguf"), "spec.model.uri", "should match"),
    "a very long URI": (model(uri=f"https://h/{'a' * 2048}"), "spec.model.uri", "Too long"),
    "a short checksum": (model(sha256="abc"), "spec.model.sha256", "should match"),
    "a checksum in capitals": (model(sha256="A" * 64), "spec.model.sha256", "should match"),
    "storage without a size": (model(storage={}), "spec.model.storage.size", "Required value"),
    "a size without a sense": (
        *(model(storage={"size": "forty"}), "spec.model.storage.size"),
        "should match",
    ),
    "a negative size": (model(storage={"size": -1}), "spec.model.storage.size", "greater than or"),
    "an unknown access mode": (
        model(storage={"size": "1Gi", "accessModes": ["ReadOnlyMany"]}),
        *("spec.model.storage.accessModes[0]", "supported values"),
    ),
    "no access mode": (
        model(storage={"size": "1Gi", "accessModes": []}),
        *("spec.model.storage.accessModes", "at least 1 items"),
    ),
    "storage for a claim": (
        model(uri="pvc://claim/m.gguf", storage={"size": "1Gi"}),
        *("spec.model.storage", "storage is for downloaded models: remove it, or use an http(s)://"),
    ),
    "storage for a file of the image": (
        model(uri="file:///m.gguf", storage={"size": "1Gi"}),
        *("spec.model.storage", "storage is for downloaded models"),
    ),
    "fewer than no replicas": ({"replicas": -1}, "spec.replicas", "greater than or equal to 0"),
    "too many replicas": ({"replicas": 1001}, "spec.replicas", "less than or equal to 1000"),
    "half a replica": ({"replicas": 1.5}, "spec.replicas", "must be of type integer"),
    "replicas as text": ({"replicas": "2"}, "spec.replicas", "must be of type integer"),
    "no worker": ({"workers": {"count": 0}}, "spec.workers.count", "greater than or equal to 1"),
    "more workers than the engine can have": (
        *({"workers": {"count": 16}}, "spec.workers.count"),
        "less than or equal to 15",
    ),
    "no thread": (workers(threads=0), "spec.workers.threads", "greater than or equal to 1"),
    "a limit without a sense": (
        workers(resources={"limits": {"memory": "4GB"}}),
        *("spec.workers.resources.limits.memory", "should match"),
    ),
    "a negative limit": (
        workers(resources={"limits": {"cpu": -1}}),
        *("spec.workers.resources.limits.cpu", "greater than or equal to 0"),
    ),
    "a limit below zero as text": (
        workers(resources={"limits": {"cpu": "-1"}}),
        *("spec.workers.resources.limits.cpu", "should match"),
    ),
    "a label value with a space": (
        workers(metadata={"labels": {"a": "b c"}}),
        *("spec.workers.metadata.labels.a", "should match"),
    ),
    "a label that LeaderWorkerSet sets": (
        workers(metadata={"labels": {"leaderworkerset.sigs.k8s.io/worker-index": "0"}}),
        *("spec.workers.metadata.labels", "keys under llamacluster.dev/"),
    ),
    **{
        f"the annotation {key}": (
            {"leader": {"metadata": {"annotations": {key: "x"}}}},
            *("spec.leader.metadata.annotations", "would take pods out of their confinement"),
        )
        for key in (
            "container.apparmor.security.beta.kubernetes.io/leader",
            "k8s.v1.cni.cncf.io/networks",
        )
    },
    "a queue for nobody": (
        {"server": {"queue": {"maxRequests": 0}}},
        *("spec.server.queue.maxRequests", "greater than or equal to 1"),
    ),
    "a hang that is none": (
        {"recovery": {"hungEngineSeconds": 1}},
        *("spec.recovery.hungEngineSeconds", "greater than or equal to 4"),
    ),
    "an unknown effect": (
        workers(tolerations=[{"operator": "Exists", "effect": "Never"}]),
        *("spec.workers.tolerations[0].effect", "supported values"),
    ),
    "an affinity without a term": (
        workers(
            affinity={
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}
                }
            }
        ),
        *("nodeSelectorTerms", "at least 1 items"),
    ),
    "a spread constraint without a topology": (
        workers(topologySpreadConstraints=[{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]),
        *("spec.workers.topologySpreadConstraints[0].topologyKey", "Required value"),
    ),
    "a tiny context": (inference(contextSize=16), "spec.inference.contextSize", "equal to 32"),
    "no slot": (inference(parallel=0), "spec.inference.parallel", "greater than or equal to 1"),
    "an unknown cache type": (
        *(inference(cacheTypeK="int8"), "spec.inference.cacheTypeK"),
        "supported values",
    ),
    "a rollout that can change nothing": (
        {"rollout": {"maxUnavailable": 0}},
        *("spec.rollout.maxUnavailable", "maxUnavailable can be 0 only with a maxSurge"),
    ),
    "a time that runs backwards": (
        {"recovery": {"lostNodeSeconds": -1}},
        *("spec.recovery.lostNodeSeconds", "greater than or equal to 0"),
    ),
    "a physical batch larger than the logical one": (
        inference(batchSize=256, ubatchSize=512),
        *("spec.inference.ubatchSize", "ubatchSize must not be greater than batchSize"),
    ),
    "a physical batch larger than the default": (
        inference(ubatchSize=4096),
        *("spec.inference.ubatchSize", "ubatchSize must not be greater than batchSize"),
    ),
    "more slots than a batch has tokens": (
        inference(batchSize=8, ubatchSize=8, parallel=9),
        *("spec.inference.batchSize", "batchSize must be at least parallel"),
    ),
    "more context than the engine counts": (
        inference(contextSize=16_777_216, parallel=128),
        *("spec.inference.contextSize", "contextSize x parallel must be at most 2147483392 tokens"),
    ),
    "a template that is a text": (
        inference(chatTemplate="{{ messages }}"),
        *("spec.inference.chatTemplate", "should match"),
    ),
    "an empty argument": (inference(extraArgs=[""]), "spec.inference.extraArgs[0]", "at least 1"),
    "too many arguments": (inference(extraArgs=["-x"] * 65), "inference.extraArgs", "Too many"),
    **{
        f"our own flag {flag}": (
            inference(extraArgs=["--temp", "1", flag]),
            "spec.inference.extraArgs[2]",
            f"{flag.partition('=')[0]} is refused: ",
        )
        for flag in (*REFUSED_FLAGS, "--ctx-size=1", "--ctx_size", "--n_gpu-layers=1")
    },
    "a privileged port": ({"server": {"port": 80}}, "spec.server.port", "equal to 1024"),
    "no such port": ({"server": {"port": 65536}}, "spec.server.port", "equal to 65535"),
    **{
        f"the group's own port {port}": (
            {"server": {"port": port}},
            *("spec.server.port", "are the group's own"),
        )
        for port in (18080, 50051, 50052)
    },
    "an unknown Service type": (
        {"server": {"service": {"type": "ExternalName"}}},
        *("spec.server.service.type", "supported values"),
    ),
    **{
        f"a peer that is {what}": (
            {"networkPolicy": {"from": [peer]}},
            *("spec.networkPolicy.from[0]", message),
        )
        for what, peer, message in (
            ("nobody", {}, "a peer is either an ipBlock, or pods"),
            (
                *("two things", {"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}),
                "a peer is either an ipBlock, or pods",
            ),
            ("an address", {"ipBlock": {"cidr": "10.0.0.1"}}, "should match"),
            ("of IPv6", {"ipBlock": {"cidr": "fd00::/8"}}, "lets nobody in: remove it"),
            ("no address", {"ipBlock": {}}, "Required value"),
        )
    },
    "peers that Kubernetes would take for everybody": (
        {"networkPolicy": {"from": []}},
        *("spec.networkPolicy.from", "at least 1 items"),
    ),
    "monitoring by nobody": (
        {"networkPolicy": {"monitoring": []}},
        *("spec.networkPolicy.monitoring", "at least 1 items"),
    ),
    "an image with a space": ({"image": "a b"}, "spec.image", "should match"),
    "an empty image": ({"image": ""}, "spec.image", "at least 1 chars"),
    "an unknown pull policy": ({"imagePullPolicy": "Maybe"}, "spec.imagePullPolicy", "supported"),
    "API keys without a Secret's name": (
        *({"server": {"apiKeysSecret": {}}}, "spec.server.apiKeysSecret.name", "Required"),
    ),
    "a certificate in a Secret with a path for a name": (
        {"server": {"tlsSecret": {"name": "../other"}}},
        *("spec.server.tlsSecret.name", "should match"),
    ),
    "a pull secret without a name": (
        *({"imagePullSecrets": [{}]}, "spec.imagePullSecrets[0].name"),
        "Required value",
    ),
    **{
        f"a typo: {path}": (spec, f'unknown field "{path}"', "")
        for path, spec in {
            "spec.replica": {"replica": 2},
            "spec.model.url": model(url=HTTP),
            "spec.workers.resource": workers(resource={}),
            "spec.inference.ctxSize": inference(ctxSize=1),
            "spec.server.service.kind": {"server": {"service": {"kind": "NodePort"}}},
            "spec.workers.tolerations[0].efect": workers(
                tolerations=[{"operator": "Exists", "efect": "NoExecute"}]
            ),
        }.items()
    },
}  # fmt: skip


HOSTILE = [
    *hostile.wrong_types(),
    *hostile.numbers(),
    *hostile.injections(),
    *hostile.quantities(hostile.GOOD_QUANTITIES),
    *hostile.quantities(hostile.BAD_QUANTITIES),
]
ALL: dict[str, Manifest] = {
    **{case: manifest(**spec) for case, (spec, _) in ACCEPTED.items()},
    **{case: manifest(**spec) for case, (spec, _, _) in REFUSED.items()},
    **{f"name {name!r}": manifest(name) for name in hostile.GOOD_NAMES + hostile.BAD_NAMES},
    **{case: wanted for case, _, wanted in HOSTILE},
}


@pytest.fixture(scope="module")
def verdicts(api_server: Cluster) -> dict[str, Verdict]:
    """What the API server says of all of them, asked at once."""
    return dict(zip(ALL, asyncio.run(judge(api_server, ALL.values())), strict=True))


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(verdicts: dict[str, Verdict], case: str) -> None:
    _, expected = ACCEPTED[case]
    assert verdicts[case].message == ""
    stored = verdicts[case].stored["spec"]
    assert {path: at(stored, path) for path in expected} == expected


@pytest.mark.parametrize("case", REFUSED)
def test_refused(verdicts: dict[str, Verdict], case: str) -> None:
    _, field, message = REFUSED[case]
    assert not verdicts[case].accepted
    assert field in verdicts[case].message
    assert message in verdicts[case].message


def test_the_corpus_is_large() -> None:
    assert len(ALL) > 1000


def test_names_that_are_good_for_a_service_are_accepted(verdicts: dict[str, Verdict]) -> None:
    for name in hostile.GOOD_NAMES:
        assert verdicts[f"name {name!r}"].message == ""


def test_other_names_are_refused(verdicts: dict[str, Verdict]) -> None:
    silent = [
        name
        for name in hostile.BAD_NAMES
        if verdicts[f"name {name!r}"].accepted or "name" not in verdicts[f"name {name!r}"].message
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a" * 40, "metadata.name must have at most 39 characters"),
        ("a.b", "metadata.name must start with a letter and have only lower-case letters"),
        ("1a", "metadata.name must start with a letter"),
        ("x-group", "metadata.name must not end with -group"),
        ("A", "a lowercase RFC 1123 subdomain"),
        ("a-", "a lowercase RFC 1123 subdomain"),
        ("a_b", "a lowercase RFC 1123 subdomain"),
    ],
)
def test_names_are_refused_in_words(verdicts: dict[str, Verdict], name: str, message: str) -> None:
    assert message in verdicts[f"name {name!r}"].message


def test_whatever_is_refused_is_refused_by_the_name_of_its_field(
    verdicts: dict[str, Verdict],
) -> None:
    silent = {
        case: verdict.message
        for case, path, _ in HOSTILE
        if not (verdict := verdicts[case]).accepted
        and (verdict.code >= 500 or hostile.name_of(path) not in verdict.message)
    }
    assert silent == {}


def test_no_field_takes_a_value_of_another_type(verdicts: dict[str, Verdict]) -> None:
    taken = [case for case, *_ in hostile.wrong_types() if verdicts[case].accepted]
    assert taken == []


def test_quantities_are_taken_in_every_form_and_in_no_other(verdicts: dict[str, Verdict]) -> None:
    good = [case for case, *_ in hostile.quantities(hostile.GOOD_QUANTITIES)]
    bad = [case for case, *_ in hostile.quantities(hostile.BAD_QUANTITIES)]
    assert [verdicts[case].message for case in good if not verdicts[case].accepted] == []
    assert [case for case in bad if verdicts[case].accepted] == []


def test_what_the_api_server_takes_the_operator_can_read(verdicts: dict[str, Verdict]) -> None:
    unreadable = {}
    for case, verdict in verdicts.items():
        if verdict.accepted:
            try:
                LlamaCluster.model_validate(verdict.stored)
            except ValidationError as error:
                unreadable[case] = str(error)
    assert unreadable == {}


def test_the_command_line_judges_as_the_api_server_does(verdicts: dict[str, Verdict]) -> None:
    differences = {
        case: verdict.message or "the API server takes it"
        for case, verdict in verdicts.items()
        if _command_line_takes(ALL[case]) != verdict.accepted
    }
    assert differences == {}


def _command_line_takes(wanted: Manifest) -> bool:
    try:
        read_manifest(json.dumps(wanted).encode(), "m.json")
    except BadManifest:
        return False
    return True


async def test_generated_manifests_are_taken_by_both_or_refused_by_the_name_of_a_field(
    api_server: Cluster,
) -> None:
    wanted = [*some(manifests(), 60), *some(spoilt(), 60)]
    verdicts = await judge(api_server, wanted)
    assert sum(verdict.accepted for verdict in verdicts) > 20
    for one, verdict in zip(wanted, verdicts, strict=True):
        assert _command_line_takes(one) == verdict.accepted, (one, verdict.message)
        if verdict.accepted:
            LlamaCluster.model_validate(verdict.stored)
        else:
            named = re.findall(r"\bspec((?:\.[\w./-]+|\[[^]]*\])+)", verdict.message)
            assert named, (one, verdict.message)
            assert verdict.code < HTTPStatus.INTERNAL_SERVER_ERROR


STORAGE = {"size": "1Gi", "storageClassName": "fast"}


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        (STORAGE, {**STORAGE, "size": "2Gi"}, True),
        (STORAGE, {**STORAGE, "storageClassName": "slow"}, True),
        (STORAGE, None, True),
        (None, STORAGE, True),
        (STORAGE, STORAGE, False),
        (None, None, False),
    ],
    ids=["size", "class", "removed", "added", "the same", "none"],
)
async def test_storage_cannot_be_changed(
    api_server: Cluster,
    shared_namespace: str,
    before: Manifest | None,
    after: Manifest | None,
    refused: bool,
    request: pytest.FixtureRequest,
) -> None:
    name = request.node.callspec.id.replace(" ", "-")
    spec = model(storage=before) if before else {}
    create(api_server, manifest(name, shared_namespace, **spec))
    # With another change beside it, so that the object is written at all.
    changes = {"spec": {"replicas": 2, "model": {"storage": after}}}
    patch = ["patch", "llc", name, f"--namespace={shared_namespace}", "--type=merge"]
    patch.append(f"--patch={json.dumps(changes)}")
    if refused:
        with pytest.raises(CommandFailed) as failed:
            api_server.kubectl(*patch)
        assert "storage cannot be changed: claims are made once" in str(failed.value)
        assert "Create another LlamaCluster and delete this one" in str(failed.value)
    else:
        api_server.kubectl(*patch)


def test_kubectl_apply_refuses_a_typo(api_server: Cluster, shared_namespace: str) -> None:
    typo = json.dumps(manifest("typo", shared_namespace, inference={"contextsize": 1}))
    with pytest.raises(CommandFailed, match=r'unknown field "spec\.inference\.contextsize"'):
        api_server.kubectl("apply", "-f", "-", stdin=typo)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("llc.spec.inference", ["How the engine runs the model", "contextSize <integer>"]),
        ("llc.spec.model.uri", ["GGUF file to serve", "pvc://claim/path.gguf"]),
        ("llc.spec.workers.count", ["1 to 15 (the engine's limit)"]),
        ("llc.status.conditions", ["Ready, Progressing, Degraded, Planned or Isolated"]),
        ("llc.status.plan", ["perWorker <[]Object>", "If not, no pod is started or changed"]),
    ],
)  # fmt: skip
def test_kubectl_explain_reads_like_documentation(
    api_server: Cluster, path: str, words: list[str]
) -> None:
    text = " ".join(api_server.kubectl("explain", path).split())
    assert [word for word in words if word not in text] == []


async def test_kubectl_get_finds_it_by_short_name_and_in_all(
    api_server: Cluster, shared_namespace: str
) -> None:
    create(api_server, manifest("listed", shared_namespace))
    in_namespace = f"--namespace={shared_namespace}"
    header, *rows = api_server.kubectl("get", "llc", "listed", in_namespace).splitlines()
    assert header.split() == ["NAME", "MODEL", "TOPOLOGY", "WORKERS", "READY", "REASON", "AGE"]
    assert rows[0].split()[:2] == ["listed", "Distributed"]
    everything = api_server.kubectl("get", "all", in_namespace, "-o", "name")
    assert "llamacluster.llamacluster.dev/listed" in everything


async def test_kubectl_get_wide_has_the_plan(api_server: Cluster, shared_namespace: str) -> None:
    create(api_server, manifest("wide", shared_namespace))
    in_namespace = f"--namespace={shared_namespace}"
    plan = a_plan(3, 3, 2).model_dump(mode="json", by_alias=True, exclude_none=True)
    patch = f"--patch={json.dumps({'status': {'plan': plan}})}"
    api_server.kubectl(
        *("patch", "llc/wide", "--subresource=status", "--type=merge", patch, in_namespace)
    )
    header, row = api_server.kubectl("get", "llc/wide", "-o", "wide", in_namespace).splitlines()
    assert header.split()[3:8:4] == ["WORKERS", "WORKER-MEMORY"]
    assert row.split()[1:3] == ["Distributed", "3"]
    assert "2000Mi" in row.split()


async def test_kubectl_scale_changes_replicas(api_server: Cluster, shared_namespace: str) -> None:
    create(api_server, manifest("scaled", shared_namespace))
    in_namespace = f"--namespace={shared_namespace}"
    api_server.kubectl("scale", "llc/scaled", "--replicas=2", in_namespace)
    stored = api_server.kubectl(
        "get", "llc/scaled", in_namespace, "-o", "jsonpath={.spec.replicas}"
    )
    assert stored == "2"
    with pytest.raises(CommandFailed, match="less than or equal to 1000"):
        api_server.kubectl("scale", "llc/scaled", "--replicas=1001", in_namespace)


async def test_kubectl_autoscale_makes_an_autoscaler_of_it(
    api_server: Cluster, shared_namespace: str
) -> None:
    wanted = manifest("autoscaled", shared_namespace)
    create(api_server, wanted)
    in_namespace = f"--namespace={shared_namespace}"
    # Without --cpu, which older ones spell --cpu-percent: what it scales is the same.
    api_server.kubectl("autoscale", "llc/autoscaled", "--min=1", "--max=2", in_namespace)
    target = api_server.kubectl(
        *("get", "hpa/autoscaled", in_namespace, "-o", "jsonpath={.spec.scaleTargetRef}")
    )
    assert json.loads(target) == {
        "apiVersion": wanted["apiVersion"],
        "kind": wanted["kind"],
        "name": "autoscaled",
    }


async def test_a_user_cannot_write_the_status_with_the_spec(
    api_server: Cluster,
) -> None:
    [verdict] = await judge(api_server, [{**manifest(), "status": {"replicas": 5}}])
    assert verdict.stored["status"] == {"observedGeneration": -1}


def test_the_examples_are_accepted(api_server: Cluster) -> None:
    api_server.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(EXAMPLES))
