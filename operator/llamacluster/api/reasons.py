"""The reasons of conditions and events that the operator itself finds.

Those that the agents find are `planning.reasons.Reason`; both stand in the same fields.
"""

from __future__ import annotations

from enum import StrEnum


class ClusterReason(StrEnum):
    """One word for what the operator sees of a LlamaCluster from outside its pods."""

    # Of the LlamaCluster.
    Ready = "Ready"
    """Every group answers requests, all with the newest spec."""
    ScaledToZero = "ScaledToZero"
    """replicas is 0: nothing runs because nothing is wanted."""
    RollingOut = "RollingOut"
    """Groups are being replaced by ones with the newest spec."""
    RolloutStuck = "RolloutStuck"
    """A group with the newest spec does not become Ready; those with the former one go on."""
    AsExpected = "AsExpected"
    """Nothing needs attention."""
    InvalidSpec = "InvalidSpec"
    """The stored object does not follow the API, for example because the API became stricter."""
    NameConflict = "NameConflict"
    """An object that the LlamaCluster needs exists already and belongs to something else."""
    PredecessorRemains = "PredecessorRemains"
    """An object of a deleted LlamaCluster of the same name is still being removed."""
    Rejected = "Rejected"
    """The API server refused an object that the LlamaCluster needs, or a change of it."""
    LeaderWorkerSetMissing = "LeaderWorkerSetMissing"
    """LeaderWorkerSet is not installed in this Kubernetes cluster."""
    LeaderWorkerSetTooOld = "LeaderWorkerSetTooOld"
    """LeaderWorkerSet does not say how far it is, which it does from v0.9 on."""

    # Of the plan.
    Planning = "Planning"
    """The plan is being made."""
    Planned = "Planned"
    """There is a plan, and the model fits."""
    PlanFailed = "PlanFailed"
    """The planner ended without an answer that the operator can read."""
    PlanDrift = "PlanDrift"
    """A pod holds another amount of memory than was planned."""

    # Of the network.
    PoliciesEnforced = "PoliciesEnforced"
    """NetworkPolicies close the pods, and a try has shown it."""
    PoliciesUnproven = "PoliciesUnproven"
    """There are NetworkPolicies, and nothing has shown yet whether the network enforces them."""
    PoliciesNotEnforced = "PoliciesNotEnforced"
    """A worker answered the operator, to whom a NetworkPolicy closes it."""
    PoliciesDisabled = "PoliciesDisabled"
    """The spec says that there be no NetworkPolicies."""

    # Of the pods of a group.
    PodsPending = "PodsPending"
    """Pods are not there yet, or start."""
    PodsMissing = "PodsMissing"
    """Kubernetes does not make a pod: a quota or an admission policy refuses it, for example."""
    Unschedulable = "Unschedulable"
    """The scheduler finds no node for a pod."""
    ImagePullFailed = "ImagePullFailed"
    """A node cannot pull the engine image."""
    ContainerFailed = "ContainerFailed"
    """A container cannot be created, or ends again and again."""
    OutOfMemory = "OutOfMemory"
    """A container was killed at its memory limit."""
    Evicted = "Evicted"
    """The kubelet evicted a pod."""
    NodeLost = "NodeLost"
    """The node of a pod is not reachable, not ready, or gone."""
    AgentUnreachable = "AgentUnreachable"
    """The leader's pod runs, but its agent does not answer the operator."""
