"""Builders of LlamaClusters: valid ones, of which a test says only what it is about."""

from __future__ import annotations

from typing import Any

from llamacluster.agent.contract import messages
from llamacluster.api import API_VERSION, KIND
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.plan import Plan
from llamacluster.api.quantity import mebibytes

Manifest = dict[str, Any]

IMAGE = "localhost/engine:1"
UID = "11111111-1111-1111-1111-111111111111"


def manifest(name: str = "x", namespace: str = "ns", **spec: Any) -> Manifest:
    """A LlamaCluster as a user writes it; `spec` replaces whole fields, None leaves one out."""
    fields = {
        "model": {"uri": "http://models/m.gguf"},
        "workers": {"count": 2},
        **spec,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {key: value for key, value in fields.items() if value is not None},
    }


def stored(
    name: str = "x",
    namespace: str = "ns",
    *,
    uid: str = UID,
    generation: int = 1,
    status: Manifest | None = None,
    **spec: Any,
) -> Manifest:
    """The same as the API server has it."""
    result = manifest(name, namespace, **spec)
    result["metadata"] |= {"uid": uid, "generation": generation}
    if status is not None:
        result["status"] = status
    return result


def llama_cluster(*args: Any, **fields: Any) -> LlamaCluster:
    """The same, parsed."""
    return LlamaCluster.model_validate(stored(*args, **fields))


MIB = 1 << 20


def plan_answer(*layers: int, fits: bool = True, memory: int = 2000 * MIB) -> messages.Plan:
    """What the planner answers: workers with these layers, and `memory` bytes for each."""
    layers = layers or (5, 4)
    return {
        "method": "Engine",
        "errorPercent": 0,
        "engine": "b9000",
        "fits": fits,
        "message": f"8 layers over {len(layers)} workers" if fits else "500Mi too little",
        "model": {
            "headerDigest": "0123456789abcdef",
            "architecture": "llama",
            "name": "Tiny",
            "layers": sum(layers) - 1,
            "bytes": 3000 * MIB,
            "contextTrain": 8192,
        },
        "perWorker": [
            {
                "firstLayer": sum(layers[:index]),
                "lastLayer": sum(layers[: index + 1]) - 1,
                "layers": count,
                "modelBytes": 1000 * MIB,
                "contextBytes": 400 * MIB,
                "computeBytes": 200 * MIB,
                "memoryBytes": 1900 * MIB,
            }
            for index, count in enumerate(layers)
        ],
        "workerMemoryBytes": memory,
        "leader": {
            "modelBytes": 100 * MIB,
            "contextBytes": 0,
            "computeBytes": 50 * MIB,
            "memoryBytes": 250 * MIB,
        },
        "leaderMemoryBytes": 300 * MIB,
        "tensorSplit": ",".join(map(str, layers)),
        "advice": ["less context"],
    }


def a_plan(*layers: int, inputs_hash: str = "hash", **fields: Any) -> Plan:
    """The same as it is kept in the status."""
    answer = plan_answer(*layers, **fields)

    def quantities(memory: Any) -> dict[str, str]:
        parts = {"weights": "model", "context": "context", "compute": "compute"}
        kept = {name: mebibytes(memory[f"{part}Bytes"]) for name, part in parts.items()}
        return {**kept, "memory_limit": mebibytes(memory["memoryBytes"])}

    return Plan.model_validate(
        {
            "inputsHash": inputs_hash,
            "fits": answer["fits"],
            "message": answer["message"],
            "method": answer["method"],
            "model": answer["model"],
            "workers": len(answer["perWorker"]),
            "workerMemory": mebibytes(answer["workerMemoryBytes"]),
            "perWorker": [{**worker, **quantities(worker)} for worker in answer["perWorker"]],
            "leader": quantities(answer["leader"]),
            "leaderMemory": mebibytes(answer["leaderMemoryBytes"]),
            "tensorSplit": answer["tensorSplit"],
            "advice": answer["advice"],
        }
    )
