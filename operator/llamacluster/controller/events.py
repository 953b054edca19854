"""Events of a LlamaCluster, as `kubectl describe` shows them: one for each transition."""

from __future__ import annotations

from collections.abc import Collection

from llamacluster.api import API_VERSION, KIND
from llamacluster.api.llamacluster import ObjectMeta
from llamacluster.api.reasons import ClusterReason
from llamacluster.api.status import Condition, ConditionStatus, LlamaClusterStatus
from llamacluster.controller.access import ATTENTION
from llamacluster.controller.status import condition
from llamacluster.resources.metadata import FIELD_MANAGER, Manifest

MAX_MESSAGE = 1024
_ATTENTION = frozenset(
    {ClusterReason.PlanDrift, ClusterReason.Rejected, ClusterReason.NameConflict, *ATTENTION}
)


def transition_events(
    metadata: ObjectMeta, old: LlamaClusterStatus, new: LlamaClusterStatus, now: str
) -> list[Manifest]:
    """The events that tell what happened between two statuses, in the order in which it did; none
    if only messages changed."""
    return [
        event(metadata, kind, about.reason, about.message, now)
        for kind, about in (
            _plan(old, new),
            _ready(old, new),
            _attention(old, new),
            _isolation(old, new),
        )
        if about
    ]


Transition = tuple[str, Condition | None]
"""Type of the event and the condition that it tells of, if there is anything to tell."""


def _ready(old: LlamaClusterStatus, new: LlamaClusterStatus) -> Transition:
    """How Ready changed. It tells of everything that keeps a LlamaCluster from being Ready."""
    before, after = condition(old, "Ready"), condition(new, "Ready")
    degraded = condition(new, "Degraded")
    # A group that goes because its user changed the spec is no loss.
    asked_for = old.observed_generation != new.observed_generation
    lost = bool(before and before.status is ConditionStatus.TRUE) and not asked_for
    stuck = degraded and degraded.status is ConditionStatus.TRUE
    unready = after and after.status is not ConditionStatus.TRUE
    warning = (lost and unready) or (stuck and after and after.reason != ClusterReason.Ready)
    same = before and after and (before.status, before.reason) == (after.status, after.reason)
    return "Warning" if warning else "Normal", None if same else after


def _plan(old: LlamaClusterStatus, new: LlamaClusterStatus) -> Transition:
    """A plan was found that fits."""
    before, after = condition(old, "Planned"), condition(new, "Planned")
    planned = after and after.status is ConditionStatus.TRUE
    known = before and before.status is ConditionStatus.TRUE and _hash(old) == _hash(new)
    return "Normal", after if planned and not known else None


def _attention(old: LlamaClusterStatus, new: LlamaClusterStatus) -> Transition:
    """A pod holds another amount than was planned, a certificate is no good, or the API server
    refuses what groups can do without, which Ready does not tell."""
    after, ready = condition(new, "Degraded"), condition(new, "Ready")
    if after and ready and ready.reason == after.reason:
        return "Warning", None  # told already
    return _warning(old, new, "Degraded", _ATTENTION)


def _isolation(old: LlamaClusterStatus, new: LlamaClusterStatus) -> Transition:
    """The network was found to let strangers in."""
    return _warning(old, new, "Isolated", {ClusterReason.PoliciesNotEnforced})


def _warning(
    old: LlamaClusterStatus, new: LlamaClusterStatus, kind: str, reasons: Collection[str]
) -> Transition:
    before, after = condition(old, kind), condition(new, kind)
    known = before and after and before.reason == after.reason
    return "Warning", after if after and after.reason in reasons and not known else None


def _hash(status: LlamaClusterStatus) -> str | None:
    return status.plan.inputs_hash if status.plan else None


def event(metadata: ObjectMeta, kind: str, reason: str, message: str, now: str) -> Manifest:
    """An event of a LlamaCluster; `kind` is Normal or Warning."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "generateName": f"{metadata.name}.",
            "namespace": metadata.namespace,
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
        },
        "type": kind,
        "reason": reason,
        "message": message[:MAX_MESSAGE],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
