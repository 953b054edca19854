"""What the operator tells Prometheus: of its own work, and of every LlamaCluster that it knows.

What it says of LlamaClusters is their status, so that it is the same sentence as everywhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llamacluster import __version__
from llamacluster.api.plan import Plan, PlannedMemory
from llamacluster.api.quantity import to_bytes
from llamacluster.api.status import GroupPhase, LlamaClusterStatus
from llamacluster.controller.web import serving
from llamacluster.controller.workqueue import Worker, WorkQueue

disable_created_metrics()  # type: ignore[no-untyped-call]  # nobody asks for those series

OUTCOMES = ("success", "retry", "error")
SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Clusters(Collector):
    """The LlamaClusters as last seen, by namespace and name."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], LlamaClusterStatus] = {}

    def see(self, namespace: str, name: str, status: LlamaClusterStatus) -> None:
        """This is its status now."""
        self._known[namespace, name] = status

    def forget(self, namespace: str, name: str) -> None:
        """It is gone."""
        self._known.pop((namespace, name), None)

    def collect(self) -> Iterable[Metric]:
        """All series; called from another thread."""
        own = ("namespace", "llamacluster")
        condition = GaugeMetricFamily(
            "llamacluster_status_condition",
            "1 for the status and reason that a condition of a LlamaCluster has.",
            labels=(*own, "type", "status", "reason"),
        )
        groups = GaugeMetricFamily(
            "llamacluster_groups", "Groups of a LlamaCluster by phase.", labels=(*own, "phase")
        )
        recoveries = CounterMetricFamily(
            "llamacluster_recoveries",
            "How often a group was lost and became Ready again, whatever happened to its pods.",
            labels=(*own, "group"),
        )
        planned = GaugeMetricFamily(
            "llamacluster_planned_bytes",
            "Memory that a pod of each group is to hold by the plan.",
            labels=(*own, "member", "part"),
        )
        observed = GaugeMetricFamily(
            "llamacluster_observed_bytes",
            "The most that the engine of this pod holds in any Ready group.",
            labels=(*own, "member"),
        )
        expires = GaugeMetricFamily(
            "llamacluster_certificate_expiry_timestamp_seconds",
            "When the certificate of the API expires.",
            labels=own,
        )
        for key, status in list(self._known.items()):
            for one in status.conditions:
                condition.add_metric((*key, one.type, one.status, one.reason), 1)
            phases = Tally(group.phase for group in status.groups)
            for phase in GroupPhase:
                groups.add_metric((*key, phase), phases[phase])
            for group in status.groups:
                recoveries.add_metric((*key, str(group.index)), group.recoveries)
            for member, memory in _members(status.plan):
                for part in ("weights", "context", "compute"):
                    size = to_bytes(getattr(memory, part))
                    planned.add_metric((*key, member, part), size)
                if memory.observed:
                    observed.add_metric((*key, member), to_bytes(memory.observed))
            if status.access and status.access.certificate_expires:
                end = datetime.fromisoformat(status.access.certificate_expires)
                expires.add_metric(key, end.timestamp())
        return condition, groups, recoveries, planned, observed, expires


def _members(plan: Plan | None) -> list[tuple[str, PlannedMemory]]:
    if plan is None:
        return []
    workers = [(f"worker-{i}", worker) for i, worker in enumerate(plan.per_worker, start=1)]
    return [("leader", plan.leader), *workers]


class Metrics:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.clusters = Clusters()
        self.registry.register(self.clusters)
        ProcessCollector(registry=self.registry)
        Gauge(
            "llamacluster_operator_info",
            "1, with the operator's version.",
            ["version"],
            registry=self.registry,
        ).labels(__version__).set(1)
        self._leading = Gauge(
            "llamacluster_operator_leading",
            "1 for the operator that works, 0 for one that stands by.",
            registry=self.registry,
        )
        self._reconciles = Histogram(
            "llamacluster_operator_reconcile_duration_seconds",
            "How long a LlamaCluster was worked on: to the end (success), until what may happen"
            " was in the way (retry), or until a defect was (error).",
            ["outcome"],
            buckets=SECONDS,
            registry=self.registry,
        )
        # From 0 on: of a series that begins with 1 Prometheus sees no increase.
        for outcome in OUTCOMES:
            self._reconciles.labels(outcome)
        self._requests = Counter(
            "llamacluster_operator_api_requests",
            "Requests to the API server, without watches. The code is 0 where none came.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self._waiting = Gauge(
            "llamacluster_operator_queue_depth",
            "LlamaClusters whose time has come and that no worker has begun with.",
            registry=self.registry,
        )

    def asked(self, verb: str, resource: str, code: int) -> None:
        """The API server answered a request."""
        self._requests.labels(verb, resource, str(code)).inc()

    def leads(self) -> None:
        """From now on, until its end, this operator works."""
        self._leading.set(1)

    def follow(self, queue: WorkQueue) -> None:
        """This is the work queue."""
        self._waiting.set_function(lambda: queue.waiting(time.monotonic()))

    def timed(self, worker: Worker, expected: tuple[type[Exception], ...]) -> Worker:
        """`worker`, with its time taken."""

        async def work(key: str, /) -> float | None:
            began, outcome = time.monotonic(), "error"
            try:
                again = await worker(key)
                outcome = "success"
                return again
            except expected:
                outcome = "retry"
                raise
            finally:
                self._reconciles.labels(outcome).observe(time.monotonic() - began)

        return work


@asynccontextmanager
async def serve_metrics(address: str, registry: CollectorRegistry) -> AsyncIterator[int]:
    """GET /metrics at HOST:PORT; the port that it became. Raises OSError if it cannot be had."""

    async def answer(_: web.Request) -> web.Response:
        # Not here: a thousand LlamaClusters take a moment.
        body = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/metrics", answer)
    async with serving(address, application) as port:
        yield port
