"""Asking the leaders' agents how their groups are."""

from __future__ import annotations

import json
from typing import Protocol, cast

import aiohttp

from llamacluster.agent import contract
from llamacluster.controller.kubeapi import ApiError, KubeApi
from llamacluster.resources.metadata import Manifest

TIMEOUT_SECONDS = 2.0
MAX_ANSWER_BYTES = 1 << 20


class Agents(Protocol):
    """Where to ask."""

    async def leader_status(self, pod: Manifest) -> contract.LeaderStatus | None:
        """What the leader's agent says; None when it does not answer."""
        ...


class AgentsByPodAddress:
    """Asks the pods directly: for an operator in the cluster."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def leader_status(self, pod: Manifest) -> contract.LeaderStatus | None:
        """See Agents."""
        address = pod.get("status", {}).get("podIP")
        if not address:
            return None
        url = f"http://{address}:{contract.AGENT_PORT}{contract.STATUS}"
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with self._session.get(url, timeout=timeout, allow_redirects=False) as answer:
                body = await answer.content.read(MAX_ANSWER_BYTES)
        except (TimeoutError, aiohttp.ClientError):
            return None
        return _parsed(body) if answer.status == 200 else None


class AgentsByApiServer:
    """Asks through the API server's pod proxy: for an operator that runs outside the cluster with a
    person's own rights. The operator's own role does not have this right."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api

    async def leader_status(self, pod: Manifest) -> contract.LeaderStatus | None:
        """See Agents."""
        metadata = pod["metadata"]
        path = (
            f"/api/v1/namespaces/{metadata['namespace']}/pods/"
            f"{metadata['name']}:{contract.AGENT_PORT}/proxy{contract.STATUS}"
        )
        try:
            return cast("contract.LeaderStatus", await self._api.get_raw(path, TIMEOUT_SECONDS))
        except (TimeoutError, ApiError, aiohttp.ClientError, ValueError):
            return None


def _parsed(body: bytes) -> contract.LeaderStatus | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return cast("contract.LeaderStatus", value) if isinstance(value, dict) else None
