"""Whatever the API server admits leads to a condition, quietly, and to no argument that nobody
meant; and nobody else waits for it."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from llamacluster.agent.contract.options import LeaderOptions, WorkerOptions, parse
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.controller.kubeapi import (
    JOBS,
    LEADERWORKERSETS,
    LLAMACLUSTERS,
    ApiError,
    KubeApi,
)
from llamacluster.resources.metadata import CLUSTER_LABEL
from llamacluster.resources.planjob import inputs_hash, plan_options
from tests.build import IMAGE, Manifest, a_plan, manifest
from tests.cluster import hostile
from tests.kind.cluster import Cluster

pytestmark = pytest.mark.cluster

PATIENCE_SECONDS = 240
WATCHED_SECONDS = 20
MOST_WRITES = 6
"""Of one object in that time: what the API server refuses is tried again every 15 s at most."""


UNLESS_IT_SAYS: Manifest = {"networkPolicy": {"enabled": False}}


class CountingApi(KubeApi):
    """The operator's client, which notes what it writes."""

    written: ClassVar[Counter[str]] = Counter()

    async def _request(self, method: str, path: str, **options: Any) -> Manifest:
        if method != "get":
            named = re.search(r"\bh\d+\b", path + str(options.get("body", "")))
            self.written[named[0] if named else path] += 1
        return await super()._request(method, path, **options)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator writes through it."""
    monkeypatch.setattr("llamacluster.controller.kubeapi.KubeApi", CountingApi)


async def each(wanted: Any, act: Callable[[Any], Awaitable[object]]) -> None:
    at_once = asyncio.Semaphore(16)

    async def one(item: Any) -> None:
        async with at_once:
            await act(item)

    await asyncio.gather(*map(one, wanted))


async def until_settled(api: KubeApi, namespace: str, settled: Callable[[Manifest], bool]) -> None:
    """Waits until it holds for all LlamaClusters."""
    waiting: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while waiting := [  # noqa: ASYNC110 - other processes make it true
                one["metadata"]["name"]
                for one in await api.list(LLAMACLUSTERS, namespace, "")
                if not settled(one)
            ]:
                await asyncio.sleep(1)
    except TimeoutError:
        pytest.fail(f"still without a condition: {waiting}")


def said(one: Manifest, type_: str) -> Manifest:
    """A condition; empty while nothing is said of the newest spec."""
    status = one.get("status", {})
    if status.get("observedGeneration") != one["metadata"]["generation"]:
        return {}
    return next((c for c in status["conditions"] if c["type"] == type_), {})


def meant(args: list[str]) -> Any:
    """What Kubernetes makes of a container's arguments, and the agent of those."""
    return parse([arg.replace("$$", "$") for arg in args])


async def test_whatever_is_admitted_leads_to_a_condition(
    api_server: Cluster, api: KubeApi, namespace: str, counted: None, operator: None
) -> None:
    # A thousand NetworkPolicies would keep the nodes busy long after the test.
    wanted = {
        f"h{index}": manifest(f"h{index}", namespace, **{**UNLESS_IT_SAYS, **spec})
        for index, spec in enumerate(hostile.admitted())
        if spec.get("replicas", 1) < 10  # so many groups are LeaderWorkerSet's to bear
    }
    no_pods(api_server, namespace)
    with capture_logs() as logs:
        await each(wanted.values(), lambda one: admit(api, one))
        await until_settled(api, namespace, planned_or_refused)
        clusters = [
            LlamaCluster.model_validate({**one, "status": {}})
            for one in await api.list(LLAMACLUSTERS, namespace, "")
        ]
        assert len(clusters) > 80
        await the_planners_arguments_are_those_of_the_spec(api, namespace, clusters)
        await each(clusters, lambda cluster: plans(api, cluster))
        await until_settled(api, namespace, made_or_refused)
        await the_leaders_arguments_are_those_of_the_spec(api, namespace, clusters)

        CountingApi.written.clear()
        await asyncio.sleep(WATCHED_SECONDS)  # how much is written in that time is the question
        busy = {name: count for name, count in CountingApi.written.items() if count > MOST_WRITES}
        assert busy == {}

        # With all of them there, another one is served as ever.
        await api.create(LLAMACLUSTERS, manifest("good", namespace, replicas=0))
        await until_settled(api, namespace, lambda one: bool(said(one, "Ready")))
    assert [entry for entry in logs if entry["log_level"] in ("error", "critical")] == []


def no_pods(cluster: Cluster, namespace: str) -> None:
    """Hundreds of pods that nobody looks at would keep the nodes busy for many minutes."""
    here = f"--namespace={namespace}"
    cluster.kubectl("create", "quota", "no-pods", "--hard=pods=0", here)
    # It holds from when its controller has counted what there is.
    cluster.kubectl("wait", "--for=jsonpath={.status.hard.pods}=0", "quota/no-pods", here)


async def admit(api: KubeApi, wanted: Manifest) -> None:
    try:
        await api.create(LLAMACLUSTERS, wanted)
    except ApiError as error:
        if error.status != 422:  # a bound that another rule narrows
            raise


def planned_or_refused(one: Manifest) -> bool:
    """Whether something is said of its plan, or of why there is none to be."""
    return bool(said(one, "Planned")) or said(one, "Degraded").get("status") == "True"


def made_or_refused(one: Manifest) -> bool:
    """Whether it has come as far as it can."""
    return bool(
        said(one, "Planned").get("status") == "True"
        or (
            said(one, "Degraded").get("status") == "True"
            # No planner's pod may be made here: the plan comes by another way.
            and said(one, "Degraded").get("reason") != "PodsMissing"
        )
    )


async def plans(api: KubeApi, cluster: LlamaCluster) -> None:
    """A plan, as if a planner had run."""
    plan = a_plan(
        *[2] * (cluster.spec.workers.count or 2),
        inputs_hash=inputs_hash(cluster, cluster.spec.image or IMAGE),
    )
    kept = plan.model_dump(mode="json", by_alias=True, exclude_none=True)
    path = LLAMACLUSTERS.path(name=cluster.metadata.name, namespace=cluster.metadata.namespace)
    await api._request(
        "patch",
        f"{path}/status",
        body={"status": {"plan": kept}},
        content_type="application/merge-patch+json",
    )


async def the_planners_arguments_are_those_of_the_spec(
    api: KubeApi, namespace: str, clusters: list[LlamaCluster]
) -> None:
    by_name = {cluster.metadata.name: cluster for cluster in clusters}
    jobs = await api.list(JOBS, namespace, "")
    assert jobs
    for job in jobs:
        [container] = job["spec"]["template"]["spec"]["containers"]
        cluster = by_name[job["metadata"]["labels"][CLUSTER_LABEL]]
        assert meant(container["args"]) == plan_options(cluster)
        assert "command" not in container
        assert "env" not in container


async def the_leaders_arguments_are_those_of_the_spec(
    api: KubeApi, namespace: str, clusters: list[LlamaCluster]
) -> None:
    by_name = {cluster.metadata.name: cluster for cluster in clusters}
    group_sets = await api.list(LEADERWORKERSETS, namespace, "")
    assert len(group_sets) > len(clusters) / 2
    for group_set in group_sets:
        spec = by_name[group_set["metadata"]["labels"][CLUSTER_LABEL]].spec
        templates = group_set["spec"]["leaderWorkerTemplate"]
        leader, gate = templates["leaderTemplate"]["spec"]["containers"]
        options = meant(leader["args"])
        assert isinstance(options, LeaderOptions)
        assert options.extra_args == tuple(spec.inference.extra_args)
        assert options.model_uri == spec.model.uri
        assert options.server_port == meant(gate["args"]).server_port == spec.server.port
        [worker] = templates["workerTemplate"]["spec"]["containers"]
        assert isinstance(meant(worker["args"]), WorkerOptions)
        assert not any({"command", "env"} & one.keys() for one in (leader, gate, worker))
