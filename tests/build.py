"""Builders of LlamaClusters: valid ones, of which a test says only what it is about."""

from __future__ import annotations

from typing import Any

from llamacluster.api import API_VERSION, KIND
from llamacluster.api.types import LlamaCluster

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
