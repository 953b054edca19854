"""LlamaCluster, llamacluster.dev/v1alpha1: with its spec, plan and status the one source of the
CRD, its docs and its checks."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from llamacluster.api.schema import ApiModel, Rule, rules
from llamacluster.api.spec import LlamaClusterSpec
from llamacluster.api.status import LlamaClusterStatus

MAX_NAME_LENGTH = 39
"""LeaderWorkerSet names must stay within 45 characters, and ours adds `-group`."""


class ObjectMeta(ApiModel):
    """The parts of metadata that the operator reads."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)

    name: str
    namespace: str
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    deletion_timestamp: str | None = None


_NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
_NAME_RULES = [
    Rule(
        f"self.metadata.name.size() <= {MAX_NAME_LENGTH}",
        f"metadata.name must have at most {MAX_NAME_LENGTH} characters",
    ),
    Rule(
        f"self.metadata.name.matches('{_NAME}')",
        "metadata.name must start with a letter and have only lower-case letters, digits and "
        "dashes: Services are named after it",
    ),
    Rule(
        "!self.metadata.name.endsWith('-group')",
        "metadata.name must not end with -group: NAME-group is the headless Service of the "
        "LlamaCluster NAME",
    ),
]


class LlamaCluster(ApiModel):
    """One model served by llama.cpp over the memory of several CPU nodes."""

    model_config = ConfigDict(json_schema_extra=rules(*_NAME_RULES))

    api_version: Literal["llamacluster.dev/v1alpha1"] = "llamacluster.dev/v1alpha1"
    kind: Literal["LlamaCluster"] = "LlamaCluster"
    metadata: ObjectMeta
    spec: LlamaClusterSpec
    """What is wanted."""
    status: LlamaClusterStatus = LlamaClusterStatus()
    """What is: written by the operator."""

    @model_validator(mode="after")
    def _has_a_good_name(self) -> LlamaCluster:
        name = self.metadata.name
        holds = (
            len(name) <= MAX_NAME_LENGTH,
            re.fullmatch(_NAME, name),
            not name.endswith("-group"),
        )
        for rule, true in zip(_NAME_RULES, holds, strict=True):
            if not true:
                raise ValueError(rule["message"])
        return self

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"
