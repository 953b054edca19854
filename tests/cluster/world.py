"""A namespace of the real cluster with a LlamaCluster, and an operator that runs when told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.controller.agents import AgentsByApiServer
from llamacluster.controller.kubeapi import LEADERWORKERSETS, LLAMACLUSTERS, KubeApi
from llamacluster.controller.reconcile import Reconciler
from llamacluster.resources.planjob import inputs_hash
from tests.build import IMAGE, Manifest, a_plan, manifest
from tests.kind.cluster import Cluster

PATIENCE_SECONDS = 240


@dataclass
class World:
    """A namespace, and who does what in it."""

    cluster: Cluster
    api: KubeApi
    namespace: str
    image: str = IMAGE
    """The operator's default."""

    def person(self, *args: str, stdin: Manifest | None = None) -> str:
        """A person's kubectl in the namespace."""
        text = json.dumps(stdin) if stdin else None
        return self.cluster.kubectl(f"--namespace={self.namespace}", *args, stdin=text)

    def creates(self, name: str = "x", **spec: Any) -> None:
        """A person makes a LlamaCluster; without pods unless the test wants them. It has a plan."""
        self.creates_unplanned(name, **{"replicas": 0, **spec})
        self.plans(name)

    def creates_unplanned(self, name: str = "x", **spec: Any) -> None:
        """A person makes a LlamaCluster."""
        self.person("create", "-f", "-", stdin=manifest(name, self.namespace, **spec))

    def plans(self, name: str = "x") -> None:
        """The LlamaCluster gets a plan for its spec, as if a planner had run: there is no image."""
        stored = json.loads(self.person("get", f"llc/{name}", "-o", "json"))
        cluster = LlamaCluster.model_validate({**stored, "status": {}})
        wanted = inputs_hash(cluster, cluster.spec.image or self.image)
        plan = a_plan(*[2] * (cluster.spec.workers.count or 2), inputs_hash=wanted)
        kept = plan.model_dump(mode="json", by_alias=True, exclude_none=True)
        self.patches(f"llc/{name}", {"status": {"plan": kept}}, "--subresource=status")

    def patches(self, what: str, changes: Manifest, *options: str) -> None:
        """A person changes an object by a merge patch."""
        self.person("patch", what, "--type=merge", f"--patch={json.dumps(changes)}", *options)

    async def reconcile(self, name: str = "x") -> int:
        """One reconcile by an operator that just started; returns its writes."""
        before = self.api.writes
        operator = Reconciler(self.api, AgentsByApiServer(self.api), self.image)
        await operator(f"{self.namespace}/{name}")
        return self.api.writes - before

    async def settle(self, name: str = "x") -> None:
        """Reconcile until LeaderWorkerSet has nothing new to say."""
        await self.until(lambda: self._is_quiet(name))

    async def _is_quiet(self, name: str) -> bool:
        group_set = await self.api.get(LEADERWORKERSETS, self.namespace, f"{name}-group")
        seen = bool(
            group_set
            and group_set.get("status", {}).get("observedGeneration")
            == group_set["metadata"]["generation"]
        )
        return await self.reconcile(name) == 0 and seen

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until it holds; fails after a while."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await condition():  # noqa: ASYNC110 - other processes make it true
                await asyncio.sleep(0.1)

    async def get(self, what: Any, name: str) -> Manifest:
        found = await self.api.get(what, self.namespace, name)
        assert found is not None
        return found

    async def gone(self, what: Any, name: str) -> bool:
        return await self.api.get(what, self.namespace, name) is None

    async def condition(self, type_: str, name: str = "x") -> Manifest:
        status = (await self.get(LLAMACLUSTERS, name))["status"]
        found: Manifest = next(c for c in status["conditions"] if c["type"] == type_)
        return found
