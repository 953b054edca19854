"""The status of a LlamaCluster, made whole from what was observed: pure."""

from __future__ import annotations

from datetime import datetime

from llamacluster.agent.contract.messages import LeaderStatus
from llamacluster.api import API_VERSION, KIND
from llamacluster.api.llamacluster import LlamaCluster, ObjectMeta
from llamacluster.api.plan import Plan
from llamacluster.api.reasons import ClusterReason
from llamacluster.api.status import (
    Condition,
    ConditionStatus,
    EngineStatus,
    GroupPhase,
    GroupStatus,
    LlamaClusterStatus,
    UpgradeStatus,
)
from llamacluster.controller.access import access, attention, told
from llamacluster.controller.conditions import Verdict, kstatus, verdicts, with_history
from llamacluster.controller.drift import drift, observed
from llamacluster.controller.groups import group_status
from llamacluster.controller.observation import Group, Observation
from llamacluster.controller.planner import Found
from llamacluster.controller.rollout import rollout
from llamacluster.planning.reasons import Reason
from llamacluster.resources.leaderworkerset import running_image, running_plan, workers_of
from llamacluster.resources.metadata import Manifest, group_set_name, leader_selector
from llamacluster.resources.pod import as_manifest
from llamacluster.resources.service import endpoint

SOON_SECONDS = 2.0
"""Until the next look at what is on its way: an agent's progress makes no watch event."""
LATER_SECONDS = 15.0
"""The same for what has been on its way for long, or waits for a person."""
SETTLED_SECONDS = 30.0
"""Until the last look at a group that became Ready."""
LOADED_SECONDS = 15.0
"""For so long after a group became Ready its agents may tell of the time before it had loaded."""
_NAME_BEGINS, _NAME_ENDS = 24, 15
"""Letters of a long file name that are shown: the model, and mostly how it is quantized."""


def new_status(
    cluster: LlamaCluster,
    found: Found,
    observation: Observation,
    image: str,
    upgrade: UpgradeStatus | None,
    isolated: Verdict,
    now: str,
    refusal: tuple[str, str] | None = None,
) -> LlamaClusterStatus:
    """Status of a LlamaCluster whose objects are applied, as far as there is a plan.

    `image` is that of the pods to come while there are none; `refusal` is reason and message of
    what the API server refuses though the groups can do without it.
    """
    group_set = observation.group_set
    seen = with_groups(cluster, observation, now)
    groups = seen.groups
    progress = rollout(cluster, observation, groups, now)
    plan, drifted = found.plan or cluster.status.plan, None
    if plan and progress.complete and running_plan(group_set) == plan.inputs_hash:
        plan, drifted = _seen(plan, _loaded(groups, observation, now), cluster.status)
    gates = told(observation.groups.values())
    needed = attention(gates, cluster.status) or refusal
    judged = verdicts(groups, progress, found.verdict, drifted, needed)
    judged += [isolated, *kstatus(judged)]
    return seen.model_copy(
        update={
            "observed_generation": cluster.metadata.generation,
            "conditions": with_history(
                judged, cluster.status.conditions, cluster.metadata.generation, now
            ),
            "selector": ",".join(f"{k}={v}" for k, v in sorted(leader_selector(cluster).items())),
            "endpoint": endpoint(cluster),
            "access": access(cluster, gates),
            "model_file": _shortened(cluster.spec.model.file_name),
            "engine": EngineStatus(
                image=(running_image(group_set) if group_set else None) or image,
                version=_engine_version(cluster, observation),
            ),
            "upgrade": upgrade,
            "plan": plan,
        }
    )


def with_groups(cluster: LlamaCluster, observation: Observation, now: str) -> LlamaClusterStatus:
    """The status with the groups as they are now, and all else as it was."""
    before = {group.index: group for group in cluster.status.groups}
    group_set = observation.group_set
    wanted = range(cluster.spec.replicas) if group_set else ()
    # What there is no plan for yet is not asked for.
    asked = min(len(wanted), group_set["spec"].get("replicas", 0)) if group_set else 0
    rolling = not rollout(cluster, observation, [], now).complete
    groups = [
        group_status(
            observation.groups.get(index, Group(index, workers_of(group_set))),
            before.get(index),
            now,
            asked_for=rolling or index >= cluster.spec.replicas,
            leader=f"{group_set_name(cluster)}-{index}" if index < asked else None,
        )
        for index in sorted({*observation.groups, *wanted})
    ]
    return cluster.status.model_copy(
        update={
            "replicas": len(observation.groups),
            "ready_replicas": sum(group.phase is GroupPhase.SERVING for group in groups),
            "groups": groups,
        }
    )


def _shortened(name: str) -> str:
    """Name of the model's file, as `kubectl get` shows it in a column."""
    if len(name) <= _NAME_BEGINS + 1 + _NAME_ENDS:
        return name
    return f"{name[:_NAME_BEGINS]}…{name[-_NAME_ENDS:]}"


def _loaded(groups: list[GroupStatus], seen: Observation, now: str) -> list[LeaderStatus]:
    """What the agents say of groups whose engines have loaded."""
    since = {group.index: group.since for group in groups if group.phase is GroupPhase.SERVING}
    return [
        group.status
        for index, group in seen.groups.items()
        if group.status is not None
        and index in since
        and _age(since[index], datetime.fromisoformat(now)) >= LOADED_SECONDS
    ]


def _seen(
    plan: Plan, statuses: list[LeaderStatus], before: LlamaClusterStatus
) -> tuple[Plan, str | None]:
    """The plan with what is held of it, and what is held otherwise."""
    if statuses:
        plan = observed(plan, statuses)
        return plan, drift(plan, statuses)
    # No news is no change.
    degraded = condition(before, "Degraded")
    said = degraded and degraded.reason == ClusterReason.PlanDrift
    return plan, degraded.message if degraded and said else None


def refused_status(
    metadata: ObjectMeta, before: LlamaClusterStatus, found: list[Verdict], now: str
) -> LlamaClusterStatus:
    """`before`, when the operator could not apply what is wanted."""
    generation = metadata.generation
    return before.model_copy(
        update={
            "observed_generation": generation,
            "conditions": with_history(
                [*found, *kstatus(found)], before.conditions, generation, now
            ),
        }
    )


def status_manifest(metadata: ObjectMeta, status: LlamaClusterStatus) -> Manifest:
    """The body of a server-side apply of the status."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        # With the version, a status that was made from an older spec, or from a deleted object of
        # the same name, is refused.
        "metadata": {
            "namespace": metadata.namespace,
            "name": metadata.name,
            "resourceVersion": metadata.resource_version,
        },
        "status": as_manifest(status),
    }


def condition(status: LlamaClusterStatus, kind: str) -> Condition | None:
    """The condition of this type."""
    return next((c for c in status.conditions if c.type == kind), None)


def _engine_version(cluster: LlamaCluster, observation: Observation) -> str | None:
    for group in observation.groups.values():
        if group.status:
            return group.status["engine"]["version"]
    return cluster.status.engine.version if cluster.status.engine else None


def next_look(status: LlamaClusterStatus, now: datetime) -> float | None:
    """Seconds until what changes without an event of the API server is looked at again: often at
    first, seldom after a while; None when nothing is on its way."""
    planned = condition(status, "Planned")
    unplanned = planned and planned.status is not ConditionStatus.TRUE
    if planned and unplanned and planned.reason != Reason.DoesNotFit:
        return _wait(planned.last_transition_time, now)
    if not status.groups:
        return None
    newest = max(group.since for group in status.groups)
    if any(group.phase is not GroupPhase.SERVING for group in status.groups):
        return _wait(newest, now)
    left = SETTLED_SECONDS - _age(newest, now)
    return max(left, SOON_SECONDS) if left > 0 else None


def _wait(since: str, now: datetime) -> float:
    return min(LATER_SECONDS, max(SOON_SECONDS, _age(since, now) / 10))


def _age(since: str, now: datetime) -> float:
    return (now - datetime.fromisoformat(since)).total_seconds()
