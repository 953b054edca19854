"""Reading and making the objects of a LlamaCluster, and what can keep the operator from it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.reasons import ClusterReason
from llamacluster.controller.apply import (
    NotOurs,
    PredecessorRemains,
    check_ownership,
    difference,
    is_other_wish,
    is_owned,
    with_digest,
)
from llamacluster.controller.kubeapi import (
    LEADERWORKERSETS,
    NETWORKPOLICIES,
    PODDISRUPTIONBUDGETS,
    ApiError,
    KubeApi,
)
from llamacluster.resources.metadata import CLUSTER_LABEL

if TYPE_CHECKING:
    from kubernetes.aio.dynamic import Resource

    from llamacluster.resources.metadata import Manifest

log = structlog.get_logger()


class Refused(Exception):
    """What is wanted cannot be applied until a person changes something."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


LEADERWORKERSET_MISSING = (
    ClusterReason.LeaderWorkerSetMissing,
    "this cluster has no LeaderWorkerSet: install LeaderWorkerSet v0.9 or newer, "
    "see docs/install.md",
)
LEADERWORKERSET_TOO_OLD = (
    ClusterReason.LeaderWorkerSetTooOld,
    "this cluster's LeaderWorkerSet is older than v0.9: upgrade it, see docs/install.md",
)


async def read(
    cluster: LlamaCluster, api: KubeApi, resource: Resource, name: str
) -> Manifest | None:
    """The object of this LlamaCluster; None if there is none.

    Raises Refused and PredecessorRemains.
    """
    with refusals(resource, name):
        live = await api.get(resource, cluster.metadata.namespace, name)
        if live is not None:
            check_ownership(cluster, live)
        return live


async def read_owned(
    cluster: LlamaCluster, api: KubeApi, resource: Resource
) -> dict[str, Manifest]:
    """The objects of this kind that this LlamaCluster owns, by name. Raises Refused."""
    selector = f"{CLUSTER_LABEL}={cluster.metadata.name}"
    with refusals(resource, f"of {cluster.metadata.name}"):
        found = await api.list(resource, cluster.metadata.namespace, selector)
    return {live["metadata"]["name"]: live for live in found if is_owned(cluster, live)}


async def remove(api: KubeApi, resource: Resource, live: Manifest) -> None:
    """Delete an object that is not wanted any more. Raises Refused."""
    name = live["metadata"]["name"]
    _info(resource, name, "deleting")
    with refusals(resource, name):
        await api.delete(resource, live["metadata"]["namespace"], name)


async def make_once(api: KubeApi, resource: Resource, manifest: Manifest) -> None:
    """Create an object that is never read, unless there is one of its name. Raises Refused."""
    name = manifest["metadata"]["name"]
    with refusals(resource, name):
        try:
            await api.create(resource, manifest)
        except ApiError as error:
            if error.status != 409:
                raise
        else:
            log.info("created", object=f"{resource.kind}/{name}")


async def make_true(
    api: KubeApi, resource: Resource, manifest: Manifest, live: Manifest | None
) -> Manifest:
    """Apply `manifest` if it is not true of `live`; returns what is there then. Raises Refused."""
    name = manifest["metadata"]["name"]
    desired = with_digest(manifest)
    why = difference(desired, live)
    if live is not None and why is None:
        return live
    if live is None:
        _info(resource, name, "making")
    elif is_other_wish(desired, live):
        _info(resource, name, "changing", because=why)
    else:
        log.info("taking an edit back", object=f"{resource.kind}/{name}", because=why)
    with refusals(resource, name):
        return await api.apply(resource, desired)


def _info(resource: Resource, name: str, doing: str, **more: str | None) -> None:
    """A line of the log; of kinds that follow each step of a group, at level debug."""
    level = logging.DEBUG if resource in (NETWORKPOLICIES, PODDISRUPTIONBUDGETS) else logging.INFO
    log.log(level, doing, object=f"{resource.kind}/{name}", **more)


@contextmanager
def refusals(resource: Resource, name: str) -> Iterator[None]:
    """Errors that last until a person does something, as Refused."""
    try:
        yield
    except NotOurs as conflict:
        raise Refused(ClusterReason.NameConflict, str(conflict)) from conflict
    except ApiError as error:
        if error.status == 404 and resource is LEADERWORKERSETS:
            raise Refused(*LEADERWORKERSET_MISSING) from error
        if _is_refusal(error):
            raise Refused(
                ClusterReason.Rejected,
                f"the API server refused {resource.kind} {name}: {error.message}",
            ) from error
        raise


@contextmanager
def noted(refusals: list[Refused]) -> Iterator[None]:
    """Goes on after a refusal of what a group serves without, and notes it."""
    try:
        yield
    except Refused as refusal:
        refusals.append(refusal)
    except PredecessorRemains:
        pass  # that it has gone is an event, which leads here again


_LASTING = (
    "failed calling webhook",  # it is down, or not installed right
    "denied the request",  # by a webhook that could not look into it
    "typed patch object",  # of a field that an older CRD does not know
)


def _is_refusal(error: ApiError) -> bool:
    """Whether the API server will say the same again until a person changes something."""
    return error.status in (400, 403, 422) or (
        error.status == 500 and any(words in error.message for words in _LASTING)
    )
