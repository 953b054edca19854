"""The life of a LlamaCluster: read, validate, plan, desire, apply, observe, say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from llamacluster.api.reasons import ClusterReason
from llamacluster.api.types import LlamaCluster, LlamaClusterStatus, ObjectMeta
from llamacluster.controller.apply import PredecessorRemains
from llamacluster.controller.budget import NEW_SECONDS, Budget, budget
from llamacluster.controller.conditions import delayed, refused
from llamacluster.controller.events import event, transition_events
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
from llamacluster.controller.lostnodes import delete_lost, with_lost_pods
from llamacluster.controller.metrics import Clusters
from llamacluster.controller.objects import Refused, make_true, read
from llamacluster.controller.observation import observe
from llamacluster.controller.plan import find_plan
from llamacluster.controller.policies import make_policies, remove_policies
from llamacluster.controller.rpctls import keep_certificates
from llamacluster.controller.status import (
    LATER_SECONDS,
    SOON_SECONDS,
    condition,
    new_status,
    next_look,
    refused_status,
    status_manifest,
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
    from llamacluster.controller.agents import Agents
    from llamacluster.resources.metadata import Manifest
    from llamacluster.resources.networkpolicy import OperatorPods

log = structlog.get_logger()

REFUSED_SECONDS = 60.0
"""The longest wait before what the API server refused is tried again."""


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
            await self._service(cluster)
            policies = await make_policies(cluster, self.operator_pods, self.api)
            if cluster.spec.rpc.encryption:
                await keep_certificates(cluster, self.api, self.clock())
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
                await make_token(cluster, wanted, group_set, self.api)
                group_set = await make_true(self.api, LEADERWORKERSETS, wanted, group_set)
                upgrade = find_upgrade(cluster, group_set, self.engine_image)
            observation = await observe(cluster, group_set, self.api, self.agents)
            await renew_token(cluster, observation, self.api, self.clock())
            await remove_policies(cluster, policies, observation.groups, self.api)
            evictions = budget(cluster, observation, self.clock())
            await self._budget(cluster, evictions)
        except PredecessorRemains as waiting:
            judged = delayed(ClusterReason.PredecessorRemains, str(waiting))
            status = refused_status(cluster.metadata, cluster.status, judged, now)
            await self._say(cluster.metadata, cluster.status, status, now)
            return SOON_SECONDS
        except Refused as refusal:
            judged = refused(refusal.reason, refusal.message)
            status = refused_status(cluster.metadata, cluster.status, judged, now)
            await self._say(cluster.metadata, cluster.status, status, now)
            return self._next_try(status)

        observation = await with_lost_pods(cluster, observation, self.api, self.clock())
        for lost in await delete_lost(observation, self.api):
            why = event(cluster.metadata, "Warning", ClusterReason.NodeLost, lost.message, now)
            await self._tell(why)
        isolated = await isolation(cluster, policies, observation, self.agents, self.clock())
        status = new_status(cluster, found, observation, image, upgrade, isolated.verdict, now)
        await self._say(cluster.metadata, cluster.status, status, now)
        looks = [
            next_look(status, self.clock()),
            NEW_SECONDS if evictions.settling else None,
            FOLLOWED_SECONDS if isolated.pending else None,
        ]
        return min((look for look in looks if look is not None), default=None)

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
