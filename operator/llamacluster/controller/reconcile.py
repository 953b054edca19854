"""The life of a LlamaCluster: read, validate, observe, heal, plan, desire, apply, say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from llamacluster.api.llamacluster import LlamaCluster, ObjectMeta
from llamacluster.api.reasons import ClusterReason
from llamacluster.api.status import LlamaClusterStatus
from llamacluster.controller.apply import PredecessorRemains
from llamacluster.controller.budget import NEW_SECONDS, Budget, budget
from llamacluster.controller.conditions import delayed, refused
from llamacluster.controller.events import event, transition_events
from llamacluster.controller.groups import is_silent
from llamacluster.controller.isolation import FOLLOWED_SECONDS, isolation
from llamacluster.controller.kubeapi import (
    EVENTS,
    LEADERWORKERSETS,
    LLAMACLUSTERS,
    PODDISRUPTIONBUDGETS,
    SERVICES,
    ApiError,
    KubeApi,
)
from llamacluster.controller.lostnodes import delete_lost, replaceable, with_lost_pods
from llamacluster.controller.metrics import Clusters
from llamacluster.controller.objects import Refused, make_true, noted, read
from llamacluster.controller.observation import observe
from llamacluster.controller.plan import find_plan
from llamacluster.controller.policies import make_policies, remove_policies
from llamacluster.controller.rpctls import keep_certificates, make_certificates
from llamacluster.controller.status import (
    LATER_SECONDS,
    SOON_SECONDS,
    condition,
    new_status,
    next_look,
    refused_status,
    status_manifest,
    with_groups,
)
from llamacluster.controller.token import make_token, renew_token
from llamacluster.controller.upgrade import find_upgrade
from llamacluster.resources.leaderworkerset import (
    keep_running,
    leader_worker_set,
    running_image,
    runs_this_spec,
)
from llamacluster.resources.metadata import budget_name, group_set_name, service_name
from llamacluster.resources.poddisruptionbudget import pod_disruption_budget
from llamacluster.resources.service import service

if TYPE_CHECKING:
    from llamacluster.api.status import UpgradeStatus
    from llamacluster.controller.agents import Agents
    from llamacluster.controller.planner import Found
    from llamacluster.controller.policies import Policies
    from llamacluster.resources.metadata import Manifest
    from llamacluster.resources.networkpolicy import OperatorPods

log = structlog.get_logger()

REFUSED_SECONDS = 60.0
"""The longest wait before what the API server refused is tried again."""


@dataclass(frozen=True)
class _Made:
    """What groups are made of, and by which plan."""

    policies: Policies
    found: Found
    image: str
    group_set: Manifest | None
    upgrade: UpgradeStatus | None


@dataclass(frozen=True)
class Reconciler:
    """Drives one LlamaCluster towards its spec at each call."""

    api: KubeApi
    agents: Agents
    engine_image: str
    """Image of a LlamaCluster that names none."""
    operator_pods: OperatorPods | None = None
    """The operator's own, which policies let in; None when it runs outside the cluster."""
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    require: Callable[[], None] = lambda: None
    """Raises Refused when the Kubernetes cluster lacks what every LlamaCluster needs."""
    clusters: Clusters = field(default_factory=Clusters)
    """Is told each status, for the operator's metrics."""

    async def __call__(self, key: str) -> float | None:
        """Reconcile `namespace/name`; returns the seconds until it wants to look again."""
        with structlog.contextvars.bound_contextvars(key=key):
            return await self._reconcile(*key.split("/", 1))

    async def _reconcile(self, namespace: str, name: str) -> float | None:
        stored = await self.api.get(LLAMACLUSTERS, namespace, name)
        if stored is None or "deletionTimestamp" in stored["metadata"]:
            self.clusters.forget(namespace, name)
            return None  # its objects go by their owner references, with or without us
        now = self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            cluster = LlamaCluster.model_validate({**stored, "status": _known_status(stored)})
        except ValidationError as error:
            metadata = ObjectMeta.model_validate(stored["metadata"])
            before = _known_status(stored)
            judged = refused(ClusterReason.InvalidSpec, _first_error(error))
            await self._say(metadata, before, refused_status(metadata, before, judged, now), now)
            return None

        if cluster.status.observed_generation != cluster.metadata.generation:
            log.info("new spec", generation=cluster.metadata.generation)
        try:
            self.require()
            group_set = await read(cluster, self.api, LEADERWORKERSETS, group_set_name(cluster))
        except (Refused, PredecessorRemains) as why:
            return await self._say_why_not(cluster, cluster.status, why, now)

        # What heals or ends by itself comes first: no refusal may be in its way.
        observation = await observe(cluster, group_set, self.api, self.agents)
        observation = await with_lost_pods(cluster, observation, self.api, self.clock())
        refusals: list[Refused] = []
        for lost in replaceable(observation):
            with noted(refusals):
                await delete_lost(lost, self.api)
                told = event(cluster.metadata, "Warning", ClusterReason.NodeLost, lost.message, now)
                await self._tell(told)
        if group_set:
            with noted(refusals):
                await renew_token(cluster, observation, self.api, self.clock())
            with noted(refusals):
                await keep_certificates(cluster, self.api, self.clock())

        try:
            made = await self._make(cluster, group_set)
        except (Refused, PredecessorRemains) as why:
            seen = with_groups(cluster, observation, now)
            return await self._say_why_not(cluster, seen, why, now)

        # What groups serve without: each whatever becomes of the others.
        observation = replace(observation, group_set=made.group_set)
        evictions = budget(cluster, observation, self.clock())
        with noted(refusals):
            await self._budget(cluster, evictions)
        with noted(refusals):
            await remove_policies(cluster, made.policies, observation.groups, self.api)

        isolated = await isolation(cluster, made.policies, observation, self.agents, self.clock())
        status = new_status(
            cluster,
            made.found,
            observation,
            made.image,
            made.upgrade,
            isolated.verdict,
            now,
            (refusals[0].reason, refusals[0].message) if refusals else None,
        )
        await self._say(cluster.metadata, cluster.status, status, now)
        looks = [
            next_look(status, self.clock()),
            NEW_SECONDS if evictions.settling else None,
            FOLLOWED_SECONDS if isolated.pending else None,
            LATER_SECONDS if any(map(is_silent, observation.groups.values())) else None,
            self._next_try(status) if refusals else None,
        ]
        return min((look for look in looks if look is not None), default=None)

    async def _make(self, cluster: LlamaCluster, group_set: Manifest | None) -> _Made:
        """What groups are made of, or how far their plan is. Raises Refused and
        PredecessorRemains."""
        # What closes comes before what opens, and before all that may be refused.
        policies = await make_policies(cluster, self.operator_pods, self.api)
        await self._service(cluster)
        upgrade = find_upgrade(cluster, group_set, self.engine_image)
        upgrading = upgrade is not None and upgrade.requested
        image = self._image(cluster, None if upgrading else group_set)
        found = await find_plan(
            cluster, group_set, image, self.api, self.clock(), upgrading=upgrading
        )
        if found.plan and found.plan.fits:
            wanted = leader_worker_set(cluster, image, found.plan)
            if not upgrading:
                wanted = keep_running(wanted, group_set)
            await make_certificates(cluster, wanted, group_set, self.api, self.clock())
            await make_token(cluster, wanted, group_set, self.api)
            group_set = await make_true(self.api, LEADERWORKERSETS, wanted, group_set)
            upgrade = find_upgrade(cluster, group_set, self.engine_image)
        return _Made(policies, found, image, group_set, upgrade)

    async def _service(self, cluster: LlamaCluster) -> None:
        live = await read(cluster, self.api, SERVICES, service_name(cluster))
        await make_true(self.api, SERVICES, service(cluster), live)

    async def _budget(self, cluster: LlamaCluster, evictions: Budget) -> None:
        live = await read(cluster, self.api, PODDISRUPTIONBUDGETS, budget_name(cluster))
        wanted = pod_disruption_budget(cluster, evictions.down, evictions.allowed)
        await make_true(self.api, PODDISRUPTIONBUDGETS, wanted, live)

    def _image(self, cluster: LlamaCluster, group_set: Manifest | None) -> str:
        """The engine image of the newest spec: what runs keeps its own, whatever the operator's
        default is now."""
        running = None
        if group_set and runs_this_spec(cluster, group_set):
            running = running_image(group_set)
        return running or cluster.spec.image or self.engine_image

    async def _say_why_not(
        self,
        cluster: LlamaCluster,
        seen: LlamaClusterStatus,
        why: Refused | PredecessorRemains,
        now: str,
    ) -> float:
        """What the groups are made of cannot be made; returns the seconds until the next try."""
        if isinstance(why, Refused):
            judged = refused(why.reason, why.message)
        else:
            judged = delayed(ClusterReason.PredecessorRemains, str(why))
        status = refused_status(cluster.metadata, seen, judged, now)
        await self._say(cluster.metadata, cluster.status, status, now)
        return self._next_try(status) if isinstance(why, Refused) else SOON_SECONDS

    async def _say(
        self, metadata: ObjectMeta, before: LlamaClusterStatus, after: LlamaClusterStatus, now: str
    ) -> None:
        """Write the status if it changed, and after that the event of the transition."""
        self.clusters.see(metadata.namespace, metadata.name, after)
        if after == before:
            return
        manifest = status_manifest(metadata, after)
        await self.api.apply_status(LLAMACLUSTERS, manifest)
        for transition in transition_events(metadata, before, after, now):
            await self._tell(transition)

    async def _tell(self, happened: Manifest) -> None:
        level = logging.WARNING if happened["type"] == "Warning" else logging.INFO
        log.log(level, happened["reason"], message=happened["message"])
        try:
            await self.api.create(EVENTS, happened)
        except ApiError as error:
            # The status says the same.
            log.warning("event not written", error=str(error))

    def _next_try(self, status: LlamaClusterStatus) -> float:
        """Less often the longer the API server has been refusing: each try is a write."""
        degraded = condition(status, "Degraded")
        since = degraded.last_transition_time if degraded else ""
        age = (self.clock() - datetime.fromisoformat(since)).total_seconds()
        return min(REFUSED_SECONDS, max(LATER_SECONDS, age / 10))


def _known_status(stored: Manifest) -> LlamaClusterStatus:
    """The stored status; an empty one if it is not one of ours, because it is made anew anyway."""
    try:
        return LlamaClusterStatus.model_validate(stored.get("status", {}))
    except ValidationError:
        return LlamaClusterStatus()


def _first_error(error: ValidationError) -> str:
    """The first thing that is wrong, with its place in the manifest."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place or 'the object'}: {first['msg'].removeprefix('Value error, ')}"
