"""`kubectl llamacluster import`: a LlamaCluster out of somebody's llama-server manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import click

from llamacluster.agent.contract.places import DEFAULT_SERVER_PORT, OWN_PORTS
from llamacluster.agent.credentials import TOKEN
from llamacluster.api import API_VERSION, KIND
from llamacluster.api.engineflags import REFUSED_FLAGS
from llamacluster.api.llamacluster import MAX_NAME_LENGTH
from llamacluster.api.spec import ServiceType
from llamacluster.cli import serverflags
from llamacluster.cli.manifest import MAX_BYTES, BadManifest, objects_of, problems
from llamacluster.cli.output import Output, formatted
from llamacluster.cli.terminal import BadInput, say
from llamacluster.resources.metadata import LWS_WORKER_INDEX_LABEL

Json = dict[str, Any]
WORKLOADS = ("LeaderWorkerSet", "Deployment", "StatefulSet")
UNKNOWN_URI = "https://REPLACE-ME/model.gguf"
"""Where the manifest does not tell the model."""

_SERVER = re.compile(r"llama-server|llamacpp-leader|llama\.cpp|llamacpp|llama-cpp")
_RPC_SERVER = re.compile(r"rpc-server")
_WORKER = re.compile(r"rpc-server|llamacpp-worker|llama\.cpp|llamacpp|llama-cpp")
_URL = re.compile(r"https?://[^\s\"'|;&]+\.gguf\b")
_WITH_TOKEN = ("hf://", "https://huggingface.co/", UNKNOWN_URI)
_CARRIED = ("nodeSelector", "tolerations", "affinity", "priorityClassName")
_LWS_NAME_LABEL = "leaderworkerset.sigs.k8s.io/name"
_INTEGERS = {
    "batch-size": "batchSize",
    "ubatch-size": "ubatchSize",
}
_TEXTS = {
    "cache-type-k": "cacheTypeK",
    "cache-type-v": "cacheTypeV",
    "chat-template": "chatTemplate",
}
_LAYOUT = ("-ngl", "--n-gpu-layers", "--gpu-layers", "-ts", "--tensor-split", "-sm", "--split-mode")


@dataclass
class Imported:
    """A LlamaCluster, what its reader has to know, and what he has to do."""

    manifest: Json
    notes: list[str] = field(default_factory=list)
    to_do: list[str] = field(default_factory=list)


@click.command("import")
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE"
)
@click.option(
    "-o",
    "--output",
    type=click.Choice([Output.YAML, Output.JSON], case_sensitive=False),
    default=Output.YAML,
    show_default="yaml",
    help="Format of the LlamaClusters; several of them are a List in JSON.",
)
def import_(file: str, output: Output) -> None:
    """Make LlamaClusters of the llama-servers in FILE.

    Takes LeaderWorkerSets, such as LeaderWorkerSet's own example for llama.cpp, Deployments and
    StatefulSets; - is standard input. Prints manifests and makes nothing in a cluster. What is left
    out, and what is left to do, is told on standard error: read it before you apply the result.

    \b
    Exit codes:
      0  printed, and nothing is left to do
      1  printed, and something is: see the lines that begin with "to do"
      2  FILE holds no llama-server, or cannot be read
    """
    name = "standard input" if file == "-" else file
    try:
        with click.open_file(file, "rb") as content:
            documents = objects_of(content.read(MAX_BYTES + 1), name)
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from error
    except BadManifest as error:
        raise BadInput(str(error)) from error
    servers = f"{', '.join(WORKLOADS[:-1])} or {WORKLOADS[-1]} that runs llama-server"
    if not documents:
        raise BadInput(f"{name} is empty: it should hold a {servers}")
    found = imported(documents)
    if not found:
        kinds = ", ".join(sorted({str(each.get("kind", "no kind")) for each in documents}))
        raise BadInput(f"{name} holds no {servers}, but: {kinds}")
    wrong = False
    for each in found:
        called = f"{each.manifest['metadata']['name']}: " if len(found) > 1 else ""
        for note in each.notes:
            say("note", called + note, "dim")
        for task in (*problems(each.manifest), *each.to_do):
            wrong = True
            say("to do", called + task, "bold yellow")
    if output is Output.JSON:
        manifests = [each.manifest for each in found]
        several = {"apiVersion": "v1", "kind": "List", "items": manifests}
        click.echo(formatted(manifests[0] if len(found) == 1 else several, output))
    else:
        click.echo("\n---\n".join(formatted(each.manifest, output) for each in found))
    if wrong:
        raise SystemExit(1)


def imported(documents: Sequence[Json]) -> list[Imported]:
    """A LlamaCluster for each object that runs llama-server."""
    services = [each for each in documents if each.get("kind") == "Service"]
    found: list[Imported] = []
    for document in documents:
        if document.get("kind") not in WORKLOADS:
            continue
        workload = _workload(document)
        if workload:
            found.append(_Importer(workload, services).result())
    return found


@dataclass
class _Workload:
    name: str
    namespace: str | None
    replicas: int | None
    labels: Json
    """Of the server's pods."""
    pod: Json
    """Spec of the server's pods."""
    server: Json
    """Its container."""
    size: int | None = None
    """Pods of a group."""
    own_service: str | None = None
    """Name of the Service that LeaderWorkerSet makes for it."""
    worker_pod: Json = field(default_factory=dict)
    worker: Json = field(default_factory=dict)


def _workload(document: Json) -> _Workload | None:
    spec = _dict(document.get("spec"))
    metadata = _dict(document.get("metadata"))
    group = _dict(spec.get("leaderWorkerTemplate"))
    worker_pod = _pod(group.get("workerTemplate"))
    name = str(metadata.get("name", "imported"))
    if document["kind"] == "LeaderWorkerSet":
        leader, worker = group.get("leaderTemplate"), group.get("workerTemplate")
        template = leader if _pod(leader) else worker
        added = {_LWS_NAME_LABEL: name, LWS_WORKER_INDEX_LABEL: "0"}
    else:
        template, added = spec.get("template"), {}
    pod = _pod(template)
    server = next(
        (
            each
            for each in _containers(pod)
            if _runs(each, _SERVER) and not _runs(each, _RPC_SERVER)
        ),
        None,
    )
    if server is None:
        return None
    size = group.get("size")
    return _Workload(
        name=name,
        namespace=metadata.get("namespace"),
        replicas=spec.get("replicas"),
        labels=_dict(_dict(_dict(template).get("metadata")).get("labels")) | added,
        pod=pod,
        server=server,
        size=size if isinstance(size, int) else None,
        own_service=_own_service(document),
        worker_pod=worker_pod,
        worker=next((each for each in _containers(worker_pod) if _runs(each, _WORKER)), {}),
    )


def _own_service(document: Json) -> str | None:
    network = _dict(_dict(document.get("spec")).get("networkConfig"))
    shared = network.get("subdomainPolicy") != "UniquePerReplica"
    is_set = document["kind"] == "LeaderWorkerSet"
    return _text(_dict(document.get("metadata")).get("name")) if is_set and shared else None


class _Importer:
    """One workload on its way to a LlamaCluster."""

    def __init__(self, workload: _Workload, services: Sequence[Json]) -> None:
        self._from = workload
        self._services_beside = services
        self._spec: Json = {"model": {"uri": UNKNOWN_URI}, "workers": {}}
        self._notes: list[str] = []
        self._to_do: list[str] = []
        self._env = {
            str(each.get("name")): str(each["value"])
            for each in _dicts(workload.server.get("env"))
            if "value" in each
        }

    def result(self) -> Imported:
        meant, others = self._read()
        if self._from.replicas not in (None, 1):
            self._spec["replicas"] = self._from.replicas
        self._spec["model"]["uri"] = self._uri(meant)
        self._credentials(meant)
        self._workers(meant)
        self._leader(meant)
        self._inference(meant, others)
        self._server(meant)
        self._pull_secrets()
        name = self._name()
        self._services(name)
        self._note_the_rest()
        ordered = (
            *("model", "replicas", "workers", "leader", "inference", "server"),
            "imagePullSecrets",
        )
        spec = {key: self._spec[key] for key in ordered if key in self._spec}
        metadata = {"name": name}
        if self._from.namespace:
            metadata["namespace"] = self._from.namespace
        manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}
        if spec["model"]["uri"] == UNKNOWN_URI:
            self._to_do.append("spec.model.uri: write where the model is")
        return Imported(manifest, self._notes, self._to_do)

    def _name(self) -> str:
        cleaned = re.sub(r"[^a-z0-9-]", "-", self._from.name.lower()).lstrip("-0123456789")
        name = cleaned[:MAX_NAME_LENGTH].rstrip("-").removesuffix("-group") or "imported"
        if name != self._from.name:
            self._notes.append(
                f"the name {self._from.name} became {name}: a LlamaCluster's has at most"
                f" {MAX_NAME_LENGTH} characters and starts with a letter"
            )
        return name

    def _read(self) -> tuple[dict[str, str | None], list[tuple[str, str | None]]]:
        """What has a place in a LlamaCluster, and the other flags."""
        server = self._from.server
        meant: dict[str, str | None] = {}
        for name, value in self._env.items():
            if kind := serverflags.meaning(name):
                meant[kind] = value
        others: list[tuple[str, str | None]] = []
        words = serverflags.arguments(
            _words(server.get("command")), _words(server.get("args")), self._env
        )
        for flag, given in serverflags.flags(words):
            if kind := serverflags.meaning(flag):
                meant[kind] = given
            else:
                others.append((flag, given))
        return meant, others

    def _uri(self, meant: Mapping[str, str | None]) -> str:
        if url := meant.get("model-url"):
            return url
        if repo := meant.get("hf-repo"):
            return self._of_hugging_face(repo, meant.get("hf-file"))
        path = meant.get("model")
        fetched: list[str] = [
            url
            for container in _dicts(self._from.pod.get("initContainers"))
            for word in [*_words(container.get("command")), *_words(container.get("args"))]
            for url in _URL.findall(word)
        ]
        if not path:
            if not fetched:
                self._notes.append(
                    "the manifest does not say which model is served: it may be in the image"
                )
                return UNKNOWN_URI
            return fetched[0]
        mount = _mount(self._from.server, path)
        volume = _volume(self._from.pod, mount) if mount else {}
        if mount and (claim := _dict(volume.get("persistentVolumeClaim")).get("claimName")):
            inner = PurePosixPath(path).relative_to(str(mount["mountPath"]))
            return f"pvc://{claim}/{PurePosixPath(str(mount.get('subPath') or ''), inner)}"
        if fetched:
            same = [url for url in fetched if url.endswith(PurePosixPath(path).name)]
            return (same or fetched)[0]
        if mount:
            kind = next((key for key in volume if key != "name"), "volume")
            self._notes.append(
                f"the model {path} is in a volume ({kind}) that a LlamaCluster cannot mount: put"
                " it on a claim (pvc://CLAIM/PATH) or on a web server"
            )
            return UNKNOWN_URI
        self._notes.append(
            f"the model {path} is in the image: file:// works with an engine image of yours that"
            " has it (spec.image, see images/engine); better put it on a claim or a web server"
        )
        return f"file:///{path.lstrip('/')}"

    def _of_hugging_face(self, repo: str, file: str | None) -> str:
        repo, _, quant = repo.partition(":")
        if file:
            return f"hf://{repo}/{file}"
        self._notes.append(
            f"of {repo} on Hugging Face{f' {quant}' if quant else ''}, write the file into"
            f" spec.model.uri: hf://{repo}/FILE.gguf"
        )
        return UNKNOWN_URI

    def _credentials(self, meant: Mapping[str, str | None]) -> None:
        """The Secret with the token for Hugging Face. The token itself is never repeated."""
        model, reference = self._spec["model"], self._secret_of("hf-token")
        if not ("hf-token" in meant or reference):
            return
        if not model["uri"].startswith(_WITH_TOKEN):
            self._notes.append(
                "the token for Hugging Face is left out: the model comes from elsewhere"
            )
            return
        name = f"{self._from.name}-model"
        if reference.get("key") == TOKEN:
            name = _text(reference.get("name")) or name
        else:
            self._notes.append(
                "put the token for Hugging Face into a Secret of its own, under the key token:"
                f" kubectl create secret generic {name} --from-file=token=FILE"
            )
        model["credentialsSecret"] = {"name": name}

    def _workers(self, meant: Mapping[str, str | None]) -> None:
        source, workers = self._from, self._spec["workers"]
        addresses = [each for each in (meant.get("rpc") or "").split(",") if each]
        count = (source.size or 1) - 1 or len(addresses)
        container = source.worker if source.size else source.server
        if count:
            workers["count"] = count
        self._put_pod(workers, source.worker_pod if source.size else source.pod, container)
        if count == 0 and "memory" not in _dict(_dict(workers.get("resources")).get("limits")):
            workers["count"] = 2
            self._notes.append(
                "2 workers are a guess: give workers.count, or a memory limit and they are planned"
            )
        elif count == 0:
            self._notes.append(
                "the server's resources are those of each worker now, and the operator plans how"
                " many workers the model takes"
            )
        words = [*_words(container.get("command")), *_words(container.get("args"))]
        of_worker = dict(serverflags.flags(words)) if source.size else {}
        threads = of_worker.get("-t") or of_worker.get("--threads")
        if not source.size:
            threads = meant.get("threads")
        self._put_threads(workers, threads)

    def _leader(self, meant: Mapping[str, str | None]) -> None:
        leader: Json = {}
        if self._from.size:
            self._put_pod(leader, self._from.pod, self._from.server)
            self._put_threads(leader, meant.get("threads"))
        else:
            # The pod's resources were for the layers, which are the workers' now.
            self._put_scheduling(leader, self._from.pod)
        if leader:
            self._spec["leader"] = leader

    def _put_pod(self, settings: Json, pod: Json, container: Json) -> None:
        resources = _dict(container.get("resources"))
        kept = {}
        for kind in ("limits", "requests"):
            amounts = _dict(resources.get(kind))
            ours = {key: value for key, value in amounts.items() if "/" not in key}
            if ours:
                kept[kind] = ours
            for key in amounts.keys() - ours.keys():
                note = f"{key} is left out: the engine runs on CPUs"
                if note not in self._notes:
                    self._notes.append(note)
        if kept:
            settings["resources"] = kept
        self._put_scheduling(settings, pod)

    @staticmethod
    def _put_scheduling(settings: Json, pod: Json) -> None:
        settings.update({key: pod[key] for key in _CARRIED if pod.get(key)})

    def _put_threads(self, settings: Json, threads: str | None) -> None:
        count = _integer(threads)
        cpus = _dict(_dict(settings.get("resources")).get("limits")).get("cpu")
        if count and count > 0 and str(count) != str(cpus):  # they follow the limit by themselves
            settings["threads"] = count

    def _inference(
        self, meant: Mapping[str, str | None], others: Sequence[tuple[str, str | None]]
    ) -> None:
        inference: Json = {}
        parallel = _integer(meant.get("parallel"))
        if parallel and parallel > 1:
            inference["parallel"] = parallel
        elif not parallel or parallel < 1:
            self._notes.append(
                "without --parallel the engine chooses its slots; inference.parallel is 1 unless"
                " you write it"
            )
        context = _integer(meant.get("ctx-size"))
        if context:
            inference["contextSize"] = context // max(parallel or 1, 1)
            if parallel and parallel > 1:
                self._notes.append(
                    f"--ctx-size {context} is of all {parallel} slots:"
                    f" inference.contextSize, of each, is {inference['contextSize']}"
                )
        else:
            self._notes.append(
                "without --ctx-size the engine takes the model's; inference.contextSize is 4096"
                " unless you write it"
            )
        for kind, key in _INTEGERS.items():
            if (number := _integer(meant.get(kind))) is not None:
                inference[key] = number
        for kind, key in _TEXTS.items():
            if text := meant.get(kind):
                inference[key] = text
        if "embeddings" in meant and str(meant["embeddings"]).lower() not in ("0", "false", "off"):
            inference["embeddings"] = True
        extra = list(self._extra(others))
        if extra:
            inference["extraArgs"] = extra
        if inference:
            self._spec["inference"] = inference

    def _extra(self, others: Sequence[tuple[str, str | None]]) -> Iterator[str]:
        for flag, value in others:
            if why := REFUSED_FLAGS.get(flag.replace("_", "-")):
                said = f"{flag} {value}" if value else flag
                if flag in _LAYOUT:
                    why = "the operator plans which worker holds which layers"
                self._notes.append(f"{said} is left out: {why}")
            else:
                yield flag
                if value is not None:
                    yield value

    def _server(self, meant: Mapping[str, str | None]) -> None:
        server: Json = {}
        port = _integer(meant.get("port"))
        if port and (port < 1024 or port in OWN_PORTS):
            self._notes.append(f"the port {port} became {DEFAULT_SERVER_PORT}: it cannot be used")
        elif port and port != DEFAULT_SERVER_PORT:
            server["port"] = port
        if "api-key" in meant or "api-key-file" in meant or self._key_secret():
            server["apiKeysSecret"] = {"name": self._keys(meant.get("api-key-file"))}
        if "ssl-cert-file" in meant:
            secret = self._secret_at(meant["ssl-cert-file"])
            server["tlsSecret"] = {"name": secret or f"{self._from.name}-tls"}
            if not secret:
                self._notes.append(
                    "the certificate is in no Secret: make one of type kubernetes.io/tls,"
                    f" {self._from.name}-tls"
                )
        if server:
            self._spec["server"] = server

    def _keys(self, file: str | None) -> str:
        """Name of the Secret with the API keys. The keys themselves are never repeated."""
        if secret := self._key_secret() or self._secret_at(file):
            return secret
        name = f"{self._from.name}-api-keys"
        self._notes.append(
            "an API key does not belong into a manifest: put it into the Secret"
            f" {name} (kubectl create secret generic {name} --from-file=keys=FILE)"
        )
        return name

    def _key_secret(self) -> str | None:
        """The Secret that LLAMA_API_KEY comes from."""
        return _text(self._secret_of("api-key").get("name"))

    def _secret_of(self, meaning: str) -> Json:
        """The secretKeyRef of the environment variable of this meaning; empty if there is none."""
        for each in _dicts(self._from.server.get("env")):
            if serverflags.meaning(str(each.get("name"))) == meaning:
                return _dict(_dict(each.get("valueFrom")).get("secretKeyRef"))
        return {}

    def _secret_at(self, path: str | None) -> str | None:
        mount = _mount(self._from.server, path) if path else None
        volume = _volume(self._from.pod, mount) if mount else {}
        return _text(_dict(volume.get("secret")).get("secretName"))

    def _pull_secrets(self) -> None:
        if secrets := self._from.pod.get("imagePullSecrets"):
            self._spec["imagePullSecrets"] = secrets

    def _services(self, name: str) -> None:
        """What stands in FILE for the Service that the operator makes, which has this name."""
        if self._from.own_service == name:
            self._to_do.append(
                f"Service {name}, which LeaderWorkerSet {name} has, is in the way of the operator's"
                " own: delete the LeaderWorkerSet, or give the LlamaCluster another name"
            )
        port = _dict(self._spec.get("server")).get("port", DEFAULT_SERVER_PORT)
        for service in self._services_beside:
            metadata, spec = _dict(service.get("metadata")), _dict(service.get("spec"))
            own = self._from.namespace
            if own and metadata.get("namespace") not in (None, own):
                continue
            selector, labels = _dict(spec.get("selector")), self._from.labels
            leads_here = selector and all(labels.get(k) == v for k, v in selector.items())
            kind = spec.get("type") or ServiceType.CLUSTER_IP
            ports = ", ".join(str(each.get("port")) for each in _dicts(spec.get("ports")))
            if metadata.get("name") == name:
                self._to_do.append(
                    f"Service {name} is in the way of the operator's own: delete it, or give the"
                    " LlamaCluster another name"
                )
                if (kind, ports) == (ServiceType.CLUSTER_IP, str(port)):
                    continue
            elif not leads_here:
                continue
            self._notes.append(
                f"Service {metadata.get('name')} ({kind}, port {ports}) is left out: the operator"
                f" makes Service {name} (ClusterIP, port {port}; see server.service and"
                " server.port)"
            )

    def _note_the_rest(self) -> None:
        image = self._from.server.get("image")
        if image:
            self._notes.append(
                f"the image {image} is left out: the operator's engine image has the agent in it"
            )
        account = self._from.pod.get("serviceAccountName")
        if account not in (None, "", "default"):
            self._notes.append(
                f"the service account {account} is left out: nothing in the pods talks to the"
                " API server"
            )
        others = [
            str(each.get("name"))
            for each in _containers(self._from.pod)
            if each is not self._from.server
        ]
        if others:
            self._notes.append(f"other containers are left out: {', '.join(others)}")


def _runs(container: Json, pattern: re.Pattern[str]) -> bool:
    words = [
        str(container.get("image", "")),
        *_words(container.get("command")),
        *_words(container.get("args")),
    ]
    return any(pattern.search(word) for word in words)


def _mount(container: Json, path: str) -> Json | None:
    """The innermost mount that a file is in."""
    inside = [
        each
        for each in _dicts(container.get("volumeMounts"))
        if PurePosixPath(path).is_relative_to(str(each.get("mountPath")))
    ]
    return max(inside, key=lambda each: len(str(each["mountPath"])), default=None)


def _volume(pod: Json, mount: Json) -> Json:
    volumes = _dicts(pod.get("volumes"))
    return next((each for each in volumes if each.get("name") == mount.get("name")), {})


def _pod(template: object) -> Json:
    return _dict(_dict(template).get("spec"))


def _containers(pod: Json) -> list[Json]:
    return _dicts(pod.get("containers"))


def _words(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _dicts(value: object) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _dict(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _integer(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"-?\d+", text) else None
