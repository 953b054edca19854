"""Asking the leaders' agents how their groups are."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import aiohttp

from llamacluster.agent.contract import messages
from llamacluster.agent.contract.places import (
    AGENT_PORT,
    LIVEZ,
    PROBE_PORT,
    STATUS,
    TUNNEL_CONTAINER,
)
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

    async def leader_status(self, pod: Manifest) -> messages.LeaderStatus | None:
        """What the leader's agent says; None when it does not answer."""
        ...

    async def reaches(self, worker: Manifest) -> bool | None:
        """Whether the agent of this worker's pod answers, which is for its leader and the kubelet
        alone; None when what came of it proves nothing. Raises TimeoutError when the connection was
        taken and no answer came: the next try may tell."""
        ...


class AgentsByPodAddress:
    """Asks the pods directly: for an operator in the cluster."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def leader_status(self, pod: Manifest) -> messages.LeaderStatus | None:
        """See Agents."""
        address = pod.get("status", {}).get("podIP")
        if not address:
            return None
        url = f"http://{address}:{AGENT_PORT}{STATUS}"
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
        """See Agents. Never the RPC port: a connection there takes the leader's place.

        A connection alone may be one to a mesh's proxy in the operator's own pod.
        """
        address = worker.get("status", {}).get("podIP")
        if not address:
            return None
        url = f"http://{address}:{_probed_port(worker)}{LIVEZ}"
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS, sock_connect=REACH_SECONDS)
        try:
            async with self._session.get(url, timeout=timeout, allow_redirects=False) as answer:
                return True if answer.status == 200 else None
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError):
            return False
        except aiohttp.ClientError:
            return None


def _probed_port(worker: Manifest) -> int:
    """Where the agent of a worker answers without TLS: a tunnel stands before its usual port."""
    containers = worker.get("spec", {}).get("containers", [])
    encrypted = any(c["name"] == TUNNEL_CONTAINER for c in containers)
    return PROBE_PORT if encrypted else AGENT_PORT


class AgentsByApiServer:
    """Asks through the API server's pod proxy: for an operator that runs outside the cluster with a
    person's own rights. The operator's own role does not have this right."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api

    async def leader_status(self, pod: Manifest) -> messages.LeaderStatus | None:
        """See Agents."""
        metadata = pod["metadata"]
        path = (
            f"/api/v1/namespaces/{metadata['namespace']}/pods/"
            f"{metadata['name']}:{AGENT_PORT}/proxy{STATUS}"
        )
        try:
            return checked(await self._api.get_raw(path, TIMEOUT_SECONDS))
        except (TimeoutError, ApiError, aiohttp.ClientError, ValueError, RecursionError):
            return None

    async def reaches(self, worker: Manifest) -> bool | None:  # noqa: ARG002
        """See Agents. From a node, as here, policies must let in more than from a pod."""
        return None


def parsed(body: bytes) -> messages.LeaderStatus | None:
    """The status in the body of an answer; None when it is not one."""
    try:
        return checked(json.loads(body))
    except (ValueError, RecursionError):  # the agent's image is the user's
        return None


def checked(answer: Any) -> messages.LeaderStatus | None:
    """`answer` if it says all that the operator reads; None when it does not.

    The agent runs in the user's image and may be older or newer than the operator, so that no
    other field is asked for, and what is too long for the LlamaCluster's status is cut. Raises
    RecursionError where it nests without end.
    """
    answer = _encodable(answer)
    match answer:
        case {
            "role": "leader",
            "phase": str(phase),
            "reason": str(reason),
            "message": str(message),
            "workers": list(workers),
            "engine": {"version": str(version)},
        } if phase in set(messages.Phase) and all(map(_is_worker, workers)):
            cut = {
                "reason": reason[:MAX_REASON] or phase,
                "message": message[:MAX_MESSAGE],
                "engine": {**answer["engine"], "version": version[:MAX_VERSION]},
                "lastFailure": _failure(answer.get("lastFailure")),
                "gate": _gate(answer.get("gate")),
            }
            return cast("messages.LeaderStatus", {**answer, **cut})
    return None


def _failure(answer: object) -> messages.LastFailure | None:
    match answer:
        case {"reason": str(reason), "message": str(message), "count": int(count)} if (
            reason and 0 < count < 2**31
        ):
            message = message[:MAX_MESSAGE]
            return {"reason": reason[:MAX_REASON], "message": message, "count": count}
    return None


def _gate(answer: object) -> messages.GateStatus | None:
    match answer:
        case {"keys": int() | None as keys, "certificateExpires": str() | None as expires}:
            assert isinstance(answer, dict)  # noqa: S101 - it matched
            end = moment_told(expires) if expires else None
            return {
                "closed": _problem(answer.get("closed")),
                "attention": _problem(answer.get("attention")),
                "keys": keys if keys is None or 0 <= keys < 2**31 else None,
                "certificateExpires": in_words(end) if end else None,
            }
    return None


def _problem(answer: object) -> messages.GateProblem | None:
    match answer:
        case {"reason": str(reason), "message": str(message)} if reason:
            return {"reason": reason[:MAX_REASON], "message": message[:MAX_MESSAGE]}
    return None


def moment_told(text: str) -> datetime | None:
    """The moment, in UTC; None for what is none. datetime reads more than the API server does, so
    that nothing goes on as it was told."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def in_words(moment: datetime) -> str:
    """The moment, in UTC, as the status has it; strftime would write the year 1 as 1."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _encodable(answer: Any) -> Any:
    """The same, without what JSON may hold and UTF-8 may not: halves of characters."""
    return json.loads(json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace"))


def _is_worker(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("attached"), bool)
