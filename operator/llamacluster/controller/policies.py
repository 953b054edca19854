"""The NetworkPolicies of a LlamaCluster: made before its pods, gone after them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.controller.kubeapi import NETWORKPOLICIES, KubeApi
from llamacluster.controller.objects import make_true, read, read_owned, remove
from llamacluster.resources.leaderpolicy import leader_egress_policy, leader_policy
from llamacluster.resources.metadata import Manifest, workers_policy_name
from llamacluster.resources.networkpolicy import OperatorPods
from llamacluster.resources.planpolicy import plan_policy
from llamacluster.resources.workerspolicy import group_policy, workers_policy


@dataclass(frozen=True)
class Policies:
    """What there is of them."""

    wanted: dict[str, Manifest]
    """As they are now, by name."""
    others: dict[str, Manifest]
    """Of groups that may be on their way out, or of a spec that wanted some."""
    changed: bool
    """Whether one was made or changed just now: a network takes seconds to follow."""


async def make_policies(
    cluster: LlamaCluster, operator: OperatorPods | None, api: KubeApi
) -> Policies:
    """Make those true that are wanted. Raises Refused and PredecessorRemains."""
    there = await read_owned(cluster, api, NETWORKPOLICIES)
    now: dict[str, Manifest] = {}
    changed = False
    for policy in _wanted(cluster, operator):
        name = policy["metadata"]["name"]
        # Who is not among ours may be somebody else's.
        live = there.pop(name, None) or await read(cluster, api, NETWORKPOLICIES, name)
        now[name] = await make_true(api, NETWORKPOLICIES, policy, live)
        changed = changed or now[name] is not live
    return Policies(now, there, changed)


async def remove_policies(
    cluster: LlamaCluster, policies: Policies, groups: Iterable[int], api: KubeApi
) -> None:
    """Delete those that are not wanted any more, but for those of `groups`: a group that is on its
    way out finishes its requests. Raises Refused."""
    kept = set()
    if cluster.spec.network_policy.enabled:
        kept = {workers_policy_name(cluster, group) for group in groups}
    for name, live in policies.others.items():
        if name not in kept:
            await remove(api, NETWORKPOLICIES, live)


def _wanted(cluster: LlamaCluster, operator: OperatorPods | None) -> Iterator[Manifest]:
    spec = cluster.spec
    if not spec.network_policy.enabled:
        return
    yield plan_policy(cluster)
    yield workers_policy(cluster)
    yield leader_policy(cluster, operator)
    yield leader_egress_policy(cluster)
    # With those that a rollout may add.
    for group in range(spec.replicas + spec.rollout.max_surge):
        yield group_policy(cluster, group)
