"""What operator and agents say to each other: ports, paths, command lines and the status JSON.

The operator imports this module and `planning`, nothing else of the agents.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypedDict

from llamacluster.planning.split import MAX_WORKERS as MAX_WORKERS

AGENT_UID = 10001
"""User and group of the engine image. It needs no capability and no writable root file system."""

WORKER_CONTAINER = "worker"
LEADER_CONTAINER = "leader"
PLAN_CONTAINER = "plan"
GATE_CONTAINER = "gate"
TUNNEL_CONTAINER = "tunnel"

RPC_PORT = 50052
"""Port of the worker's RPC server. Only the group's leader may connect; probes never do."""
AGENT_PORT = 50051
"""Port of the agents' HTTP, in workers and leaders alike."""
ENGINE_PORT = 18080
"""Port of llama-server in the leader, on loopback alone: the gate asks it, and the agent."""
TUNNELLED_AGENT_PORT = 18051
TUNNELLED_RPC_PORT = 18052
"""With RPC encryption, what others reach at AGENT_PORT and RPC_PORT of a worker is its tunnel. The
agent and the RPC server themselves are at these ports, on loopback alone: in the worker, and by
`tunnel_address` in the leader."""
TUNNEL_PORT = 18053
"""Port at which the tunnel of a leader's pod takes LEAD, on loopback alone."""
PROBE_PORT = 50050
"""Port of LIVEZ and READYZ in a worker with RPC encryption, for the kubelet, which has no
certificate."""
GATE_PORT = 18054
"""Port at which the gate tells the leader's agent what it counts, on loopback alone."""
OWN_PORTS = (
    *(AGENT_PORT, RPC_PORT, ENGINE_PORT),
    *(TUNNELLED_AGENT_PORT, TUNNELLED_RPC_PORT, TUNNEL_PORT, GATE_PORT),
)
"""Ports that the API of a group cannot have."""
DEFAULT_SERVER_PORT = 8080
"""Port of the OpenAI-compatible API in the leader, at which the gate listens."""
DEFAULT_GRACE_SECONDS = 300
"""The pods' terminationGracePeriodSeconds."""
DEFAULT_HUNG_ENGINE_SECONDS = 20
"""Without a sign of life while requests are under way, after which the engine hangs."""
QUEUE_PER_SLOT = 8
"""Requests that may wait in the gate for each slot, where nothing else is said."""
DEFAULT_QUEUE_SECONDS = 60
"""How long each of them may wait."""

LIVEZ = "/livez"
"""GET: 200 while the agent itself works."""
READYZ = "/readyz"
"""GET: 200 when the pod can do its part, else 503 with the reason as text."""
SERVING = "/serving"
"""GET to a leader: 200 while its engine takes requests. The gate asks; unlike READYZ it holds on
until the last request when the group is told to stop."""
STATUS = "/status"
"""GET: `WorkerStatus` or `LeaderStatus`."""
METRICS = "/metrics"
"""GET to a leader: the group's metrics for Prometheus."""
ATTACH = "/attach"
"""POST `AttachRequest` to a worker: it restarts its RPC server and answers `WorkerStatus`."""
LEAD = "/lead"
"""POST to the tunnel of a leader's pod, as `/lead/N`: it leads to where worker N's name is now."""

MODEL_DIR = "/models"
"""Writable volume of the leader for fetched models: an emptyDir or the pod's own claim."""
CLAIM_DIR = "/model-claim"
"""Where the claim of a `pvc://claim/path` model is mounted, read-only: the file is
`/model-claim/path`."""
CONTROL_DIR = "/run/llamacluster-control"
"""Where leaders and workers have the Secret with their token mounted."""
CONTROL_TOKEN_KEY = "token"  # noqa: S105 - the file's name
CONTROL_TOKEN_FILE = f"{CONTROL_DIR}/{CONTROL_TOKEN_KEY}"
RPC_TLS_DIR = "/rpc-tls"
"""Where the tunnels find `ca.crt`, `tls.crt` and `tls.key`, read-only."""
LEAF_DELAY_SECONDS = 300
"""After which a tunnel shows a new certificate: by then the kubelets of the whole group, which look
for new Secrets about once a minute, have brought the others the authority that it is from."""
SCRATCH_DIR = "/tmp"  # noqa: S108 - a mount of this pod alone
"""Writable emptyDir in both pods, which their containers share. A tunnel has one of its own there,
in memory: HAProxy's configuration, and the socket by which it is told."""

GATE_DIR = "/gate"
"""The gate's own memory-backed emptyDir: what HAProxy reads, and the socket by which it is told."""
API_KEYS_DIR = "/api-keys"
"""Where the gate finds the Secret `server.apiKeysSecret`."""
TLS_DIR = "/tls"
"""Where the gate finds the Secret `server.tlsSecret`."""
GATE_STATUS_FILE = f"{SCRATCH_DIR}/gate.json"
"""`GateStatus`, from the gate's agent to the leader's: both containers have SCRATCH_DIR."""

SINCE_FILE = f"{SCRATCH_DIR}/leader-since"
"""Where a leader keeps its AttachRequest.leaderSince from one container to the next."""

LEADER_ADDRESS_ENV = "LWS_LEADER_ADDRESS"
"""`<leader pod>.<subdomain>.<namespace>`, set by LeaderWorkerSet in every pod of a group."""


class Phase(StrEnum):
    """How far a group is. `Reason` says what exactly it does or waits for."""

    Waiting = "Waiting"
    """For what a group is made of: the model's file, then every worker."""
    Attaching = "Attaching"
    """Every worker starts a clean RPC server for this leader."""
    Loading = "Loading"
    """The engine sends the model to the workers."""
    Verifying = "Verifying"
    """A first token is made through all workers, and the gate learns of it."""
    Serving = "Serving"
    """The group answers requests."""
    Draining = "Draining"
    """The leader or a worker was told to stop: running requests finish, new ones are turned
    away."""
    Failed = "Failed"
    """The last try ended with the reason given; the next one follows by itself."""


@dataclass(frozen=True)
class WorkerOptions:
    """Command line of a worker."""

    threads: int | None = None
    """Threads of the RPC server; None: the container's CPU limit, rounded down, at least 1."""
    host: str = "0.0.0.0"
    """IPv4 address to listen on: the engine takes neither names nor IPv6."""
    control_token_file: str | None = None
    """The token that ATTACH and STATUS ask for; None: they ask for none, as before there was
    one."""
    grace_seconds: int = DEFAULT_GRACE_SECONDS
    """The pod's terminationGracePeriodSeconds."""
    encrypted: bool = False
    """A tunnel in the same pod is all that listens for others."""


@dataclass(frozen=True)
class LeaderOptions:
    """Command line of a leader."""

    model_uri: str
    """`http(s)://...`, `pvc://claim/path` (see CLAIM_DIR) or `file:///path`."""
    layers: tuple[int, ...]
    """Layers of each worker, as planned; their count is the group's size, 1 to MAX_WORKERS. The
    output layer counts as the last worker's last."""
    context_size: int
    """Tokens per request slot; the engine is given context_size x parallel."""
    parallel: int
    """Request slots."""
    batch_size: int = 2048
    ubatch_size: int = 512
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    server_port: int = DEFAULT_SERVER_PORT
    model_sha256: str | None = None
    """64 hex digits. For a split model: of all its files, one after the other, as in
    `cat NAME-*.gguf | sha256sum`."""
    model_name: str | None = None
    """The name that the API lists; None: the file's name."""
    threads: int | None = None
    """Threads of the engine; None: as for workers."""
    embeddings: bool = False
    """Serve /v1/embeddings too. Mean pooling, unless the model or extra_args say otherwise; an
    input must fit into ubatch_size tokens."""
    chat_template: str | None = None
    """Name of one of the engine's built-in templates; None: the model's own."""
    allow_local_addresses: bool = False
    """Download from addresses that only the node should be asked at, too (see agent.addresses)."""
    extra_args: tuple[str, ...] = ()
    """Given to the engine as they are, after all others."""
    hung_engine_seconds: int = DEFAULT_HUNG_ENGINE_SECONDS
    """Without an answer of the engine, and without CPU time taken by any process of the group,
    after which the group forms anew."""
    host: str = "0.0.0.0"
    """IPv4 address that the agent listens on."""
    control_token_file: str | None = None
    """The token to show to workers; None: none, as before there was one."""
    grace_seconds: int = DEFAULT_GRACE_SECONDS
    """The pod's terminationGracePeriodSeconds."""
    encrypted: bool = False
    """The workers are reached through a tunnel in the same pod."""


@dataclass(frozen=True)
class GateOptions:
    """Command line of the gate, which stands in the leader's pod."""

    parallel: int
    """Requests that are given to the engine at a time: its slots."""
    context_size: int
    """Tokens per request slot, by which a request's body is bounded."""
    server_port: int = DEFAULT_SERVER_PORT
    queue: int | None = None
    """Requests that may wait for a slot; None: QUEUE_PER_SLOT for each slot."""
    queue_seconds: int = DEFAULT_QUEUE_SECONDS
    """How long each may wait."""
    host: str = "0.0.0.0"
    """IPv4 address that the API listens on."""
    api_keys_secret: str | None = None
    """Name of the Secret in API_KEYS_DIR; None: no key is asked for."""
    tls_secret: str | None = None
    """Name of the Secret in TLS_DIR; None: plain HTTP."""
    grace_seconds: int = DEFAULT_GRACE_SECONDS
    """The pod's terminationGracePeriodSeconds."""


@dataclass(frozen=True)
class TunnelOptions:
    """Command line of the tunnel, which stands in each pod of a group with RPC encryption."""

    workers: int | None = None
    """In a leader's pod: how many it leads to. None: it stands before a worker."""
    leaf_delay_seconds: int = LEAF_DELAY_SECONDS
    """How long after a new authority the certificate that is from it is shown."""
    host: str = "0.0.0.0"
    """IPv4 address that it listens on for a worker."""
    grace_seconds: int = DEFAULT_GRACE_SECONDS
    """The pod's terminationGracePeriodSeconds."""


@dataclass(frozen=True)
class PlanOptions:
    """Command line of the planner. The fields that a leader has too mean the same."""

    model_uri: str
    context_size: int
    parallel: int
    workers: int | None = None
    """Workers in the group; None: as few as can hold the model with worker_memory each."""
    worker_memory: int | None = None
    """Memory limit of each worker in bytes; None: what the plan says."""
    worker_cpu: int | None = None
    """CPU limit of each worker in thousandths of a CPU; None: no limit. Only advice comes of it."""
    leader_memory: int | None = None
    """Memory limit of the leader in bytes; None: what the plan says."""
    batch_size: int = 2048
    ubatch_size: int = 512
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    embeddings: bool = False
    allow_local_addresses: bool = False
    extra_args: tuple[str, ...] = ()


def worker_args(options: WorkerOptions) -> list[str]:
    """Arguments of the worker container. `parse` is the inverse."""
    return [
        "worker",
        *_flags(
            {
                "threads": options.threads,
                "host": options.host,
                "grace-seconds": options.grace_seconds,
                "control-token-file": options.control_token_file,
            }
        ),
        *_encrypted(options),
    ]


def tunnel_args(options: TunnelOptions) -> list[str]:
    """Arguments of the tunnel's container. `parse` is the inverse."""
    return [
        "tunnel",
        *_flags(
            {
                "workers": options.workers,
                "leaf-delay-seconds": options.leaf_delay_seconds,
                "host": options.host,
                "grace-seconds": options.grace_seconds,
            }
        ),
    ]


def tunnel_address(worker: int) -> str:
    """The loopback address by which the tunnel in a leader's pod leads to the worker of this index,
    1 to MAX_WORKERS."""
    return f"127.0.1.{worker}"


def gate_args(options: GateOptions) -> list[str]:
    """Arguments of the gate's container. `parse` is the inverse."""
    return [
        "gate",
        *_flags(
            {
                "server-port": options.server_port,
                "parallel": options.parallel,
                "context-size": options.context_size,
                "queue": options.queue,
                "queue-seconds": options.queue_seconds,
                "host": options.host,
                "api-keys-secret": options.api_keys_secret,
                "tls-secret": options.tls_secret,
                "grace-seconds": options.grace_seconds,
            }
        ),
    ]


def leader_args(options: LeaderOptions) -> list[str]:
    """Arguments of the leader container. `parse` is the inverse.

    As in any pod, Kubernetes expands `$(NAME)` in them and makes one dollar of two: whoever builds
    the pod doubles every dollar.
    """
    args = [
        "leader",
        *_flags(
            {
                "model-uri": options.model_uri,
                "model-sha256": options.model_sha256,
                "model-name": options.model_name,
                "layers": ",".join(map(str, options.layers)),
                "server-port": options.server_port,
                "context-size": options.context_size,
                "parallel": options.parallel,
                "batch-size": options.batch_size,
                "ubatch-size": options.ubatch_size,
                "cache-type-k": options.cache_type_k,
                "cache-type-v": options.cache_type_v,
                "threads": options.threads,
                "chat-template": options.chat_template,
                "hung-engine-seconds": options.hung_engine_seconds,
                "host": options.host,
                "grace-seconds": options.grace_seconds,
                "control-token-file": options.control_token_file,
            }
        ),
        *_encrypted(options),
    ]
    return [*args, *_last(options)]


def plan_args(options: PlanOptions) -> list[str]:
    """Arguments of the planner's container; see `leader_args`. `parse` is the inverse."""
    args = [
        "plan",
        *_flags(
            {
                "model-uri": options.model_uri,
                "workers": options.workers,
                "worker-memory": options.worker_memory,
                "worker-cpu": options.worker_cpu,
                "leader-memory": options.leader_memory,
                "context-size": options.context_size,
                "parallel": options.parallel,
                "batch-size": options.batch_size,
                "ubatch-size": options.ubatch_size,
                "cache-type-k": options.cache_type_k,
                "cache-type-v": options.cache_type_v,
            }
        ),
    ]
    return [*args, *_last(options)]


Options = WorkerOptions | LeaderOptions | GateOptions | TunnelOptions | PlanOptions


def parse(argv: Sequence[str]) -> Options:
    """The options that `argv` (without the program's name) says. Exits 2 with usage if wrong."""
    own: Sequence[str] = argv
    extra: Sequence[str] = ()
    if "--" in own:
        cut = list(argv).index("--")
        own, extra = argv[:cut], argv[cut + 1 :]
    values = vars(_parser().parse_args(own))
    match values.pop("role"):
        case "worker":
            return WorkerOptions(**values)
        case "gate":
            return GateOptions(**values)
        case "tunnel":
            return TunnelOptions(**values)
        case "plan":
            return PlanOptions(**values, extra_args=tuple(extra))
    return LeaderOptions(**values, extra_args=tuple(extra))


def _encrypted(options: WorkerOptions | LeaderOptions) -> list[str]:
    return ["--encrypted"] if options.encrypted else []


def _last(options: LeaderOptions | PlanOptions) -> list[str]:
    return [
        *(["--allow-local-addresses"] if options.allow_local_addresses else []),
        *(["--embeddings"] if options.embeddings else []),
        *(["--", *options.extra_args] if options.extra_args else []),
    ]


def _flags(values: dict[str, str | int | None]) -> list[str]:
    # "--flag=value" in one word: a value may begin with a dash.
    return [f"--{flag}={value}" for flag, value in values.items() if value is not None]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("llamacluster-agent", allow_abbrev=False)
    roles = parser.add_subparsers(dest="role", required=True)

    worker = roles.add_parser("worker", allow_abbrev=False, help="keep an RPC server running")
    leader = roles.add_parser("leader", allow_abbrev=False, help="form the group and serve")
    gate = roles.add_parser("gate", allow_abbrev=False, help="let requests in to the engine")
    tunnel = roles.add_parser("tunnel", allow_abbrev=False, help="encrypt what the others say")
    for role in (worker, leader):
        role.add_argument("--threads", type=_positive, help="default: the CPU limit, rounded down")
        role.add_argument("--control-token-file", metavar="PATH", help="of the group's agents")
        role.add_argument("--encrypted", action="store_true", help="a tunnel is in the pod")
    for role in (worker, leader, gate, tunnel):
        role.add_argument("--host", default="0.0.0.0", help="IPv4 address to listen on")
        role.add_argument(
            "--grace-seconds", type=_positive, default=DEFAULT_GRACE_SECONDS, help="of the pod"
        )

    leader.add_argument("--model-sha256")
    leader.add_argument("--model-name")
    leader.add_argument(
        "--layers", type=_layers, metavar="N,N,...", required=True, help="of each worker"
    )
    leader.add_argument("--chat-template")
    leader.add_argument(
        "--hung-engine-seconds", type=_positive, default=DEFAULT_HUNG_ENGINE_SECONDS
    )

    tunnel.add_argument("--leaf-delay-seconds", type=_positive, default=LEAF_DELAY_SECONDS)

    gate.add_argument("--queue", type=_positive, metavar="REQUESTS")
    gate.add_argument("--queue-seconds", type=_positive, default=GateOptions.queue_seconds)
    gate.add_argument("--api-keys-secret", metavar="NAME", help=f"of the keys in {API_KEYS_DIR}")
    gate.add_argument("--tls-secret", metavar="NAME", help=f"of the certificate in {TLS_DIR}")
    for role in (leader, gate):
        role.add_argument("--server-port", type=_positive, default=DEFAULT_SERVER_PORT)

    plan = roles.add_parser("plan", allow_abbrev=False, help="split a model over workers")
    for role in (plan, tunnel):
        role.add_argument("--workers", type=int, choices=range(1, MAX_WORKERS + 1), metavar="N")
    plan.add_argument("--worker-memory", type=_positive, metavar="BYTES")
    plan.add_argument("--worker-cpu", type=_positive, metavar="MILLICPUS")
    plan.add_argument("--leader-memory", type=_positive, metavar="BYTES")

    for role in (leader, gate, plan):
        role.add_argument("--context-size", type=_positive, required=True, help="tokens per slot")
        role.add_argument("--parallel", type=_positive, required=True, help="request slots")
    for role in (leader, plan):
        role.add_argument("--model-uri", required=True)
        role.add_argument("--batch-size", type=_positive, default=LeaderOptions.batch_size)
        role.add_argument("--ubatch-size", type=_positive, default=LeaderOptions.ubatch_size)
        role.add_argument("--cache-type-k", default=LeaderOptions.cache_type_k)
        role.add_argument("--cache-type-v", default=LeaderOptions.cache_type_v)
        role.add_argument("--embeddings", action="store_true")
        role.add_argument("--allow-local-addresses", action="store_true")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _layers(text: str) -> tuple[int, ...]:
    counts = tuple(_positive(part) for part in text.split(","))
    if len(counts) > MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"{len(counts)} workers are more than {MAX_WORKERS}")
    return counts


class EngineBuild(TypedDict):
    """Which llama.cpp this pod has. Two pods fit together only if `build` is equal."""

    version: str
    """As `llama-server --version` prints it."""
    build: str
    """Digest over the engine's programs and libraries."""


class ChildProcess(TypedDict):
    """The worker's RPC server."""

    pid: int
    uptimeSeconds: float
    restarts: int
    """How often it ended by itself and was started again, since the agent's start."""
    cpuSeconds: float
    """CPU time that it has taken."""


class HeldMemory(TypedDict):
    """What a pod's engine really holds."""

    residentBytes: int
    """Anonymous memory of the engine's process now: what cannot be dropped like page cache."""
    peakBytes: int | None
    """The highest that the container's memory ever was, page cache included; None where the kernel
    does not tell."""


class WorkerStatus(TypedDict):
    """Answer of a worker's STATUS and ATTACH."""

    role: Literal["worker"]
    name: str
    """Pod name."""
    epoch: str | None
    """Epoch of the leader that the RPC server was last started for. A server that ended and was
    started again belongs to nobody: None."""
    leader: str | None
    stopping: bool
    """Its pod was told to stop. It serves its leader on until that closes the connection, but
    attaches to none any more."""
    listening: bool
    message: str
    threads: int
    memoryLimitBytes: int | None
    memory: HeldMemory | None
    """None while no RPC server runs."""
    engine: EngineBuild
    child: ChildProcess | None


class AttachRequest(TypedDict):
    """Body of ATTACH."""

    epoch: str
    """Unique for each forming of a group. The leader looks at its workers by `/status?EPOCH` then:
    so each knows that its leader is there."""
    leader: str
    """Pod name of the leader."""
    leaderSince: int
    """When the agent first started in the leader's pod: milliseconds since 1970, by the clock of
    its node. Two pods may have the leader's name at a time, when a node was lost and comes back:
    the younger is the group's."""
    worker: str
    """Pod name that the leader means to speak to: a stale DNS answer is refused with 421."""


class ModelStatus(TypedDict):
    """The model that the leader found, as its header tells it."""

    uri: str
    file: str
    bytes: int
    """Of all files of a split model."""
    architecture: str | None
    layers: int | None
    """Without the output layer."""
    contextTrain: int | None
    name: str | None


class Progress(TypedDict):
    """How far a download, the check of a file or a load is."""

    bytes: int
    total: int | None
    """None where nobody knows."""
    secondsLeft: float | None
    """At the pace so far; None until there is one."""


class AttachedWorker(TypedDict):
    """A worker as the leader sees it."""

    name: str
    attached: bool
    threads: int | None
    memoryLimitBytes: int | None
    memory: HeldMemory | None
    build: str | None
    message: str


class Placement(TypedDict):
    """What the engine put on one worker. Bytes are as the engine's log says (0.01 MiB)."""

    device: str
    """RPC0, RPC1, ... in the order of the workers."""
    worker: str
    firstLayer: int
    lastLayer: int
    layers: int
    """Count of layers, with the output layer where this worker holds it."""
    modelBytes: int
    contextBytes: int
    computeBytes: int


class LeaderMemory(TypedDict):
    """What the engine keeps in the leader itself."""

    layers: int
    modelBytes: int
    contextBytes: int
    computeBytes: int


class Recovery(TypedDict):
    """How a group that was Ready became so again."""

    reason: str
    """What it was lost by: a `planning.reasons.Reason`."""
    message: str
    at: str
    """When it was Ready again: RFC 3339, UTC."""
    seconds: float
    """From the loss until then."""


class LastFailure(TypedDict):
    """What keeps a group from serving, while tries fail one after another."""

    reason: str
    """How the last of them ended: a `planning.reasons.Reason`."""
    message: str
    count: int
    """How many have failed since the group served, or got further than they did."""


class GateProblem(TypedDict):
    """What is wrong with a Secret of the API."""

    reason: str
    """A `planning.reasons.Reason`."""
    message: str


class GateStatus(TypedDict):
    """What the gate's agent says."""

    closed: GateProblem | None
    """Why nobody is let in; None where nothing in the Secrets forbids it."""
    attention: GateProblem | None
    """What a person should look at, though the API is served."""
    keys: int | None
    """How many API keys HAProxy knows; None where none are asked for."""
    certificateExpires: str | None
    """Of the certificate that HAProxy shows: RFC 3339, UTC."""


class LeaderStatus(TypedDict):
    """Answer of a leader's STATUS."""

    role: Literal["leader"]
    name: str
    phase: str
    """A `Phase`."""
    reason: str
    """A `planning.reasons.Reason`."""
    message: str
    since: str
    """When phase or reason last changed: RFC 3339, UTC."""
    epoch: str | None
    model: ModelStatus | None
    progress: Progress | None
    """Of what is under way, where it takes long."""
    workers: list[AttachedWorker]
    placement: list[Placement]
    """Empty until the engine has loaded."""
    leader: LeaderMemory | None
    memory: HeldMemory | None
    """What the leader's engine holds; None while it does not run."""
    engine: EngineBuild
    threads: int
    memoryLimitBytes: int | None
    formations: int
    """How often the group became Ready since the agent's start."""
    lastFailure: LastFailure | None
    """None once the group serves, or gets further. An older agent does not tell."""
    lastRecovery: Recovery | None
    """The last of them that came after a loss; the leader's pod has been the same."""
    formedSeconds: float | None
    """From the moment when all workers and the model were there until Ready, last time."""
    loadSeconds: float | None
    """The part of formedSeconds that the engine took from its start until it said healthy."""
    lastTokensPerSecond: float | None
    """Generation speed of the last request, where known."""
    gate: GateStatus | None
    """None while the gate has said nothing."""


class PlannedModel(TypedDict):
    """The model that a plan is for."""

    headerDigest: str
    """SHA-256 over the headers of all its files, 16 hex digits of it."""
    architecture: str
    name: str | None
    layers: int
    """Without the output layer."""
    bytes: int
    """Of all tensors."""
    contextTrain: int


class PlannedWorker(TypedDict):
    """What a worker is to hold; layers as in `Placement`."""

    firstLayer: int
    lastLayer: int
    layers: int
    modelBytes: int
    contextBytes: int
    computeBytes: int
    memoryBytes: int
    """The least memory limit: all of these, what else loading and serving take, and a margin."""


class PlannedLeader(TypedDict):
    """What the leader is to hold."""

    modelBytes: int
    """Mapped from the model's file: page cache that can be dropped, not counted in memoryBytes."""
    contextBytes: int
    computeBytes: int
    memoryBytes: int


class Plan(TypedDict):
    """The planner's answer, at most MAX_PLAN_BYTES of JSON."""

    method: Literal["Engine", "Formula"]
    """Whether the engine's own accounting said the bytes, or a formula."""
    errorPercent: int
    """How far the bytes may be off: 0 for the engine's."""
    engine: str | None
    """Version of the engine that was asked."""
    fits: bool
    message: str
    """The plan in a sentence; if it does not fit: by how much, and what would."""
    model: PlannedModel
    perWorker: list[PlannedWorker]
    """Of the plan; if it does not fit: of the best that there is for the wanted workers."""
    workerMemoryBytes: int
    """The memory limit for every worker: the given one, else what the heaviest needs."""
    leader: PlannedLeader
    leaderMemoryBytes: int
    tensorSplit: str
    """The engine's `--tensor-split`."""
    advice: list[str]


class PlanFailure(TypedDict):
    """The planner's answer when there can be no plan. It exits 1, to be started again."""

    reason: str
    """A `planning.reasons.Reason`."""
    message: str


MAX_PLAN_BYTES = 4096
"""What Kubernetes keeps of a container's termination message, by which a plan is told."""
