"""An API server in memory with a LlamaCluster, its agents, its planner, and the operator."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from llamacluster.agent.contract import messages
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.plan import Plan
from llamacluster.api.status import Condition, LlamaClusterStatus
from llamacluster.controller.kubeapi import EVENTS, JOBS, LLAMACLUSTERS, PODS
from llamacluster.controller.reconcile import Reconciler
from llamacluster.resources.networkpolicy import OperatorPods
from llamacluster.resources.planjob import inputs_hash
from tests.build import IMAGE, Manifest, a_plan, stored
from tests.fakekubeapi import FakeKubeApi
from tests.unit.controller.build import plan_pod, pod, terminated
from tests.unit.rights import IN_NAMESPACES, OF_NODES, each

OPERATOR_PODS = OperatorPods("system", {"app": "operator"})


@dataclass
class AgentsSay:
    """Agents that answer what a test says, by the name of the leader's pod."""

    statuses: dict[str, messages.LeaderStatus] = field(default_factory=dict)
    reached: bool | TimeoutError | None = False
    """What comes of a try to reach a worker."""
    tried: list[str] = field(default_factory=list)

    async def leader_status(self, pod: Manifest) -> messages.LeaderStatus | None:
        return self.statuses.get(pod["metadata"]["name"])

    async def reaches(self, worker: Manifest) -> bool | None:
        self.tried.append(worker["metadata"]["name"])
        if isinstance(self.reached, TimeoutError):
            raise self.reached
        return self.reached


@dataclass
class World:
    """An API server with a LlamaCluster x, and the operator."""

    api: FakeKubeApi = field(default_factory=FakeKubeApi)
    agents: AgentsSay = field(default_factory=AgentsSay)
    now: datetime = datetime(2026, 11, 22, 12, tzinfo=UTC)
    image: str = IMAGE
    """The operator's default."""
    operator_pods: OperatorPods | None = OPERATOR_PODS
    require: Callable[[], None] = lambda: None
    """Raises Refused when the Kubernetes cluster lacks something."""

    def creates(self, **fields: Any) -> None:
        """A person makes the LlamaCluster; its plan is there already."""
        self.creates_unplanned(**fields)
        self.has_plan(a_plan())

    def creates_unplanned(self, **fields: Any) -> None:
        """A person makes the LlamaCluster."""
        self.api.put(LLAMACLUSTERS, stored(**fields))

    def has_plan(self, plan: Plan) -> None:
        """The LlamaCluster's status has this plan for its spec."""
        here = self.stored(LLAMACLUSTERS)
        cluster = LlamaCluster.model_validate({**here, "status": {}})
        wanted = inputs_hash(cluster, cluster.spec.image or self.image)
        made = plan.model_copy(update={"inputs_hash": wanted})
        kept = made.model_dump(mode="json", by_alias=True, exclude_none=True)
        here["status"] = {**here.get("status", {}), "plan": kept}

    def planner(self, answer: object, exit_code: int = 0) -> None:
        """The newest Job's pod has ended with this answer."""
        end = terminated("Completed", exit_code, json.dumps(answer))
        self.pods(plan_pod(state=end, job_uid=self.job()["metadata"]["uid"]))

    def jobs(self) -> list[str]:
        """Names of the Jobs."""
        return [name for plural, _, name in self.api.objects if plural == JOBS.name]

    def job(self) -> Manifest:
        """The Job."""
        [name] = self.jobs()
        return self.stored(JOBS, name)

    async def reconcile(self, name: str = "x") -> float | None:
        """One reconcile by an operator that just started: it keeps nothing in memory."""
        operator = Reconciler(
            self.api,
            self.agents,
            self.image,
            self.operator_pods,
            lambda: self.now,
            self.require,
        )
        try:
            return await operator(f"ns/{name}")
        finally:
            assert self.api.used <= each(IN_NAMESPACES, OF_NODES), "a right that it has not"

    async def writes(self) -> int:
        """Writes of one more reconcile."""
        before = self.api.writes
        await self.reconcile()
        return self.api.writes - before

    def rolled_out(self, groups: int = 1) -> None:
        """LeaderWorkerSet has done its work."""
        group_set = self.api.objects["leaderworkersets", "ns", "x-group"]
        group_set["status"] = {
            "observedGeneration": group_set["metadata"]["generation"],
            "updatedReplicas": groups,
        }

    async def serves(self) -> None:
        """A person makes the LlamaCluster, and its group of two workers answers."""
        self.creates()
        await self.reconcile()
        self.rolled_out()
        self.pods(pod(0, ready=True), pod(1), pod(2))
        await self.reconcile()
        assert self.condition().reason == "Ready"

    def pods(self, *pods: Manifest) -> None:
        """These pods are there, as far as the API server knows."""
        for one in pods:
            self.api.put(PODS, one)

    def stored(self, what: Any, name: str = "x") -> Manifest:
        return self.api.objects[what.name, "ns", name]

    def status(self) -> LlamaClusterStatus:
        return LlamaClusterStatus.model_validate(self.stored(LLAMACLUSTERS)["status"])

    def condition(self, type_: str = "Ready") -> Condition:
        return next(c for c in self.status().conditions if c.type == type_)

    def events(self) -> list[tuple[str, str]]:
        """Type and reason of each event, in order."""
        return [
            (stored["type"], stored["reason"])
            for (plural, _, _), stored in self.api.objects.items()
            if plural == EVENTS.name
        ]
