"""Events of a LlamaCluster, as `kubectl describe` shows them: one for each transition."""

from __future__ import annotations

from llamacluster.api import API_VERSION, KIND
from llamacluster.api.types import ConditionStatus, LlamaClusterStatus, ObjectMeta
from llamacluster.controller.status import ready_condition
from llamacluster.resources.metadata import FIELD_MANAGER, Manifest

MAX_MESSAGE = 1024


def transition_event(
    metadata: ObjectMeta, old: LlamaClusterStatus, new: LlamaClusterStatus, now: str
) -> Manifest | None:
    """The event that tells how Ready changed; None if it did not, or only in its message."""
    before, after = ready_condition(old), ready_condition(new)
    if after is None:
        return None
    if before and (before.status, before.reason) == (after.status, after.reason):
        return None
    degraded = any(
        c.type == "Degraded" and c.status is ConditionStatus.TRUE for c in new.conditions
    )
    # A group that goes because its user changed the spec is no loss.
    asked_for = old.observed_generation != new.observed_generation
    lost = bool(before and before.status is ConditionStatus.TRUE) and not asked_for
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
        "type": "Warning" if degraded or lost else "Normal",
        "reason": after.reason,
        "message": after.message[:MAX_MESSAGE],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
