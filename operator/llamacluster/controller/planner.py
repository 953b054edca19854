"""What the planner's pod says: the plan, why there is none, or how far it is.

It answers in the termination message of its container. The image, and so the answer, is the user's:
whatever it says leads to a condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from llamacluster.agent.contract import messages
from llamacluster.agent.contract.places import PLAN_CONTAINER
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.plan import (
    MAX_ADVICE,
    Plan,
    PlanMethod,
    PlannedMemory,
    PlannedModel,
    PlannedWorker,
)
from llamacluster.api.quantity import mebibytes
from llamacluster.api.reasons import ClusterReason
from llamacluster.controller.agents import MAX_REASON
from llamacluster.controller.conditions import Verdict
from llamacluster.controller.groups import (
    UNMADE_SECONDS,
    container_cannot_start,
    image_cannot_be_pulled,
    last_end,
    last_words,
    pod_cannot_be_scheduled,
    pod_was_evicted,
)
from llamacluster.controller.observation import Group
from llamacluster.planning.reasons import Reason
from llamacluster.planning.split import MAX_WORKERS
from llamacluster.resources.metadata import Manifest
from llamacluster.resources.planjob import RESOURCES

MAX_ANSWER = 4 * messages.MAX_PLAN_BYTES
"""Kubernetes keeps less of what a container says; others may write a pod's status too."""


@dataclass(frozen=True)
class Found:
    """What there is of a plan for the newest spec."""

    verdict: Verdict
    """The condition Planned."""
    plan: Plan | None = None
    """None while there is none."""


def told(plan: Plan) -> Found:
    """A plan, with the condition that tells of it."""
    reason = ClusterReason.Planned if plan.fits else Reason.DoesNotFit
    return Found(Verdict("Planned", plan.fits, reason, plan.message), plan)


def answered(cluster: LlamaCluster, wanted: str, pods: Sequence[Manifest]) -> Found:
    """What the newest of the Job's pods says, or how far it is. There is one at least."""
    pod = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
    name = pod["metadata"]["name"]
    statuses = pod.get("status", {}).get("containerStatuses", [])
    container: Manifest = next((c for c in statuses if c["name"] == PLAN_CONTAINER), {})
    # While the kubelet runs it again, its last answer counts.
    end = last_end(container)
    words = end.get("message") or ""
    if plan := parsed_plan(words, wanted, cluster.spec.workers.count):
        return told(plan)
    if failure := parsed_failure(words):
        return failed(*failure)
    if end.get("exitCode") == 0:
        return failed(
            ClusterReason.PlanFailed,
            f"pod {name} ended without a plan that this operator can read: does image "
            f"{container.get('image')} have the agent of this operator's version?",
        )
    if end.get("reason") == "OOMKilled":
        limit = RESOURCES["limits"]["memory"]
        return failed(
            ClusterReason.OutOfMemory,
            f"the planner's pod {name} was killed at its memory limit of {limit}: report it, with "
            "the name of the model",
        )
    for check in (
        pod_was_evicted,
        pod_cannot_be_scheduled,
        image_cannot_be_pulled,
        container_cannot_start,
    ):
        if finding := check(Group(index=0, size=0, leader=pod)):
            return failed(finding.reason, finding.message)
    if end:
        return failed(ClusterReason.ContainerFailed, last_words(pod, container))
    if pod.get("status", {}).get("phase") != "Running":
        return planning(f"waiting for pod {name}, which reads the model's header, to start")
    return planning(f"pod {name} reads the model's header and asks the engine what it takes")


def without_pod(job: Manifest, now: datetime) -> Found:
    """What there is to say of a Job that has no pod."""
    name, status = job["metadata"]["name"], job.get("status", {})
    why = f"`kubectl describe job {name}` says why"
    had_one = any(status.get(count) for count in ("active", "succeeded", "failed"))
    tried = now - datetime.fromisoformat(status.get("startTime") or now.isoformat())
    if tried.total_seconds() >= UNMADE_SECONDS and not had_one:
        message = f"Kubernetes makes no pod of Job {name}: {why}"
        return failed(ClusterReason.PodsMissing, message)
    return planning(f"Job {name} has no pod yet; if it lasts, {why}")


def planning(message: str) -> Found:
    """There is no plan yet."""
    return Found(Verdict("Planned", None, ClusterReason.Planning, message))


def failed(reason: str, message: str) -> Found:
    """There is no plan now. It is tried again by itself."""
    return Found(Verdict("Planned", False, reason, message))


def parsed_plan(words: str, wanted: str, workers: int | None) -> Plan | None:
    """The plan in the planner's last words; None when there is none, or none for `workers`."""
    if len(words) > MAX_ANSWER:
        return None
    try:
        answer = _Plan.model_validate_json(words)
    except ValidationError:
        return None
    count = len(answer.per_worker)
    layers = sum(worker.layers for worker in answer.per_worker)
    if answer.fits and (layers != answer.model.layers + 1 or workers not in (None, count)):
        return None
    return Plan(
        inputs_hash=wanted,
        fits=answer.fits,
        message=answer.message,
        method=answer.method,
        error_percent=answer.error_percent,
        model=PlannedModel(**answer.model.model_dump()),
        workers=count,
        worker_memory=mebibytes(answer.worker_memory_bytes),
        per_worker=[
            PlannedWorker(
                first_layer=worker.first_layer,
                last_layer=worker.last_layer,
                layers=worker.layers,
                **_quantities(worker),
            )
            for worker in answer.per_worker
        ],
        leader=PlannedMemory(**_quantities(answer.leader)),
        leader_memory=mebibytes(answer.leader_memory_bytes),
        tensor_split=answer.tensor_split,
        advice=answer.advice[:MAX_ADVICE],
    )


def parsed_failure(words: str) -> tuple[str, str] | None:
    """Reason and message in the planner's last words; None when it says none."""
    if len(words) > MAX_ANSWER:
        return None
    try:
        answer = _Failure.model_validate_json(words)
    except ValidationError:
        return None
    return answer.reason, answer.message


Count = Annotated[int, Field(ge=0, lt=2**31)]
Bytes = Annotated[int, Field(ge=0, lt=2**63)]
SomeBytes = Annotated[int, Field(gt=0, lt=2**63)]


class _Answer(BaseModel):
    """JSON as the contract has it; what a newer agent says beyond it is let be."""

    model_config = ConfigDict(strict=True, extra="ignore", alias_generator=to_camel, frozen=True)


class _Model(_Answer):
    """See messages.PlannedModel."""

    header_digest: str
    architecture: str
    name: str | None
    layers: Count
    bytes: Bytes
    context_train: Count


class _Memory(_Answer):
    """See messages.PlannedLeader."""

    model_bytes: Bytes
    context_bytes: Bytes
    compute_bytes: Bytes
    memory_bytes: Bytes


class _Worker(_Memory):
    """See messages.PlannedWorker."""

    first_layer: Count
    last_layer: Count
    layers: Annotated[int, Field(ge=1, lt=2**31)]


class _Plan(_Answer):
    """See messages.Plan."""

    method: PlanMethod
    error_percent: Count
    fits: bool
    message: str
    model: _Model
    per_worker: Annotated[list[_Worker], Field(max_length=MAX_WORKERS)]
    worker_memory_bytes: SomeBytes
    leader: _Memory
    leader_memory_bytes: SomeBytes
    tensor_split: str
    advice: list[str]


class _Failure(_Answer):
    """See messages.PlanFailure."""

    reason: Annotated[str, Field(pattern=r"^[A-Za-z]+$", max_length=MAX_REASON)]
    message: str


def _quantities(memory: _Memory) -> dict[str, Any]:
    return {
        "weights": mebibytes(memory.model_bytes),
        "context": mebibytes(memory.context_bytes),
        "compute": mebibytes(memory.compute_bytes),
        "memory_limit": mebibytes(memory.memory_bytes),
    }
