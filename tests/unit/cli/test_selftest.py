"""What `helm test` runs: it says why, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from aiohttp import ClientConnectorError
from aiohttp.client_reqrep import ConnectionKey

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.cli import selftest as module
from llamacluster.cli.selftest import manifest, selftest
from llamacluster.controller.kubeapi import LLAMACLUSTERS, ApiError
from tests.build import Manifest
from tests.fakekubeapi import FakeKubeApi
from tests.virtualtime import in_virtual_time

KEY = ConnectionKey("x.ns.svc", 80, False, True, None, None, None)
MODEL = "https://models.example/tiny.gguf"


def run(api: FakeKubeApi, *conditions: tuple[str, str]) -> int:
    """The exit code, where the operator says these of Ready, one after another."""

    async def scenario() -> int:
        testing = asyncio.create_task(selftest(api, "ns", MODEL, [], 100))
        for status, reason in conditions:
            await asyncio.sleep(5)
            [found] = api.objects.values()
            found["status"] = {
                "endpoint": "http://x.ns.svc/v1",
                "conditions": [said(status, reason)],
            }
        return await testing

    return in_virtual_time(scenario())


def said(status: str, reason: str) -> Manifest:
    condition = {"type": "Ready", "status": status, "reason": reason, "message": "m"}
    return {**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Endpoints that were asked for a token, and that gave one."""
    endpoints: list[str | None] = []

    async def ask(endpoint: str | None) -> str:
        endpoints.append(endpoint)
        return " there"

    monkeypatch.setattr(module, "_ask", ask)
    return endpoints


def test_its_manifest_is_one_that_the_operator_takes() -> None:
    cluster = LlamaCluster.model_validate(
        {**manifest("x", "ns", MODEL, ["a"]), "status": {}}
        | {"metadata": {"name": "x", "namespace": "ns", "uid": "u", "generation": 1}}
    )
    assert cluster.spec.workers.count == 1
    assert [secret.name for secret in cluster.spec.image_pull_secrets or []] == ["a"]


def test_a_token_passes(asked: list[str | None], capsys: pytest.CaptureFixture[str]) -> None:
    api = FakeKubeApi()
    assert run(api, ("False", "Loading"), ("True", "Ready")) == 0
    assert asked == ["http://x.ns.svc/v1"]
    assert "Loading: m" in capsys.readouterr().err
    assert not api.objects


def test_a_service_whose_rules_come_a_moment_later_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times: list[float] = []

    async def ask(_: str | None) -> str:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 3:
            raise ClientConnectorError(KEY, ConnectionRefusedError(111, "refused"))
        return " there"

    monkeypatch.setattr(module, "_ask", ask)
    assert run(FakeKubeApi(), ("True", "Ready")) == 0
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([2, 2])
    assert "Cannot connect to host x.ns.svc:80" in capsys.readouterr().err


def test_no_token_in_time_fails(
    asked: list[str | None], capsys: pytest.CaptureFixture[str]
) -> None:
    api = FakeKubeApi()
    assert run(api, ("False", "Unschedulable")) == 1
    assert not asked
    assert "Unschedulable: m" in capsys.readouterr().err
    assert not api.objects


def test_a_refusal_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FakeKubeApi(refusals={LLAMACLUSTERS.name: ApiError(403, "forbidden")})) == 1
    assert "403: forbidden" in capsys.readouterr().err
