"""LeaderWorkerSet in this Kubernetes cluster: whether it is there, and new enough."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import structlog

from llamacluster.agent.backoff import Backoff
from llamacluster.controller.kubeapi import LEADERWORKERSETS, ApiError, KubeApi
from llamacluster.controller.objects import (
    LEADERWORKERSET_MISSING,
    LEADERWORKERSET_TOO_OLD,
    Refused,
)

if TYPE_CHECKING:
    from llamacluster.resources.metadata import Manifest

log = structlog.get_logger()

FIRST_SECONDS = 5.0
LOOK_SECONDS = 30.0
"""Between two looks; less at first while it is missing or too old."""
# What every service account may read, whatever namespaces it has rights in.
RESOURCES = f"/apis/{LEADERWORKERSETS.group_version}"
SCHEMAS = f"/openapi/v3{RESOURCES}"


class LeaderWorkerSetLookout:
    """Looks for LeaderWorkerSet again and again, and remembers what it saw."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._seen = False
        self._refusal: Refused | None = None
        self._came = asyncio.Condition()

    @property
    def problem(self) -> str | None:
        """What is wrong, for people."""
        if not self._seen:
            return "the API server has not answered yet"
        return str(self._refusal) if self._refusal else None

    def require(self) -> None:
        """Raises Refused, when it is missing or too old."""
        if self._refusal:
            raise Refused(self._refusal.reason, self._refusal.message)

    async def comes(self) -> None:
        """Wait until it is there, and new enough, after it was not."""
        async with self._came:
            await self._came.wait()

    async def run(self) -> None:
        """Look for ever."""
        told = ""
        backoff = Backoff(FIRST_SECONDS, LOOK_SECONDS)
        while True:
            try:
                await self.look()
                told = ""
            except (ApiError, aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
                said = str(error) or type(error).__name__
                if said != told:
                    told = said
                    log.warning("cannot look for LeaderWorkerSet", error=said)
            if self.problem:
                await asyncio.sleep(backoff.next_seconds())
            else:
                backoff.reset()
                await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once. Raises ApiError, aiohttp.ClientError and TimeoutError."""
        before, self._refusal = self._refusal, await self._refusal_now()
        self._seen = True
        if self._refusal and (before is None or before.reason != self._refusal.reason):
            log.error("LeaderWorkerSet is needed", problem=str(self._refusal))
        if before and not self._refusal:
            log.info("LeaderWorkerSet is there now")
            async with self._came:
                self._came.notify_all()

    async def _refusal_now(self) -> Refused | None:
        try:
            served = await self._api.get_raw(RESOURCES, 10)
        except ApiError as error:
            if error.status == 404:
                return Refused(*LEADERWORKERSET_MISSING)
            raise
        if all(one["name"] != LEADERWORKERSETS.name for one in served["resources"]):
            return Refused(*LEADERWORKERSET_MISSING)
        if self._seen and not self._refusal:
            return None  # the schemas are large: they are read until all was well once
        if _is_new_enough(await self._api.get_raw(SCHEMAS, 30)):
            return None
        return Refused(*LEADERWORKERSET_TOO_OLD)


def _is_new_enough(schemas: Manifest) -> bool:
    """Whether a rollout can be followed: by status.observedGeneration, which came with v0.9."""
    for schema in schemas["components"]["schemas"].values():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            if kind["kind"] == LEADERWORKERSETS.kind and kind["group"] == LEADERWORKERSETS.group:
                status = schema["properties"].get("status", {})
                return "observedGeneration" in status.get("properties", {})
    return True  # nothing that tells otherwise
