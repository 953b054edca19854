"""What a user wants of a LlamaCluster: its spec."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from llamacluster.agent.contract.places import (
    DEFAULT_GRACE_SECONDS,
    DEFAULT_HUNG_ENGINE_SECONDS,
    DEFAULT_QUEUE_SECONDS,
    DEFAULT_SERVER_PORT,
    OWN_PORTS,
)
from llamacluster.api import engineflags
from llamacluster.api.network import NetworkPolicy
from llamacluster.api.scheduling import Annotations, PodSettings
from llamacluster.api.schema import (
    ApiModel,
    DnsSubdomain,
    LocalObjectReference,
    Quantity,
    Rule,
    rules,
)
from llamacluster.planning.split import MAX_WORKERS


class Topology(StrEnum):
    """How the model is laid over pods."""

    DISTRIBUTED = "Distributed"


class AccessMode(StrEnum):
    """Access mode of a claim."""

    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_WRITE_ONCE_POD = "ReadWriteOncePod"
    READ_WRITE_MANY = "ReadWriteMany"


class ModelStorage(ApiModel):
    """A claim that keeps the download."""

    size: Quantity
    """Size of the claim. Leave room for the whole model file."""
    storage_class_name: DnsSubdomain | None = None
    """StorageClass; default: the cluster's default."""
    access_modes: Annotated[list[AccessMode], Field(min_length=1, max_length=3)] = [
        AccessMode.READ_WRITE_ONCE
    ]
    """Access modes of the claim."""


# Classes of characters are spelt out: the API server's \s and Python's are not the same.
_HTTP_URL = (
    r"https?://([A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
    r"/[!\"$-~]*[!\"$-.0-~]"
)
_CLAIM = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_PATH = r"[^\x00-\x20\x7f]+"
_PART = r"[^\x00-\x20\x7f@/.][^\x00-\x20\x7f@/]*"
_HF = (
    r"^hf://(?P<repository>[A-Za-z0-9][-A-Za-z0-9._]*/[A-Za-z0-9][-A-Za-z0-9._]*)"
    rf"/(?P<path>({_PART}/)*{_PART}\.gguf)(@(?P<revision>[A-Za-z0-9][-A-Za-z0-9._/]*))?$"
)
_NO_HF = (
    "hf:// names a file of a repository: hf://ORG/REPO/FILE.gguf, or hf://ORG/REPO/FILE.gguf@TAG"
)
_PAGE = (
    r"^(hf://[^/]+/[^/]+/(resolve|blob|raw|tree)|"
    r"https://huggingface\.co/[^/]+/[^/]+/(blob|raw|tree))/"
)
_NO_PAGE = (
    "this is the address of a page: write hf://ORG/REPO/FILE.gguf, and @REVISION if it is not main"
)
_HUGGING_FACE = "https://huggingface.co"
_NO_STORAGE = "storage is for downloaded models: remove it, or use an http(s):// or hf:// uri"
_NO_CREDENTIALS = (
    "credentialsSecret is for downloads that nobody can listen to: remove it, or use an https:// "
    "or hf:// uri"
)


def _names_a_file(uri: str) -> str:
    # What an older CRD may have let through.
    if uri.startswith("hf://") and not re.fullmatch(_HF, uri):
        raise ValueError(_NO_HF)
    if re.match(_PAGE, uri):
        raise ValueError(_NO_PAGE)
    return uri


class ModelSource(ApiModel):
    """Where the model comes from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.storage) || self.uri.startsWith('http') || self.uri.startsWith('hf://')",
                _NO_STORAGE,
                ".storage",
            ),
            Rule(
                "!has(self.credentialsSecret) || self.uri.startsWith('https://') || "
                "self.uri.startsWith('hf://')",
                _NO_CREDENTIALS,
                ".credentialsSecret",
            ),
        )
    )

    uri: Annotated[
        str,
        Field(
            min_length=1,
            max_length=2048,
            pattern=rf"^({_HTTP_URL}|hf://{_PATH}|pvc://{_CLAIM}/{_PATH}|file:///{_PATH})$",
            json_schema_extra=rules(
                Rule(f"!self.startsWith('hf://') || self.matches(r'{_HF}')", _NO_HF),
                Rule(f"!self.matches(r'{_PAGE}')", _NO_PAGE),
            ),
        ),
        AfterValidator(_names_a_file),
    ]
    """GGUF file to serve: `https://host/path.gguf`, `http://...`, `hf://org/repo/path.gguf` (on
    Hugging Face; `hf://org/repo/path.gguf@revision` of a branch, tag or commit other than main),
    `pvc://claim/path.gguf` (a claim in this namespace, mounted read-only into the leader), or
    `file:///path.gguf` (in the engine image). Of a split model, name the first file
    (`...-00001-of-0000N.gguf`)."""
    sha256: Annotated[str, Field(pattern=r"^[a-f0-9]{64}$", max_length=64)] | None = None
    """SHA-256 of the file, 64 lower-case hex digits. A file with another digest is not served. Of
    a split model: of all its files, as in `cat NAME-*.gguf | sha256sum`."""
    credentials_secret: LocalObjectReference | None = None
    """Secret for the server of an `https://` or `hf://` model: `token` (sent as `Authorization:
    Bearer`), or `username` and `password`; and `ca.crt` if the server's certificate is signed by an
    authority of your own. A changed Secret is used from the next request on. It is shown to the
    host in `uri` alone, never to one that this leads to."""
    allow_local_addresses: bool = False
    """Let the download, its redirects included, connect to loopback, link-local and multicast
    addresses and to metadata services of clouds. Private networks are allowed without it."""
    storage: ModelStorage | None = None
    """A claim for each pod of a group, which outlives the pods, so that a rollout or a restart does
    not download the model again; deleted with the LlamaCluster. Absent: the pod's ephemeral
    storage. Cannot be changed later."""

    @model_validator(mode="after")
    def _storage_is_for_downloads(self) -> ModelSource:
        if self.storage and not self.is_downloaded:
            raise ValueError(_NO_STORAGE)
        return self

    @model_validator(mode="after")
    def _credentials_stay_secret(self) -> ModelSource:
        if self.credentials_secret and not self.location.startswith("https://"):
            raise ValueError(_NO_CREDENTIALS)
        return self

    @property
    def location(self) -> str:
        """Where the pods find it: `uri`, but the https address of what is on Hugging Face."""
        found = re.fullmatch(_HF, self.uri)
        if not found:
            return self.uri
        repository, path = found["repository"], quote(found["path"])
        revision = quote(found["revision"] or "main", safe="")
        return f"{_HUGGING_FACE}/{repository}/resolve/{revision}/{path}"

    @property
    def is_downloaded(self) -> bool:
        """Whether it comes from a web server."""
        return self.location.startswith(("http://", "https://"))

    @property
    def file_name(self) -> str:
        """Name of the file, as the user wrote it."""
        found = re.fullmatch(_HF, self.uri)
        path = found["path"] if found else self.uri.partition("?")[0]
        return path.rpartition("/")[2]


_NOTHING_TO_PLAN_BY = (
    "give workers.count, or workers.resources.limits.memory so that the count can be planned, or "
    "both"
)


class Workers(PodSettings):
    """The worker pods of each group. Give their count, and the memory that each needs is planned;
    or the memory limit, and the count is planned; or both, and it is checked that the model
    fits."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.count) || (has(self.resources) && has(self.resources.limits) && "
                "'memory' in self.resources.limits)",
                _NOTHING_TO_PLAN_BY,
            ),
        )
    )

    count: Annotated[int, Field(ge=1, le=MAX_WORKERS)] | None = None
    """Workers for each group, 1 to 15 (the engine's limit). Absent: planned, the smallest number of
    workers whose memory limit holds the model, its context and its working memory. More workers
    hold a larger model and speed up prompts and concurrent requests; a single stream's tokens/s
    does not grow. Changing it re-forms each group."""

    @model_validator(mode="after")
    def _can_be_planned(self) -> Workers:
        # What an older CRD may have let through.
        if self.count is None and "memory" not in (self.resources.limits or {}):
            raise ValueError(_NOTHING_TO_PLAN_BY)
        return self


class Leader(PodSettings):
    """The leader pod of each group."""


class CacheType(StrEnum):
    """Number format of the KV cache."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"
    Q5_1 = "q5_1"
    Q5_0 = "q5_0"
    Q4_1 = "q4_1"
    Q4_0 = "q4_0"
    IQ4_NL = "iq4_nl"


def _harmless(argument: str) -> str:
    # What an older CRD may have let through.
    if why := engineflags.refusal(argument):
        raise ValueError(why)
    return argument


EngineArgument = Annotated[
    str,
    # No program can be given a NUL.
    Field(
        min_length=1,
        max_length=1024,
        pattern=r"^[^\x00]+$",
        json_schema_extra=rules(*engineflags.RULES),
    ),
    AfterValidator(_harmless),
]


_UBATCH_TOO_LARGE = "ubatchSize must not be greater than batchSize"
_BATCH_TOO_SMALL = "batchSize must be at least parallel: each slot adds a token to the batch"
_MOST_TOKENS = 2**31 - 256
"""The engine reads the context of all slots as a signed 32-bit number, and rounds up to 256."""
_CONTEXT_TOO_LARGE = f"contextSize x parallel must be at most {_MOST_TOKENS} tokens"


class Inference(ApiModel):
    """How the engine runs the model. A change rolls the groups one after another."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                # The API server also tries the rule on the bare default, {}.
                "!has(self.ubatchSize) || !has(self.batchSize) || "
                "self.ubatchSize <= self.batchSize",
                _UBATCH_TOO_LARGE,
                ".ubatchSize",
            ),
            Rule(
                "!has(self.parallel) || !has(self.batchSize) || self.parallel <= self.batchSize",
                _BATCH_TOO_SMALL,
                ".batchSize",
            ),
            Rule(
                "!has(self.contextSize) || !has(self.parallel) || "
                f"self.contextSize * self.parallel <= {_MOST_TOKENS}",
                _CONTEXT_TOO_LARGE,
                ".contextSize",
            ),
        )
    )

    context_size: Annotated[int, Field(ge=32, le=16_777_216)] = 4096
    """Context in tokens of each request slot, prompt and answer together. The engine allocates
    contextSize x parallel tokens of KV cache over the workers."""
    parallel: Annotated[int, Field(ge=1, le=256)] = 1
    """Request slots: how many requests are worked on at the same time."""
    cache_type_k: CacheType = CacheType.F16
    """Format of the K cache. q8_0 halves its memory with hardly any loss."""
    cache_type_v: CacheType = CacheType.F16
    """Format of the V cache. Quantised formats need flash attention, which the engine turns on by
    itself on CPUs where the model allows."""
    batch_size: Annotated[int, Field(ge=1, le=1_048_576)] = 2048
    """Most prompt tokens submitted at once (logical batch)."""
    ubatch_size: Annotated[int, Field(ge=1, le=1_048_576)] = 512
    """Most prompt tokens computed at once (physical batch); sets the compute buffers' memory."""
    embeddings: bool = False
    """Serve `/v1/embeddings` instead of chat and completions; for embedding models."""
    chat_template: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]+$", max_length=64)] | None = None
    """Name of one of llama.cpp's built-in chat templates; default: the model's own."""
    extra_args: Annotated[list[EngineArgument], Field(max_length=64)] = []
    """Further llama-server arguments, one word each: `["--temp", "0.2"]`. Refused are flags that
    this API has a field for, and those that the plan or the group's safety depends on."""

    @model_validator(mode="after")
    def _fits_together(self) -> Inference:
        if self.ubatch_size > self.batch_size:
            raise ValueError(_UBATCH_TOO_LARGE)
        if self.parallel > self.batch_size:
            raise ValueError(_BATCH_TOO_SMALL)
        if self.context_size * self.parallel > _MOST_TOKENS:
            raise ValueError(_CONTEXT_TOO_LARGE)
        return self


class ServiceType(StrEnum):
    """How the API's Service is published."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class Service(ApiModel):
    """The Service in front of the groups' leaders. It has the LlamaCluster's name."""

    type: ServiceType = ServiceType.CLUSTER_IP
    """ClusterIP, NodePort or LoadBalancer."""
    annotations: Annotations | None = None
    """Annotations added to the Service."""


_OWN_PORT = f"ports {', '.join(map(str, OWN_PORTS[:-1]))} and {OWN_PORTS[-1]} are the group's own"


def _free_port(port: int) -> int:
    if port in OWN_PORTS:
        raise ValueError(_OWN_PORT)
    return port


class Queue(ApiModel):
    """What waits while all request slots are taken."""

    max_requests: Annotated[int, Field(ge=1, le=900)] | None = None
    """How many requests may wait in each group; default: 8 for each of inference.parallel. Others
    are answered with 429 and Retry-After at once."""
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = DEFAULT_QUEUE_SECONDS
    """How long each of them may wait for a slot; then it is answered with 429."""


class Server(ApiModel):
    """The OpenAI-compatible API that a group serves."""

    port: Annotated[
        int,
        Field(
            ge=1024,
            le=65535,
            json_schema_extra=rules(
                Rule(" && ".join(f"self != {port}" for port in OWN_PORTS), _OWN_PORT)
            ),
        ),
        AfterValidator(_free_port),
    ] = DEFAULT_SERVER_PORT
    """Port of the API, in the pods and in the Service."""
    queue: Queue = Queue()
    """What waits while all request slots are taken."""
    service: Service = Service()
    """The Service in front of the API."""
    api_keys_secret: LocalObjectReference | None = None
    """Secret of this namespace with the API's keys: each value holds one key per line, each of 16
    to 512 visible ASCII characters. A request needs one of them (`Authorization: Bearer KEY`).
    While the Secret is missing or has no key, nobody is let in. Another content is taken up as the
    groups run, within about a minute. Absent: no key is asked for."""
    tls_secret: LocalObjectReference | None = None
    """Secret of this namespace of type kubernetes.io/tls, such as cert-manager makes: the API is
    served over TLS (1.2 or newer) with its certificate. A renewed one is taken up as the groups
    run, within about a minute. Absent: plain HTTP."""


class Rpc(ApiModel):
    """How a leader and its workers talk to each other."""

    encryption: bool = False
    """Mutual TLS between the leader and the workers of each group, through a further container in
    each pod, with certificates that the operator makes and renews. It costs CPU time and some
    latency for each token (see docs/security.md). A change rolls the groups."""


_NOTHING_CAN_CHANGE = (
    "maxUnavailable can be 0 only with a maxSurge: without either no group can change"
)


class Rollout(ApiModel):
    """How groups get a changed spec: one after another, from the highest index down."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.maxUnavailable) || self.maxUnavailable > 0 || "
                "(has(self.maxSurge) && self.maxSurge > 0)",
                _NOTHING_CAN_CHANGE,
                ".maxUnavailable",
            ),
        )
    )

    max_unavailable: Annotated[int, Field(ge=0, le=1000)] | None = None
    """How many groups may be down for it at the same time; default: 1, or 0 with a maxSurge."""
    max_surge: Annotated[int, Field(ge=0, le=1000)] = 0
    """How many further groups are made for the time of it. With 1, a single group goes on serving
    until another one does; it takes nodes with room for one more group."""
    progress_deadline_seconds: Annotated[int, Field(ge=10, le=86_400)] = 300
    """A rollout is told to be stuck when a group has failed to become Ready for so long. Downloads
    and loads that go on do not count as failing, unless tries before them have."""

    @model_validator(mode="after")
    def _something_can_change(self) -> Rollout:
        if self.max_unavailable == 0 and self.max_surge == 0:
            raise ValueError(_NOTHING_CAN_CHANGE)
        return self

    @property
    def unavailable(self) -> int:
        """maxUnavailable, said or not. With both at 1, LeaderWorkerSet would make no further group
        for a single one."""
        if self.max_unavailable is None:
            return 0 if self.max_surge else 1
        return self.max_unavailable


class Recovery(ApiModel):
    """How a broken group comes back by itself."""

    lost_node_seconds: Annotated[int, Field(ge=0, le=86_400)] = 30
    """How long a node may be unreachable or not ready before the pods on it are replaced by pods on
    other nodes, counted from when Kubernetes finds it so, for which it takes about 40 s. Your own
    tolerations of `node.kubernetes.io/unreachable` and `not-ready` win. A leader with a claim that
    one node only can mount is not replaced: the status says what to do."""
    hung_engine_seconds: Annotated[int, Field(ge=4, le=86_400)] = DEFAULT_HUNG_ENGINE_SECONDS
    """For how long requests may be under way without a sign of life, until the engine is started
    anew. However slow the model is, this need not be longer: a long prompt takes CPU time, and that
    is a sign of life. Raise it where the engine may wait for a disk, or for a network that stands
    still for so long. A load may stand still for three times as long, or for a quarter of the time
    that it has taken."""


class ImagePullPolicy(StrEnum):
    """When the kubelet pulls the image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class LlamaClusterSpec(ApiModel):
    """What is wanted: a model, and the pods to pool the memory of."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.model.storage) == has(oldSelf.model.storage) && "
                "(!has(self.model.storage) || self.model.storage == oldSelf.model.storage)",
                "storage cannot be changed: claims are made once. "
                "Create another LlamaCluster and delete this one",
                ".model",
            ),
        )
    )

    topology: Topology = Topology.DISTRIBUTED
    """How the model is laid over pods. Distributed: one copy over the workers of a group, for a
    model that is larger than any one node. When the model fits one node, one node is faster."""
    model: ModelSource
    """The model to serve."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Independent groups, each with a whole copy of the model over its own leader and workers."""
    workers: Workers
    """The worker pods of each group. They hold the model's layers and its KV cache."""
    leader: Leader = Leader()
    """The leader pod of each group. It serves the API and sends the model to the workers; it holds
    the token embeddings but no layers."""
    inference: Inference = Inference()
    """How the engine runs the model."""
    server: Server = Server()
    """The API that a group serves."""
    network_policy: NetworkPolicy = NetworkPolicy()
    """Who may reach the pods: the groups' own ports are for the groups alone, the API is for those
    named here."""
    rpc: Rpc = Rpc()
    """How a leader and its workers talk to each other."""
    rollout: Rollout = Rollout()
    """How groups get a changed spec."""
    recovery: Recovery = Recovery()
    """How a broken group comes back by itself."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86_400)] = DEFAULT_GRACE_SECONDS
    """Seconds that running requests, streams too, have to finish when a group is deleted, scaled
    down or rolled, or its node is drained. A group without requests stops within seconds."""
    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[!-~]+$")] | None = None
    """Engine image of leader and workers; default: the operator's. It must have the agent in it
    (see images/engine)."""
    image_pull_policy: ImagePullPolicy | None = None
    """When the image is pulled; default: Always for the tag latest, else IfNotPresent."""
    image_pull_secrets: Annotated[list[LocalObjectReference], Field(max_length=16)] | None = None
    """Secrets to pull the image with."""
