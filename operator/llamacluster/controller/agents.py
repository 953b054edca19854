"""Asking the leaders' agents how their groups are."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any, Protocol, cast

import aiohttp

from llamacluster.agent import contract
from llamacluster.controller.kubeapi import ApiError, KubeApi
from llamacluster.resources.metadata import Manifest

TIMEOUT_SECONDS = 2.0
REACH_SECONDS = 1.0
MAX_ANSWER_BYTES = 1 << 20
MAX_REASON = 128
MAX_VERSION = 128
MAX_MESSAGE = 4096


class Agents(Protocol):
    """Where to ask."""

    async def leader_status(self, pod: Manifest) -> contract.LeaderStatus | None:
        """What the leader's agent says; None when it does not answer."""
        ...

    async def reaches(self, worker: Manifest) -> bool | None:
        """Whether a connection to the agent of this worker's pod comes about, which is for its
        leader alone; None when that would prove nothing."""
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
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        return None
        except (TimeoutError, aiohttp.ClientError):
            return None
        return parsed(bytes(body)) if answer.status == 200 else None

    async def reaches(self, worker: Manifest) -> bool | None:
        """See Agents. Never the RPC port: a connection there takes the leader's place."""
        address = worker.get("status", {}).get("podIP")
        if not address:
            return None
        try:
            async with asyncio.timeout(REACH_SECONDS):
                _, writer = await asyncio.open_connection(address, contract.AGENT_PORT)
        except (TimeoutError, OSError):
            return False
        writer.close()
        return True


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
            return checked(await self._api.get_raw(path, TIMEOUT_SECONDS))
        except (TimeoutError, ApiError, aiohttp.ClientError, ValueError):
            return None

    async def reaches(self, worker: Manifest) -> bool | None:  # noqa: ARG002
        """See Agents. From a node, as here, policies must let in more than from a pod."""
        return None


def parsed(body: bytes) -> contract.LeaderStatus | None:
    """The status in the body of an answer; None when it is not one."""
    try:
        return checked(json.loads(body))
    except (ValueError, RecursionError):  # the agent's image is the user's
        return None


def checked(answer: Any) -> contract.LeaderStatus | None:
    """`answer` if it says all that the operator reads; None when it does not.

    The agent runs in the user's image and may be older or newer than the operator, so that no
    other field is asked for, and what is too long for the LlamaCluster's status is cut.
    """
    match answer:
        case {
            "role": "leader",
            "phase": str(phase),
            "reason": str(reason),
            "message": str(message),
            "workers": list(workers),
            "engine": {"version": str(version)},
        } if phase in set(contract.Phase) and all(map(_is_worker, workers)):
            cut = {
                "reason": reason[:MAX_REASON] or phase,
                "message": message[:MAX_MESSAGE],
                "engine": {**answer["engine"], "version": version[:MAX_VERSION]},
                "lastFailure": _failure(answer.get("lastFailure")),
                "gate": _gate(answer.get("gate")),
            }
            return cast("contract.LeaderStatus", {**answer, **cut})
    return None


def _failure(answer: object) -> contract.LastFailure | None:
    match answer:
        case {"reason": str(reason), "message": str(message), "count": int(count)} if (
            reason and 0 < count < 2**31
        ):
            message = message[:MAX_MESSAGE]
            return {"reason": reason[:MAX_REASON], "message": message, "count": count}
    return None


def _gate(answer: object) -> contract.GateStatus | None:
    match answer:
        case {"keys": int() | None as keys, "certificateExpires": str() | None as expires}:
            assert isinstance(answer, dict)  # noqa: S101 - it matched
            return {
                "closed": _problem(answer.get("closed")),
                "attention": _problem(answer.get("attention")),
                "keys": keys if keys is None or 0 <= keys < 2**31 else None,
                "certificateExpires": expires if _is_time(expires) else None,
            }
    return None


def _problem(answer: object) -> contract.GateProblem | None:
    match answer:
        case {"reason": str(reason), "message": str(message)} if reason:
            return {"reason": reason[:MAX_REASON], "message": message[:MAX_MESSAGE]}
    return None


def _is_time(text: str | None) -> bool:
    try:
        return text is not None and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _is_worker(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("attached"), bool)
