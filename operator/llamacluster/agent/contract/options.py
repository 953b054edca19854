"""The agents' command lines."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from llamacluster.agent.contract.places import (
    API_KEYS_DIR,
    CREDENTIALS_DIR,
    DEFAULT_GRACE_SECONDS,
    DEFAULT_HUNG_ENGINE_SECONDS,
    DEFAULT_QUEUE_SECONDS,
    DEFAULT_SERVER_PORT,
    LEAF_DELAY_SECONDS,
    TLS_DIR,
)
from llamacluster.planning.split import MAX_WORKERS


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
    credentials_secret: str | None = None
    """Name of the Secret in CREDENTIALS_DIR, for a model from the web; None: there is none."""
    model_sha256: str | None = None
    """64 hex digits. For a split model: of all its files, one after the other, as in
    `cat NAME-*.gguf | sha256sum`."""
    model_bytes: int | None = None
    """Of all its tensors, as planned for; None: whatever they are."""
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
    """Without the engine counting any work, and without CPU time taken by any process of the group,
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
    credentials_secret: str | None = None
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
                "credentials-secret": options.credentials_secret,
                "model-sha256": options.model_sha256,
                "model-bytes": options.model_bytes,
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
                "credentials-secret": options.credentials_secret,
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
    leader.add_argument("--model-bytes", type=_positive, help="of its tensors, as planned for")
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
        role.add_argument(
            "--credentials-secret", metavar="NAME", help=f"of what is in {CREDENTIALS_DIR}"
        )
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
