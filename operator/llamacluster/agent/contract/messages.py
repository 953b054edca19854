"""What the agents say in JSON: to each other, to the operator, and at the planner's end."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypedDict


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
