"""The pod scheduling fields of core/v1, typed so that a typo is refused at admission."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from llamacluster.api.quantity import to_bytes
from llamacluster.api.schema import (
    KEY_PATTERN,
    ApiModel,
    DnsSubdomain,
    LabelKey,
    LabelValue,
    Quantity,
    Rule,
    rules,
)

T = TypeVar("T")

OPERATORS_PREFIXES = ("llamacluster.dev/", "leaderworkerset.sigs.k8s.io/")
_BAD_KEY = (
    "each key must be a name of letters, digits, -, _ and ., perhaps with a DNS name and a / "
    "before it, as in example.com/team"
)
_OPERATORS_KEY = f"keys under {' and '.join(OPERATORS_PREFIXES)} are set by the operators"
_LOOSENING_PREFIXES = (
    "container.apparmor.security.beta.kubernetes.io/",
    "container.seccomp.security.alpha.kubernetes.io/",
    "seccomp.security.alpha.kubernetes.io/",
    "k8s.v1.cni.cncf.io/",
)
_LOOSENING_KEY = (
    f"keys under {', '.join(_LOOSENING_PREFIXES[:-1])} and {_LOOSENING_PREFIXES[-1]} are refused: "
    "they would take pods out of their confinement, or give them networks beside the one that "
    "NetworkPolicies close"
)


def _good_keys(values: dict[str, T]) -> dict[str, T]:
    if not all(re.fullmatch(KEY_PATTERN, key) for key in values):
        raise ValueError(_BAD_KEY)
    return values


def _none_under(prefixes: tuple[str, ...], why: str) -> tuple[Rule, AfterValidator]:
    """For the API server and for the operator."""

    def check(values: dict[str, T]) -> dict[str, T]:
        if any(key.startswith(prefixes) for key in values):
            raise ValueError(why)
        return values

    none = " && ".join(f"!key.startsWith('{one}')" for one in prefixes)
    return Rule(f"self.all(key, {none})", why), AfterValidator(check)


_KEYS = Rule(f"self.all(key, key.matches('{KEY_PATTERN}'))", _BAD_KEY)
_OWN_KEYS, _OWN_CHECK = _none_under(OPERATORS_PREFIXES, _OPERATORS_KEY)
_CONFINING_KEYS, _CONFINING_CHECK = _none_under(_LOOSENING_PREFIXES, _LOOSENING_KEY)

Labels = Annotated[
    dict[str, LabelValue],
    Field(max_length=64, json_schema_extra=rules(_KEYS)),
    AfterValidator(_good_keys),
]
"""Labels to select by."""
OwnLabels = Annotated[
    dict[str, LabelValue],
    Field(max_length=64, json_schema_extra=rules(_KEYS, _OWN_KEYS)),
    AfterValidator(_good_keys),
    _OWN_CHECK,
]
"""Labels for objects of ours."""
Annotations = Annotated[
    dict[str, str],
    Field(max_length=64, json_schema_extra=rules(_KEYS, _OWN_KEYS, _CONFINING_KEYS)),
    AfterValidator(_good_keys),
    _OWN_CHECK,
    _CONFINING_CHECK,
]
MAX_INT32 = 2**31 - 1
_NO_MEMORY = (
    "a memory limit of 0 holds nothing: give the memory that a pod may use, such as 16Gi, or leave "
    "the limit out to have it planned"
)
Values = Annotated[list[LabelValue], Field(max_length=128)]


class Operator(StrEnum):
    """How a label is compared with values."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


class LabelOperator(StrEnum):
    """How a label is compared with values in a label selector."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class NodeSelectorRequirement(ApiModel):
    """A requirement on one label or field of a node."""

    key: LabelKey
    """Label (or field) of the node."""
    operator: Operator
    """How the label is compared with the values."""
    values: Values | None = None
    """Values to compare with; none for Exists and DoesNotExist, one integer for Gt and Lt."""


class NodeSelectorTerm(ApiModel):
    """Requirements which must all hold."""

    match_expressions: Annotated[list[NodeSelectorRequirement], Field(max_length=32)] | None = None
    """Requirements on node labels."""
    match_fields: Annotated[list[NodeSelectorRequirement], Field(max_length=32)] | None = None
    """Requirements on node fields (metadata.name)."""


class NodeSelector(ApiModel):
    """Terms of which at least one must hold."""

    node_selector_terms: Annotated[list[NodeSelectorTerm], Field(min_length=1, max_length=32)]
    """At least one of these terms must hold."""


class PreferredSchedulingTerm(ApiModel):
    """A preference with a weight."""

    weight: Annotated[int, Field(ge=1, le=100)]
    """Weight of this preference, 1 to 100."""
    preference: NodeSelectorTerm
    """The preferred nodes."""


class NodeAffinity(ApiModel):
    """Which nodes a pod may or should run on."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    """Nodes that a pod must be placed on."""
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[list[PreferredSchedulingTerm], Field(max_length=32)] | None
    ) = None
    """Nodes that a pod should be placed on."""


class LabelSelectorRequirement(ApiModel):
    """A requirement on one label of an object."""

    key: LabelKey
    """The label."""
    operator: LabelOperator
    """How the label is compared with the values."""
    values: Values | None = None
    """Values to compare with."""


class LabelSelector(ApiModel):
    """Which objects, by their labels; empty selects all."""

    match_labels: Labels | None = None
    """Labels that an object must have."""
    match_expressions: Annotated[list[LabelSelectorRequirement], Field(max_length=32)] | None = None
    """Requirements that must all hold."""


class PodAffinityTerm(ApiModel):
    """Pods, and the topology in which to be near to (or far from) them."""

    topology_key: LabelKey
    """Node label whose equal values count as the same place, e.g. kubernetes.io/hostname."""
    label_selector: LabelSelector | None = None
    """The pods."""
    namespace_selector: LabelSelector | None = None
    """Namespaces of the pods, by labels."""
    namespaces: Annotated[list[DnsSubdomain], Field(max_length=64)] | None = None
    """Namespaces of the pods, by name; default: this one."""


class WeightedPodAffinityTerm(ApiModel):
    """A pod affinity term with a weight."""

    weight: Annotated[int, Field(ge=1, le=100)]
    """Weight of this term, 1 to 100."""
    pod_affinity_term: PodAffinityTerm
    """The term."""


class PodAffinity(ApiModel):
    """Pods to be near to (or, as podAntiAffinity, far from)."""

    required_during_scheduling_ignored_during_execution: (
        Annotated[list[PodAffinityTerm], Field(max_length=32)] | None
    ) = None
    """Terms that must hold."""
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[list[WeightedPodAffinityTerm], Field(max_length=32)] | None
    ) = None
    """Terms that should hold."""


class Affinity(ApiModel):
    """Affinity of a pod to nodes and other pods."""

    node_affinity: NodeAffinity | None = None
    """Nodes to run on."""
    pod_affinity: PodAffinity | None = None
    """Pods to be near to."""
    pod_anti_affinity: PodAffinity | None = None
    """Pods to be far from."""


class TolerationOperator(StrEnum):
    """How a toleration matches a taint."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


_TOLERATION = [
    Rule(
        "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
        "a toleration without a key must have the operator Exists",
    ),
    Rule(
        "!has(self.value) || self.value == '' || !has(self.operator) || self.operator == 'Equal'",
        "a toleration with the operator Exists has no value",
    ),
    Rule(
        "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        "tolerationSeconds needs the effect NoExecute",
    ),
]


class Toleration(ApiModel):
    """Tolerates the taints that it matches."""

    model_config = ConfigDict(json_schema_extra=rules(*_TOLERATION))

    key: LabelKey | None = None
    """Key of the taint; absent with operator Exists: every taint."""
    operator: TolerationOperator | None = None
    """Exists or Equal (the default)."""
    value: LabelValue | None = None
    """Value of the taint, for Equal."""
    effect: TaintEffect | None = None
    """Effect of the taint; absent: every effect."""
    toleration_seconds: Annotated[int, Field(ge=-MAX_INT32, le=MAX_INT32)] | None = None
    """How long a NoExecute taint is tolerated; absent: for ever."""

    @model_validator(mode="after")
    def _means_something(self) -> Toleration:
        exists = self.operator is TolerationOperator.EXISTS
        holds = (
            self.key is not None or exists,
            not (self.value and exists),
            self.toleration_seconds is None or self.effect is TaintEffect.NO_EXECUTE,
        )
        for rule, true in zip(_TOLERATION, holds, strict=True):
            if not true:
                raise ValueError(rule["message"])
        return self


class WhenUnsatisfiable(StrEnum):
    """What to do with a pod that would break a spread constraint."""

    DO_NOT_SCHEDULE = "DoNotSchedule"
    SCHEDULE_ANYWAY = "ScheduleAnyway"


class SpreadPolicy(StrEnum):
    """Whether a node property counts for spreading."""

    HONOR = "Honor"
    IGNORE = "Ignore"


class TopologySpreadConstraint(ApiModel):
    """How pods are spread over a topology."""

    max_skew: Annotated[int, Field(ge=1, le=MAX_INT32)]
    """By how many pods two places may differ."""
    topology_key: LabelKey
    """Node label whose equal values count as the same place."""
    when_unsatisfiable: WhenUnsatisfiable
    """DoNotSchedule, or ScheduleAnyway with a preference."""
    label_selector: LabelSelector | None = None
    """The pods that count."""
    min_domains: Annotated[int, Field(ge=1, le=MAX_INT32)] | None = None
    """Least number of places."""
    node_affinity_policy: SpreadPolicy | None = None
    """Whether the pod's node affinity and selector count."""
    node_taints_policy: SpreadPolicy | None = None
    """Whether node taints count."""
    match_label_keys: Annotated[list[LabelKey], Field(max_length=16)] | None = None
    """Pod labels whose values are added to the selector."""


class ResourceRequirements(ApiModel):
    """Compute resources of a container."""

    limits: (
        Annotated[
            dict[str, Quantity],
            Field(
                max_length=16,
                json_schema_extra=rules(
                    _KEYS,
                    Rule(
                        "!('memory' in self) || (type(self['memory']) == int "
                        "? int(self['memory']) > 0 "
                        ": quantity(string(self['memory'])).isGreaterThan(quantity('0')))",
                        _NO_MEMORY,
                    ),
                ),
            ),
            AfterValidator(_good_keys),
        ]
        | None
    ) = None
    """The most that the container may use. The engine's threads follow the CPU limit. A memory
    limit that is absent is the plan's."""
    requests: (
        Annotated[
            dict[str, Quantity],
            Field(max_length=16, json_schema_extra=rules(_KEYS)),
            AfterValidator(_good_keys),
        ]
        | None
    ) = None
    """What the scheduler sets aside; default: the limits."""

    @model_validator(mode="after")
    def _memory_is_some(self) -> ResourceRequirements:
        # What an older CRD may have let through.
        if self.limits and "memory" in self.limits and to_bytes(self.limits["memory"]) == 0:
            raise ValueError(_NO_MEMORY)
        return self


class PodTemplateMetadata(ApiModel):
    """Labels and annotations added to pods."""

    labels: OwnLabels | None = None
    """Labels added to the pods; the operator's own win."""
    annotations: Annotations | None = None
    """Annotations added to the pods."""


class PodSettings(ApiModel):
    """What leader and worker pods have in common."""

    resources: ResourceRequirements = ResourceRequirements()
    """CPU and memory of the pod. Set limits: threads follow the CPU limit, and the memory limit is
    what makes the scheduler find nodes with room."""
    threads: Annotated[int, Field(ge=1, le=512)] | None = None
    """Compute threads; default: the CPU limit rounded down, at least 1; without a CPU limit one for
    each CPU of the node, whoever else computes there. More threads than the CPU limit is slower,
    not faster."""
    node_selector: Labels | None = None
    """Labels that a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=64)] | None = None
    """Taints that the pods tolerate."""
    affinity: Affinity | None = None
    """Nodes and pods to be near to or far from."""
    topology_spread_constraints: (
        Annotated[list[TopologySpreadConstraint], Field(max_length=16)] | None
    ) = None
    """How the pods spread; default: over as many nodes as there are, if possible."""
    priority_class_name: DnsSubdomain | None = None
    """PriorityClass of the pods."""
    metadata: PodTemplateMetadata = PodTemplateMetadata()
    """Labels and annotations added to the pods."""
