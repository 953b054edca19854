"""`llamacluster-operator test`: what `helm test` runs in a pod. A LlamaCluster of a small model is
made, must answer a request, and is deleted again."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from typing import TYPE_CHECKING

import aiohttp

from llamacluster.api import GROUP, KIND, VERSION
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.controller.kubeapi import LLAMACLUSTERS, ApiError, KubeApi
from llamacluster.controller.status import condition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llamacluster.resources.metadata import Manifest

LOOK_SECONDS = 2.0
FAILURES = (ApiError, aiohttp.ClientError, TimeoutError)


def manifest(name: str, namespace: str, model: str, pull_secrets: Sequence[str]) -> Manifest:
    """A leader and a worker, with as much memory as the plan says."""
    resources = {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"uri": model},
            "workers": {"count": 1, "resources": resources},
            "leader": {"resources": resources},
            "inference": {"contextSize": 256, "parallel": 1},
            "imagePullSecrets": [{"name": secret} for secret in pull_secrets],
        },
    }


async def selftest(
    api: KubeApi, namespace: str, model: str, pull_secrets: Sequence[str], seconds: float
) -> int:
    """Says what it sees; returns the exit code."""
    name = f"helm-test-{secrets.token_hex(3)}"
    _say(f"LlamaCluster {namespace}/{name}, model {model}")
    try:
        await api.create(LLAMACLUSTERS, manifest(name, namespace, model, pull_secrets))
        try:
            async with asyncio.timeout(seconds):
                cluster = await _ready(api, namespace, name)
                _say(f"answered: {await _answer(cluster.status.endpoint)!r}")
        finally:
            await api.delete(LLAMACLUSTERS, namespace, name)
    except TimeoutError:
        _say(f"no answer within {seconds:.0f} s")
    except FAILURES as error:
        _say(str(error) or type(error).__name__)
    else:
        return 0
    return 1


async def _ready(api: KubeApi, namespace: str, name: str) -> LlamaCluster:
    """The LlamaCluster, once it is Ready."""
    told = ""
    while True:
        found = await api.get(LLAMACLUSTERS, namespace, name)
        if found is None:
            raise ApiError(404, f"somebody deleted {name}")
        cluster = LlamaCluster.model_validate(found)
        ready = condition(cluster.status, "Ready")
        said = f"{ready.reason}: {ready.message}" if ready else "the operator says nothing yet"
        if said != told:
            told = said
            _say(said)
        if ready and ready.status == "True":
            return cluster
        await asyncio.sleep(LOOK_SECONDS)


async def _answer(endpoint: str | None) -> str:
    """One token. A node's rules for a new Service, and its name, may come a moment after Ready."""
    while True:
        try:
            return await _ask(endpoint)
        except aiohttp.ClientConnectorError as error:
            _say(str(error))
        await asyncio.sleep(LOOK_SECONDS)


async def _ask(endpoint: str | None) -> str:
    """One token, as a client in the cluster gets it."""
    body = {"prompt": "Once upon a time", "max_tokens": 1}
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.post(f"{endpoint}/completions", json=body) as answer,
    ):
        return str((await answer.json())["choices"][0]["text"])


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr)
