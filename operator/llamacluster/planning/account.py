"""What the engine will allocate, and who is asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Settings:
    """What the engine's allocations depend on, beside the model. Fields as in the LlamaCluster."""

    context_size: int
    """Tokens per request slot."""
    parallel: int
    batch_size: int = 2048
    ubatch_size: int = 512
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    embeddings: bool = False
    extra_args: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        """The extra_args with flags spelt with dashes: the engine takes `--swa_full` too."""
        return tuple(
            word.replace("_", "-") if word.startswith("--") else word for word in self.extra_args
        )


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, in the engine's own three sorts."""

    model: int = 0
    """Weights."""
    context: int = 0
    """KV cache and recurrent state."""
    compute: int = 0
    """Working memory of the computation."""

    @property
    def total(self) -> int:
        return self.model + self.context + self.compute


@dataclass(frozen=True)
class Account:
    """What one split takes."""

    workers: tuple[Memory, ...]
    leader: Memory
    graph_nodes: int
    """Operations in the graph of the whole model. Each worker has its layers' part of it."""


class Accountant(Protocol):
    """Says what the engine would allocate."""

    @property
    def method(self) -> Literal["Engine", "Formula"]: ...

    @property
    def error_percent(self) -> int:
        """How far its word may be off."""
        ...

    def account(self, layers: Sequence[int], settings: Settings) -> Account:
        """The memory of each worker when worker k holds `layers[k]` layers. Raises GroupError if
        the model cannot be served so."""
        ...
