"""How a LlamaCluster's model is laid over its pods, as the status has it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from llamacluster.api.schema import StatusModel
from llamacluster.planning.split import MAX_WORKERS

Mebibytes = Annotated[str, Field(pattern=r"^\d+Mi$", max_length=32)]
"""A quantity of memory, rounded up."""
MAX_ADVICE = 16


class PlanMethod(StrEnum):
    """Where the bytes of a plan come from."""

    ENGINE = "Engine"
    FORMULA = "Formula"


class PlannedModel(StatusModel):
    """The model that a plan is for, as its header tells it."""

    architecture: str
    """Architecture, in llama.cpp's word."""
    name: str | None = None
    """The model's own name."""
    layers: int
    """Layers, without the output layer."""
    bytes: int
    """Bytes of all tensors."""
    context_train: int
    """Context in tokens that the model was trained with."""
    header_digest: str
    """Digest of the headers of all its files."""


class PlannedMemory(StatusModel):
    """What a pod is to hold, and what it was seen to hold."""

    weights: Mebibytes
    """Memory of the model's weights. The leader's are mapped from the model's file, and not part of
    its limit."""
    context: Mebibytes
    """Memory of the KV cache."""
    compute: Mebibytes
    """Memory of the working buffers."""
    memory_limit: Mebibytes
    """The least memory limit for all of these, what else loading and serving take, and a margin."""
    observed: Mebibytes | None = None
    """The most that the engine of this pod holds in any Ready group."""


class PlannedWorker(PlannedMemory):
    """One worker of each group."""

    first_layer: int
    """Index of its first layer."""
    last_layer: int
    """Index of its last layer."""
    layers: int
    """Count of its layers; the output layer counts as the last worker's last."""


class Plan(StatusModel):
    """How the model is laid over a leader and its workers, made once for all groups. It is made
    anew when something changes that it depends on: the model's URI or digest, the engine's image,
    inference settings, count of workers or limits."""

    inputs_hash: str
    """Digest of all that the plan depends on."""
    fits: bool
    """Whether the model fits the memory limits. If not, no pod is started or changed."""
    message: str
    """The plan in a sentence; if it does not fit: by how much, and what would."""
    method: PlanMethod
    """Engine (the engine's own accounting) or Formula."""
    error_percent: int = 0
    """How far off the bytes may be."""
    model: PlannedModel
    """The model."""
    workers: int
    """Workers of each group."""
    worker_memory: Mebibytes
    """Memory limit of every worker: the one of the spec, else the one of the plan."""
    per_worker: Annotated[list[PlannedWorker], Field(max_length=MAX_WORKERS)]
    """Each worker of a group, in their order."""
    leader: PlannedMemory
    """The leader of a group."""
    leader_memory: Mebibytes
    """Memory limit of the leader: the one of the spec, else the one of the plan."""
    tensor_split: str
    """The engine's `--tensor-split`."""
    advice: Annotated[list[str], Field(max_length=MAX_ADVICE)] = []
    """What could be better."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Count of layers of each worker."""
        return tuple(worker.layers for worker in self.per_worker)
