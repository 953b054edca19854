"""What the operator tells Prometheus."""

from __future__ import annotations

from collections.abc import Awaitable

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from llamacluster.api.status import (
    AccessStatus,
    Condition,
    ConditionStatus,
    GroupPhase,
    GroupStatus,
    LlamaClusterStatus,
)
from llamacluster.controller.kubeapi import _verb_and_resource
from llamacluster.controller.lws import RESOURCES, SCHEMAS
from llamacluster.controller.metrics import Metrics, serve_metrics
from llamacluster.controller.workqueue import WorkQueue
from tests.build import a_plan
from tests.unit.controller.build import NOW

OWN = {"namespace": "ns", "llamacluster": "x"}


def status() -> LlamaClusterStatus:
    """A LlamaCluster of two groups, one of which was lost before."""
    serving = {"phase": GroupPhase.SERVING, "reason": "Ready", "since": NOW}
    plan = a_plan()
    first = plan.per_worker[0].model_copy(update={"observed": "100Mi"})
    return LlamaClusterStatus(
        conditions=[
            Condition(
                type="Ready",
                status=ConditionStatus.FALSE,
                reason="WorkerLost",
                message="lost",
                last_transition_time=NOW,
            )
        ],
        groups=[
            GroupStatus(index=0, **serving, recoveries=3),
            GroupStatus(index=1, phase=GroupPhase.RECOVERING, reason="WorkerLost", since=NOW),
        ],
        plan=plan.model_copy(update={"per_worker": [first, *plan.per_worker[1:]]}),
        access=AccessStatus(certificate_expires="2026-11-22T12:00:00Z"),
    )


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_a_status_is_told_as_it_is() -> None:
    metrics = Metrics()
    metrics.clusters.see("ns", "x", status())

    def of(name: str, **labels: str) -> float | None:
        return value(metrics.registry, f"llamacluster_{name}", **OWN, **labels)

    assert of("status_condition", type="Ready", status="False", reason="WorkerLost") == 1
    assert of("groups", phase="Serving") == 1
    assert of("groups", phase="Recovering") == 1
    assert of("groups", phase="Loading") == 0
    assert of("recoveries_total", group="0") == 3
    assert of("observed_bytes", member="worker-1") == 100 << 20
    assert of("observed_bytes", member="worker-2") is None
    weights = of("planned_bytes", member="worker-1", part="weights")
    assert weights is not None
    assert weights > 0
    assert of("planned_bytes", member="leader", part="context") is not None
    assert of("certificate_expiry_timestamp_seconds") == 1795348800


def test_a_cluster_that_is_gone_is_told_no_more() -> None:
    metrics = Metrics()
    metrics.clusters.see("ns", "x", status())
    metrics.clusters.forget("ns", "x")
    metrics.clusters.forget("ns", "x")
    assert value(metrics.registry, "llamacluster_groups", **OWN, phase="Serving") is None


def test_one_without_a_plan_or_groups_is_told_too() -> None:
    metrics = Metrics()
    metrics.clusters.see("ns", "x", LlamaClusterStatus())
    assert value(metrics.registry, "llamacluster_groups", **OWN, phase="Serving") == 0


class Refused(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(None, "success"), (Refused("no"), "retry"), (ValueError("a defect"), "error")],
)
async def test_work_is_timed_by_its_outcome(error: Exception | None, outcome: str) -> None:
    async def work(key: str, /) -> float | None:
        if error:
            raise error
        return 7.0

    metrics = Metrics()
    name = "llamacluster_operator_reconcile_duration_seconds_count"
    assert value(metrics.registry, name, outcome=outcome) == 0
    timed = metrics.timed(work, (Refused,))
    if error:
        with pytest.raises(type(error)):
            await timed("ns/x")
    else:
        assert await timed("ns/x") == 7.0
    assert value(metrics.registry, name, outcome=outcome) == 1


async def test_the_queue_is_what_is_due_and_not_begun() -> None:
    metrics = Metrics()

    def work(_: str, /) -> Awaitable[float | None]:
        raise NotImplementedError

    queue = WorkQueue(work, concurrency=1)
    metrics.follow(queue)
    await queue.add("ns/now")
    await queue.add("ns/later", delay=3600)
    assert value(metrics.registry, "llamacluster_operator_queue_depth") == 1


@pytest.mark.parametrize(
    ("method", "path", "verb", "resource"),
    [
        ("get", "/api/v1/nodes/n", "get", "nodes"),
        ("get", "/api/v1/namespaces/ns/pods", "list", "pods"),
        ("post", "/api/v1/namespaces/ns/events", "create", "events"),
        (
            "get",
            "/apis/llamacluster.dev/v1alpha1/namespaces/ns/llamaclusters/x",
            "get",
            "llamaclusters",
        ),
        (
            *("patch", "/apis/llamacluster.dev/v1alpha1/namespaces/ns/llamaclusters/x/status"),
            *("patch", "llamaclusters/status"),
        ),
        ("get", "/api/v1/namespaces/ns/pods/x:1/proxy/status", "get", "pods/proxy"),
        ("get", "/api/v1/namespaces/ns", "get", "namespaces"),
        ("put", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/x", "update", "leases"),
        ("get", RESOURCES, "get", RESOURCES),
        ("get", SCHEMAS, "get", SCHEMAS),
        ("get", "/version", "get", "/version"),
    ],
)
def test_requests_are_counted_in_rbacs_words(
    method: str, path: str, verb: str, resource: str
) -> None:
    assert _verb_and_resource(method, path) == (verb, resource)


async def test_metrics_are_served_and_nothing_else() -> None:
    metrics = Metrics()
    metrics.asked("list", "pods", 200)
    async with (
        serve_metrics("127.0.0.1:0", metrics.registry) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        async with session.get("/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            text = await answer.text()
        async with session.get("/") as answer:
            assert answer.status == 404
    line = 'llamacluster_operator_api_requests_total{code="200",resource="pods",verb="list"} 1.0'
    assert line in text
    assert "_created" not in text
    assert "process_resident_memory_bytes" in text


def test_an_operator_stands_by_until_it_works() -> None:
    metrics = Metrics()
    assert value(metrics.registry, "llamacluster_operator_leading") == 0
    metrics.leads()
    assert value(metrics.registry, "llamacluster_operator_leading") == 1


def test_two_operators_in_a_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.asked("list", "pods", 200)
    name = "llamacluster_operator_api_requests_total"
    assert value(other.registry, name, verb="list", resource="pods", code="200") is None
