"""What is: the status of a LlamaCluster, written by the operator."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from llamacluster.api.plan import Plan
from llamacluster.api.schema import StatusModel


class ConditionStatus(StrEnum):
    """Truth of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(StatusModel):
    """metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    """Ready, Progressing, Degraded, Planned or Isolated; and Reconciling or Stalled while True."""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: int | None = None
    """Generation of the spec that the condition speaks of."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When the status last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Why, in one CamelCase word."""
    message: Annotated[str, Field(max_length=32768)]
    """Why, for people, with what to do."""


class GroupPhase(StrEnum):
    """How far a group is."""

    WAITING = "Waiting"
    ATTACHING = "Attaching"
    LOADING = "Loading"
    VERIFYING = "Verifying"
    SERVING = "Serving"
    DRAINING = "Draining"
    RECOVERING = "Recovering"


class GroupProgress(StatusModel):
    """How far a download or a load is. Written in steps, not with each byte."""

    percent: Annotated[int, Field(ge=0, le=100)]
    """How much of it is done."""
    eta: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When it will be done at the pace so far."""


class GroupLoss(StatusModel):
    """Why a group that was Ready is not."""

    reason: str
    """Why, in one CamelCase word."""
    message: str = ""
    """Why, for people."""
    at: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When it was lost; of a recovery: when it was Ready again."""


class GroupRecovery(GroupLoss):
    """How a group that was Ready became so again."""

    seconds: Annotated[int, Field(ge=0)]
    """From the loss until it was Ready."""


MAX_CAUSES = 16


class RestartCause(StatusModel):
    """Why a container was started again."""

    pod: str
    """Its pod."""
    container: str
    """Its name."""
    count: Annotated[int, Field(ge=1)]
    """How often it was started again in this pod."""
    reason: str = "Unknown"
    """How it had ended the last time, in Kubernetes' word."""
    exit_code: int | None = None
    """With which exit code."""
    at: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When."""


class RecoveryCause(StatusModel):
    """Why the group was lost."""

    reason: str
    """Why, in one CamelCase word."""
    count: Annotated[int, Field(ge=1)]
    """How often it became Ready again after that."""
    at: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When it last did."""


class GroupStatus(StatusModel):
    """One group: a leader and its workers."""

    index: int
    """Index of the group; its leader pod is `<name>-group-<index>`."""
    phase: GroupPhase
    """Waiting (for pods, the model's file or workers), Attaching (workers), Loading (the model into
    the workers), Verifying (a first token), Serving, Draining (running requests finish), or
    Recovering: it has served, was lost, and is on its way back, as the reason says."""
    reason: str
    """Why, in one CamelCase word."""
    message: str = ""
    """Why, for people, with what to do."""
    since: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When phase or reason last changed."""
    failing: bool = False
    """Whether the reason is one that keeps it from getting on. It is tried again all the same."""
    progress: GroupProgress | None = None
    """Of a download, the check of a digest, or a load."""
    pods_missing_since: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = (
        None
    )
    """Since when pods of it do not exist; absent when all do."""
    workers_attached: int = 0
    """Workers that hold their part of the model for this group's leader."""
    restarts: int = 0
    """How often containers of its pods were started again."""
    restart_causes: Annotated[list[RestartCause], Field(max_length=MAX_CAUSES)] = []
    """Which of them were it, and why; the last first."""
    lost: GroupLoss | None = None
    """What the group recovers from; absent while it serves or comes up for the first time."""
    recoveries: int = 0
    """How often it was lost and became Ready again. Rollouts do not count."""
    recovery_causes: Annotated[list[RecoveryCause], Field(max_length=MAX_CAUSES)] = []
    """What it was lost by; the last first."""
    last_recovery: GroupRecovery | None = None
    """The last of them."""


class EngineStatus(StatusModel):
    """The engine that runs."""

    image: str
    """Image of leader and workers."""
    version: str | None = None
    """Version of llama.cpp, as the engine says it."""


MAX_CHANGES = 16


class UpgradeStatus(StatusModel):
    """What this operator would make otherwise than the groups that run. It is not applied before
    the spec changes, or before it is asked for by `kubectl llamacluster upgrade`."""

    id: str
    """Names this upgrade."""
    image: str
    """Image of leader and workers after it."""
    changes: Annotated[list[str], Field(max_length=MAX_CHANGES)] = []
    """What changes of the pods."""
    requested: bool = False
    """It was asked for, and begins when there is a plan for it."""


class AccessStatus(StatusModel):
    """Who may use the API, as the groups' gates say."""

    api_keys: int | None = None
    """How many API keys are in force; absent where none are asked for."""
    certificate_expires: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = (
        None
    )
    """When the API's certificate expires; absent without TLS."""
    advice: Annotated[str, Field(max_length=1024)] | None = None
    """What to do to let in only those who should be."""


class LlamaClusterStatus(StatusModel):
    """What is: written by the operator alone."""

    observed_generation: int | None = None
    """Generation of the spec that this status speaks of; -1 until the operator has seen any."""
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = []
    """Ready (every group answers requests), Progressing (the operator or a group is working
    towards the spec), Degraded (something needs attention), Planned (it is known which worker holds
    which layers, and that they fit), Isolated (the network keeps strangers out of the pods). For
    kstatus, and only while they are True: Reconciling (groups answer, some with a former spec),
    Stalled (it gets nowhere without a person)."""
    replicas: int = 0
    """Groups that exist."""
    ready_replicas: int = 0
    """Groups that answer requests."""
    selector: str | None = None
    """Selector of the leader pods, for the scale subresource."""
    endpoint: str | None = None
    """URL of the API inside the cluster."""
    access: AccessStatus | None = None
    """Who may use the API."""
    model_file: str | None = None
    """File name of the model; of more than 40 letters the first 24 and the last 15."""
    groups: Annotated[
        list[GroupStatus],
        Field(
            max_length=1024,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["index"],
            },
        ),
    ] = []
    """State of each group."""
    engine: EngineStatus | None = None
    """The engine that runs."""
    upgrade: UpgradeStatus | None = None
    """The upgrade that is available; absent when there is none."""
    plan: Plan | None = None
    """Which worker holds what."""
