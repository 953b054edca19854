"""Whether the network keeps strangers out: tried at a port that a policy closes to the operator.

A network that does not enforce NetworkPolicies takes them without a word. The agent of a worker is
for its leader alone, so an operator that gets its answer has proved that strangers reach it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.reasons import ClusterReason
from llamacluster.controller.agents import Agents
from llamacluster.controller.conditions import Verdict
from llamacluster.controller.groups import is_ready
from llamacluster.controller.observation import Observation
from llamacluster.controller.policies import Policies
from llamacluster.resources.metadata import Manifest

FOLLOWED_SECONDS = 30.0
"""After which a network surely has done what new policies and new pods ask of it."""
_PROVED = (ClusterReason.PoliciesEnforced, ClusterReason.PoliciesNotEnforced)


@dataclass(frozen=True)
class Isolation:
    """What is known of it."""

    verdict: Verdict
    pending: bool = False
    """A try in FOLLOWED_SECONDS would tell more."""


async def isolation(
    cluster: LlamaCluster,
    policies: Policies,
    observation: Observation,
    agents: Agents,
    now: datetime,
) -> Isolation:
    """One question to one worker at most, and none before the network has had its time."""
    if not cluster.spec.network_policy.enabled:
        return Isolation(_verdict(ClusterReason.PoliciesDisabled))
    workers = _ready_workers(observation)
    if not workers:
        return Isolation(_as_before(cluster))
    settled = next((worker for worker in workers if _ready_for(worker, now)), None)
    followed = all(_is_old(policy, now) for policy in policies.wanted.values())
    if settled is None or policies.changed or not followed:
        return Isolation(_as_before(cluster), pending=True)
    try:
        reached = await agents.reaches(settled)
    except TimeoutError:
        return Isolation(_as_before(cluster), pending=True)
    if reached is None:
        return Isolation(_as_before(cluster))
    proved = ClusterReason.PoliciesNotEnforced if reached else ClusterReason.PoliciesEnforced
    return Isolation(_verdict(proved))


def _ready_workers(observation: Observation) -> list[Manifest]:
    """Those of groups that serve, by index."""
    return [
        worker
        for _, group in sorted(observation.groups.items())
        for _, worker in sorted(group.workers.items())
        if is_ready(group.leader) and is_ready(worker)
    ]


def _ready_for(pod: Manifest, now: datetime) -> bool:
    since = next(
        c.get("lastTransitionTime") for c in pod["status"]["conditions"] if c["type"] == "Ready"
    )
    return since is not None and _seconds(since, now) >= FOLLOWED_SECONDS


def _is_old(policy: Manifest, now: datetime) -> bool:
    return _seconds(policy["metadata"]["creationTimestamp"], now) >= FOLLOWED_SECONDS


def _seconds(since: str, now: datetime) -> float:
    return (now - datetime.fromisoformat(since)).total_seconds()


def _as_before(cluster: LlamaCluster) -> Verdict:
    """No try is no news."""
    said = next((c.reason for c in cluster.status.conditions if c.type == "Isolated"), None)
    return _verdict(ClusterReason(said) if said in _PROVED else ClusterReason.PoliciesUnproven)


def _verdict(reason: ClusterReason) -> Verdict:
    status, message = {
        ClusterReason.PoliciesEnforced: (True, "NetworkPolicies close the groups' own ports"),
        ClusterReason.PoliciesUnproven: (
            None,
            "there are NetworkPolicies; whether the network enforces them is tried when a group "
            "has been Ready for a while, by an operator that runs in the cluster and whose own "
            "connections no proxy takes",
        ),
        ClusterReason.PoliciesNotEnforced: (
            False,
            "the agent of a worker answered the operator, and is for its leader alone: the network "
            "does not enforce NetworkPolicies, or another policy opens the worker's ports; so "
            "strangers may run code through llama.cpp's RPC port. Install a network that enforces "
            "them, see docs/security.md",
        ),
        ClusterReason.PoliciesDisabled: (
            False,
            "networkPolicy.enabled is false: whoever reaches the pods may run code in them through "
            "llama.cpp's RPC port",
        ),
    }[reason]
    return Verdict("Isolated", status, reason, message)
