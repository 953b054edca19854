"""The token of a LlamaCluster's agents: made by chance, written once, and not read.

The operator may create Secrets and do nothing else with them, so it cannot see whether there is
one. It makes one whenever pods come to need it, and again when a pod waits as one does whose Secret
is gone; the API server says if there is one already.
"""

from __future__ import annotations

import secrets
from datetime import datetime

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.controller.kubeapi import SECRETS, KubeApi
from llamacluster.controller.objects import make_once
from llamacluster.controller.observation import Observation
from llamacluster.resources.controlsecret import VOLUME, control_secret
from llamacluster.resources.leaderworkerset import newly_mounts
from llamacluster.resources.metadata import Manifest

TOKEN_BYTES = 32
WAITING_SECONDS = 15.0
"""A pod whose containers do not start for so long after it got its node may lack the Secret; or it
waits for its image, which costs a try in vain."""


async def make_token(
    cluster: LlamaCluster, wanted: Manifest, live: Manifest | None, api: KubeApi
) -> None:
    """Before the pods of `wanted` are the first that mount it. Raises Refused."""
    if newly_mounts(VOLUME, wanted, live):
        await _make(cluster, api)


async def renew_token(
    cluster: LlamaCluster, observation: Observation, api: KubeApi, now: datetime
) -> None:
    """When a pod waits as if somebody had deleted it. Raises Refused."""
    groups = observation.groups.values()
    if any(_waits(pod, now) for group in groups for pod in group.pods):
        await _make(cluster, api)


async def _make(cluster: LlamaCluster, api: KubeApi) -> None:
    token = secrets.token_urlsafe(TOKEN_BYTES)
    await make_once(api, SECRETS, control_secret(cluster, token))


def _waits(pod: Manifest, now: datetime) -> bool:
    """Whether the kubelet has had the pod for a while and starts no container of it, which mounts
    the Secret."""
    status = pod.get("status", {})
    if status.get("phase") != "Pending":
        return False
    if all(volume["name"] != VOLUME for volume in pod.get("spec", {}).get("volumes", [])):
        return False
    reasons = [
        container["state"].get("waiting", {}).get("reason")
        for container in status.get("containerStatuses", [])
    ]
    placed = next(
        (
            c.get("lastTransitionTime")
            for c in status.get("conditions", [])
            if (c["type"], c["status"]) == ("PodScheduled", "True")
        ),
        None,
    )
    if placed is None or "ContainerCreating" not in reasons:
        return False
    return (now - datetime.fromisoformat(placed)).total_seconds() >= WAITING_SECONDS
