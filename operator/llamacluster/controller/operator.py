"""kopf's watches wired to the work queue."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import kopf
import structlog
from kubernetes.aio.client import Configuration

from llamacluster import __version__
from llamacluster.api import GROUP, PLURAL, VERSION
from llamacluster.controller.agents import AgentsByApiServer, AgentsByPodAddress
from llamacluster.controller.kubeapi import ApiError, connect
from llamacluster.controller.metrics import Metrics, serve_metrics
from llamacluster.controller.reconcile import Reconciler
from llamacluster.controller.workqueue import WorkQueue
from llamacluster.resources.metadata import CLUSTER_LABEL
from llamacluster.resources.networkpolicy import OperatorPods

log = structlog.get_logger()

RESYNC_SECONDS = 600.0
"""Every LlamaCluster is looked at this often without any event: what a watch missed heals."""

Known = dict[str, tuple[str, int]]
"""Uid and generation of each LlamaCluster, by key, as last seen."""


@dataclass(frozen=True)
class Options:
    """How to run the operator."""

    engine_image: str
    namespaces: tuple[str, ...] = ()
    """Empty: all namespaces."""
    concurrency: int = 8
    """LlamaClusters worked on at the same time."""
    liveness_endpoint: str | None = None
    metrics: str | None = None
    """HOST:PORT to serve /metrics at."""
    in_cluster: bool = True
    pods: OperatorPods | None = None
    """The operator's own pods, as NetworkPolicies name them."""


async def run(configuration: Configuration, options: Options) -> None:
    """Run until cancelled."""
    metrics = Metrics()
    expected = (ApiError, aiohttp.ClientError, TimeoutError)
    async with AsyncExitStack() as stack:
        if options.metrics:
            await stack.enter_async_context(serve_metrics(options.metrics, metrics.registry))
        api = await stack.enter_async_context(connect(configuration, metrics.asked))
        if options.in_cluster:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            agents: AgentsByPodAddress | AgentsByApiServer = AgentsByPodAddress(session)
        else:
            agents = AgentsByApiServer(api)
        reconciler = Reconciler(
            api, agents, options.engine_image, options.pods, clusters=metrics.clusters
        )
        queue = WorkQueue(
            metrics.timed(reconciler, expected),
            concurrency=options.concurrency,
            expected=expected,
        )
        metrics.follow(queue)
        known: Known = {}
        log.info(
            "operator started",
            version=__version__,
            server=configuration.host,
            namespaces=",".join(options.namespaces) or "all",
            engine_image=options.engine_image,
        )
        if options.pods is None:
            log.warning(
                "NetworkPolicies cannot let in an operator whose pods they do not know: leaders may"
                " not answer it, see docs/security.md"
            )
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(queue.run()),
                tasks.create_task(_resync(queue, known)),
            ]
            await kopf.operator(
                registry=watches(queue, known, configuration),
                settings=settings(options),
                clusterwide=not options.namespaces,
                namespaces=options.namespaces,
                liveness_endpoint=options.liveness_endpoint,
                standalone=True,
            )
            for task in background:
                task.cancel()


def settings(options: Options) -> kopf.OperatorSettings:
    """kopf as a watcher only: it writes nothing."""
    result = kopf.OperatorSettings()
    result.posting.enabled = False
    result.watching.server_timeout = 300
    result.watching.client_timeout = 360
    for parts in (("v1", "pods"), ("v1", "services"), "leaderworkersets.leaderworkerset.x-k8s.io"):
        result.watching.label_selectors[parts] = CLUSTER_LABEL
    # To see LeaderWorkerSet's CRD come needs the right to watch CRDs, which are not namespaced.
    result.scanning.disabled = bool(options.namespaces)
    return result


def is_news(known: Known, key: str, seen: tuple[str, int]) -> bool:
    """Whether the uid and generation of a LlamaCluster are new; they are known from now on.

    A new status is no news: it is our own, and while a group reports its progress each status
    would lead to the next one at once.
    """
    if known.get(key) == seen:
        return False
    known[key] = seen
    return True


def watches(queue: WorkQueue, known: Known, configuration: Configuration) -> kopf.OperatorRegistry:
    """Handlers that turn every event of a LlamaCluster or of its objects into its key."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection_info(configuration)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def cluster_changed(
        namespace: str | None, name: str, uid: str, meta: kopf.Meta, **event: Any
    ) -> None:
        key = f"{namespace}/{name}"
        if event["type"] == "DELETED":
            known.pop(key, None)
            await queue.add(key)  # whose metrics end
        elif is_news(known, key, (uid, meta["generation"])):
            await queue.add(key)

    @kopf.on.event("leaderworkerset.x-k8s.io", "v1", "leaderworkersets", registry=registry)
    @kopf.on.event("", "v1", "services", registry=registry)
    @kopf.on.event("", "v1", "pods", registry=registry)
    async def part_changed(namespace: str | None, labels: kopf.Labels, **_: Any) -> None:
        if name := labels.get(CLUSTER_LABEL):
            await queue.add(f"{namespace}/{name}")

    return registry


async def connection_info(configuration: Configuration) -> kopf.ConnectionInfo:
    """kopf's credentials from the client's, so that both speak to the same cluster as the same
    user."""
    header = await configuration.get_api_key_with_prefix("BearerToken")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        username=configuration.username or None,
        password=configuration.password or None,
        scheme="Bearer" if header else None,
        token=header.split(" ", 1)[-1] if header else None,
    )


async def _resync(queue: WorkQueue, known: Known) -> None:
    while True:
        await asyncio.sleep(RESYNC_SECONDS)
        for key in sorted(known):
            await queue.add(key, delay=random.uniform(0, RESYNC_SECONDS / 2))  # noqa: S311
