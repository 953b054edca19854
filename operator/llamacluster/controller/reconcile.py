"""The life of a LlamaCluster: read, validate, desire, apply, observe, say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from llamacluster.api.reasons import ClusterReason
from llamacluster.api.types import LlamaCluster, LlamaClusterStatus, ObjectMeta
from llamacluster.controller.apply import (
    NotOurs,
    PredecessorRemains,
    check_ownership,
    difference,
    with_digest,
)
from llamacluster.controller.conditions import delayed, refused
from llamacluster.controller.events import transition_event
from llamacluster.controller.kubeapi import (
    EVENTS,
    LEADERWORKERSETS,
    LLAMACLUSTERS,
    SERVICES,
    ApiError,
    KubeApi,
)
from llamacluster.controller.observation import observe
from llamacluster.controller.status import (
    new_status,
    ready_condition,
    refused_status,
    status_manifest,
    unsettled,
)
from llamacluster.resources.leaderworkerset import keep_running, leader_worker_set, running_image
from llamacluster.resources.service import service

if TYPE_CHECKING:
    from kubernetes.aio.dynamic import Resource

    from llamacluster.controller.agents import Agents
    from llamacluster.resources.metadata import Manifest

log = structlog.get_logger()

SOON_SECONDS = 2.0
"""Until the next look at a group that is on its way: its agent's progress makes no watch event."""
LATER_SECONDS = 15.0
"""The same for one that has been on its way for long, or that waits for a person."""
REFUSED_SECONDS = 60.0
"""The longest wait before what the API server refused is tried again."""


class Refused(Exception):
    """What is wanted cannot be applied until a person changes something."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Reconciler:
    """Drives one LlamaCluster towards its spec at each call."""

    api: KubeApi
    agents: Agents
    engine_image: str
    """Image of a LlamaCluster that names none."""
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def __call__(self, key: str) -> float | None:
        """Reconcile `namespace/name`; returns the seconds until it wants to look again."""
        with structlog.contextvars.bound_contextvars(key=key):
            return await self._reconcile(*key.split("/", 1))

    async def _reconcile(self, namespace: str, name: str) -> float | None:
        stored = await self.api.get(LLAMACLUSTERS, namespace, name)
        if stored is None or "deletionTimestamp" in stored["metadata"]:
            return None  # its objects go by their owner references, with or without us
        now = self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            cluster = LlamaCluster.model_validate({**stored, "status": _known_status(stored)})
        except ValidationError as error:
            metadata = ObjectMeta.model_validate(stored["metadata"])
            before = _known_status(stored)
            found = refused(ClusterReason.InvalidSpec, _first_error(error))
            await self._say(metadata, before, refused_status(metadata, before, found, now), now)
            return None

        image = cluster.spec.image or self.engine_image
        try:
            await self._apply(cluster, SERVICES, service(cluster))
            wanted = leader_worker_set(cluster, image)
            group_set = await self._apply(cluster, LEADERWORKERSETS, wanted, keep_running)
        except PredecessorRemains as waiting:
            found = delayed(ClusterReason.PredecessorRemains, str(waiting))
            status = refused_status(cluster.metadata, cluster.status, found, now)
            await self._say(cluster.metadata, cluster.status, status, now)
            return SOON_SECONDS
        except Refused as refusal:
            found = refused(refusal.reason, refusal.message)
            status = refused_status(cluster.metadata, cluster.status, found, now)
            await self._say(cluster.metadata, cluster.status, status, now)
            return self._next_try(status)

        observation = await observe(cluster, self.api, self.agents)
        status = new_status(cluster, observation, running_image(group_set), now)
        await self._say(cluster.metadata, cluster.status, status, now)
        return self._next_look(status) if unsettled(status.groups) else None

    async def _apply(
        self,
        cluster: LlamaCluster,
        resource: Resource,
        manifest: Manifest,
        adjust: Callable[[Manifest, Manifest | None], Manifest] = lambda wanted, _: wanted,
    ) -> Manifest:
        """Make `manifest`, adjusted to what is there, true if it is not; returns what is true then.

        Raises Refused and PredecessorRemains.
        """
        name, kind = manifest["metadata"]["name"], manifest["kind"]
        try:
            live = await self.api.get(resource, cluster.metadata.namespace, name)
            if live is not None:
                check_ownership(cluster, live)
            desired = with_digest(adjust(manifest, live))
            if why := difference(desired, live):
                log.info("applying", object=f"{kind}/{name}", because=why)
                await self.api.apply(resource, desired)
            return desired
        except NotOurs as conflict:
            raise Refused(ClusterReason.NameConflict, str(conflict)) from conflict
        except ApiError as error:
            if error.status == 404 and resource is LEADERWORKERSETS:
                raise Refused(
                    ClusterReason.LeaderWorkerSetMissing,
                    "this cluster has no LeaderWorkerSet: install LeaderWorkerSet v0.9 or newer, "
                    "see docs/install.md",
                ) from error
            if _is_refusal(error):
                raise Refused(
                    ClusterReason.Rejected, f"the API server refused {kind} {name}: {error.message}"
                ) from error
            raise

    async def _say(
        self, metadata: ObjectMeta, before: LlamaClusterStatus, after: LlamaClusterStatus, now: str
    ) -> None:
        """Write the status if it changed, and after that the event of the transition."""
        if after == before:
            return
        manifest = status_manifest(metadata, after)
        await self.api.apply_status(LLAMACLUSTERS, manifest)
        if event := transition_event(metadata, before, after, now):
            ready = ready_condition(after)
            log.info(
                "ready" if ready and ready.status == "True" else "not ready",
                reason=event["reason"],
                message=event["message"],
            )
            try:
                await self.api.create(EVENTS, event)
            except ApiError as error:
                # The status says the same, and is written.
                log.warning("event not written", error=str(error))

    def _next_try(self, status: LlamaClusterStatus) -> float:
        """Less often the longer the API server has been refusing: each try is a write."""
        since = min(datetime.fromisoformat(c.last_transition_time) for c in status.conditions)
        age = (self.clock() - since).total_seconds()
        return min(REFUSED_SECONDS, max(LATER_SECONDS, age / 10))

    def _next_look(self, status: LlamaClusterStatus) -> float:
        """Often at first, seldom after a while."""
        newest = max(datetime.fromisoformat(group.since) for group in status.groups)
        age = (self.clock() - newest).total_seconds()
        return min(LATER_SECONDS, max(SOON_SECONDS, age / 10))


def _is_refusal(error: ApiError) -> bool:
    """Whether the API server will say the same again until a person changes something."""
    return error.status in (400, 403, 422) or (
        error.status == 500
        # A webhook that is down or not installed right; a field that an older CRD does not know.
        and ("failed calling webhook" in error.message or "typed patch object" in error.message)
    )


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
    return f"{place}: {first['msg']}"
