"""kopf's watches wired to the work queue."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import kopf
import structlog
from kubernetes.aio.client import Configuration
from kubernetes.aio.dynamic import Resource

from llamacluster import __version__
from llamacluster.controller.agents import AgentsByApiServer, AgentsByPodAddress
from llamacluster.controller.election import Election, LeaseLost, LeaseName
from llamacluster.controller.health import serve
from llamacluster.controller.kubeapi import (
    LEADERWORKERSETS,
    LLAMACLUSTERS,
    NETWORKPOLICIES,
    PODDISRUPTIONBUDGETS,
    PODS,
    SERVICES,
    ApiError,
    connect,
)
from llamacluster.controller.lws import LeaderWorkerSetLookout
from llamacluster.controller.metrics import Metrics, serve_metrics
from llamacluster.controller.reconcile import Reconciler
from llamacluster.controller.workqueue import WorkQueue
from llamacluster.resources.metadata import CLUSTER_LABEL
from llamacluster.resources.networkpolicy import OperatorPods

log = structlog.get_logger()

RESYNC_SECONDS = 600.0
"""Every LlamaCluster is looked at this often without any event: what a watch missed heals."""

PARTS = (LEADERWORKERSETS, SERVICES, PODS, NETWORKPOLICIES, PODDISRUPTIONBUDGETS)
"""What is watched of a LlamaCluster's objects. Its Jobs end with their pods, and Secrets and
ConfigMaps are not for the operator to list: what somebody deletes of those comes again at a resync,
or when a pod waits for it."""

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
    health: str | None = None
    """HOST:PORT for the probes of the operator's pod."""
    lease: LeaseName | None = None
    """Work only while holding it."""
    metrics: str | None = None
    """HOST:PORT to serve /metrics at."""
    in_cluster: bool = True
    pods: OperatorPods | None = None
    """The operator's own pods, as NetworkPolicies name them."""


async def run(configuration: Configuration, options: Options) -> None:
    """Run until cancelled, as SIGTERM does too. Raises LeaseLost, and ends in namespaced mode when
    LeaderWorkerSet comes: to be started anew."""
    _cancel_at_sigterm(asyncio.current_task())
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
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        # Not the client of the work, which could keep all its connections busy.
        api = await stack.enter_async_context(connect(configuration, metrics.asked))
        lookout = LeaderWorkerSetLookout(api)
        looking = asyncio.create_task(lookout.run())
        stack.callback(looking.cancel)
        if options.health:
            await stack.enter_async_context(serve(options.health, lambda: lookout.problem))
        if options.metrics:
            await stack.enter_async_context(serve_metrics(options.metrics, metrics.registry))

        async def work(may_go_on: Callable[[], None] = lambda: None) -> None:
            await _work(configuration, options, lookout, metrics, may_go_on)

        if options.lease:
            election = Election(api, options.lease)
            await election.lead(lambda: work(election.check))
        else:
            await work()


async def _work(
    configuration: Configuration,
    options: Options,
    lookout: LeaderWorkerSetLookout,
    metrics: Metrics,
    may_go_on: Callable[[], None],
) -> None:
    """What one operator does at a time."""
    metrics.leads()
    expected = (ApiError, aiohttp.ClientError, TimeoutError, LeaseLost)
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(connect(configuration, metrics.asked, may_go_on))
        if options.in_cluster:
            # Whoever waits for a free connection runs out of time: how many leaders are asked at
            # once is bounded where they are asked.
            everyone = aiohttp.TCPConnector(limit=0)
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=everyone))
            agents: AgentsByPodAddress | AgentsByApiServer = AgentsByPodAddress(session)
        else:
            agents = AgentsByApiServer(api)
        reconciler = Reconciler(
            api,
            agents,
            options.engine_image,
            options.pods,
            require=lookout.require,
            clusters=metrics.clusters,
        )
        queue = WorkQueue(
            metrics.timed(reconciler, expected),
            concurrency=options.concurrency,
            expected=expected,
        )
        metrics.follow(queue)
        known: Known = {}
        watching = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            # Before kopf, which at its end cancels every task that began after it.
            background = [
                tasks.create_task(queue.run()),
                tasks.create_task(_resync(queue, known)),
                tasks.create_task(_take_sigterm_back(watching, asyncio.current_task())),
            ]
            ends = [
                tasks.create_task(
                    kopf.operator(
                        registry=watches(queue, known, configuration),
                        settings=settings(options),
                        clusterwide=not options.namespaces,
                        namespaces=options.namespaces,
                        standalone=True,
                        ready_flag=watching,
                    )
                ),
                tasks.create_task(_look_again(lookout, queue, known, options)),
            ]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in (*background, *ends):
                task.cancel()


def _cancel_at_sigterm(task: asyncio.Task[None] | None) -> None:
    if task:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


async def _take_sigterm_back(watching: asyncio.Event, task: asyncio.Task[None] | None) -> None:
    """From kopf, which would wait for seconds before it ends."""
    await watching.wait()
    _cancel_at_sigterm(task)


async def _look_again(
    lookout: LeaderWorkerSetLookout, queue: WorkQueue, known: Known, options: Options
) -> None:
    """Go on with every LlamaCluster when LeaderWorkerSet comes."""
    while True:
        await lookout.comes()
        if options.namespaces:
            log.info("ends, to be started anew: without a right to CRDs it cannot watch new ones")
            return
        for key in sorted(known):
            await queue.add(key)


def settings(options: Options) -> kopf.OperatorSettings:
    """kopf as a watcher only: it writes nothing."""
    result = kopf.OperatorSettings()
    result.posting.enabled = False
    result.watching.server_timeout = 300
    result.watching.client_timeout = 360
    for part in PARTS:
        result.watching.label_selectors[_names(part)] = CLUSTER_LABEL
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

    @kopf.on.event(*_names(LLAMACLUSTERS), registry=registry)
    async def cluster_changed(
        namespace: str | None, name: str, uid: str, meta: kopf.Meta, **event: Any
    ) -> None:
        key = f"{namespace}/{name}"
        if event["type"] == "DELETED":
            known.pop(key, None)
            log.info("deleted, and its objects with it", key=key)
            await queue.add(key)  # whose metrics end
        elif is_news(known, key, (uid, meta["generation"])):
            await queue.add(key)

    async def part_changed(namespace: str | None, labels: kopf.Labels, **_: Any) -> None:
        if name := labels.get(CLUSTER_LABEL):
            await queue.add(f"{namespace}/{name}")

    for part in PARTS:
        kopf.on.event(*_names(part), registry=registry)(part_changed)
    return registry


def _names(resource: Resource) -> tuple[str, str, str]:
    """Group, version and plural, as kopf takes them."""
    return resource.group, resource.api_version, resource.name


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
