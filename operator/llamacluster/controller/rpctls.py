"""Keeps the certificates of RPC encryption in place.

The operator makes Secrets and does not read them. What it has to know of one it keeps beside it, in
a ConfigMap: the authority, which says how long all is valid. The Secret is written first: should
the operator end in between, certificates are made once more than needed, and never too seldom.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.reasons import ClusterReason
from llamacluster.controller.authority import is_due, issue, not_after
from llamacluster.controller.kubeapi import CONFIGMAPS, SECRETS, ApiError, KubeApi
from llamacluster.controller.objects import Refused, make_true, read, refusals
from llamacluster.resources.leaderworkerset import newly_mounts
from llamacluster.resources.metadata import Manifest, rpc_authority_name, rpc_secret_name
from llamacluster.resources.rpctls import (
    AUTHORITY_KEY,
    VOLUME,
    rpc_authority,
    rpc_secret,
    server_name,
)

log = structlog.get_logger()


async def make_certificates(
    cluster: LlamaCluster, wanted: Manifest, live: Manifest | None, api: KubeApi, now: datetime
) -> None:
    """Before the pods of `wanted` are the first that mount them. Raises Refused and
    PredecessorRemains."""
    if newly_mounts(VOLUME, wanted, live):
        await keep_certificates(cluster, api, now)


async def keep_certificates(cluster: LlamaCluster, api: KubeApi, now: datetime) -> None:
    """Makes certificates where there are none, or they end soon. Raises Refused and
    PredecessorRemains."""
    if not cluster.spec.rpc.encryption:
        return
    namespace, secret_name = cluster.metadata.namespace, rpc_secret_name(cluster)
    live = await read(cluster, api, CONFIGMAPS, rpc_authority_name(cluster))
    known = str(live.get("data", {}).get(AUTHORITY_KEY, "")) if live else ""
    ends = not_after(known)
    with refusals(SECRETS, secret_name):
        missing = await api.is_missing(SECRETS, namespace, secret_name)
    if not missing and not is_due(ends, now):
        return
    log.info("making certificates", secret=secret_name, missing=missing, former_ends=str(ends))
    new = issue(cluster.metadata.name, server_name(cluster), now)
    # Pods of a running group show the former certificate until all of them trust the new one.
    authorities = [new.authority, *([known] if ends else [])]
    with refusals(SECRETS, secret_name):
        try:
            await api.apply_ours(
                SECRETS, rpc_secret(cluster, authorities, new.certificate, new.key)
            )
        except ApiError as error:
            if error.status != 409:
                raise
            raise Refused(
                ClusterReason.NameConflict,
                f"Secret {secret_name} exists already and was not made for this LlamaCluster: "
                "delete it, or give the LlamaCluster another name",
            ) from error
    await make_true(api, CONFIGMAPS, rpc_authority(cluster, new.authority), live)
