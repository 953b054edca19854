"""LeaderWorkerSet is looked for, and found, whenever it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from llamacluster.controller.kubeapi import ApiError
from llamacluster.controller.lws import (
    LOOK_SECONDS,
    RESOURCES,
    SCHEMAS,
    LeaderWorkerSetLookout,
)
from llamacluster.controller.objects import Refused
from tests.build import Manifest
from tests.fakekubeapi import FakeKubeApi
from tests.virtualtime import in_virtual_time


@dataclass
class Cluster(FakeKubeApi):
    """A Kubernetes cluster with LeaderWorkerSet or without."""

    version: str | None = None
    away: bool = False
    read_schemas: int = 0

    async def get_raw(self, path: str, seconds: float) -> Manifest:  # noqa: ARG002
        if self.away:
            raise aiohttp.ClientConnectionError("refused")
        if self.version is None:
            raise ApiError(404, "the server could not find the requested resource")
        if path == RESOURCES:
            names = ["leaderworkersets", "leaderworkersets/status"]
            return {"resources": [{"name": name} for name in names]}
        assert path == SCHEMAS
        self.read_schemas += 1
        status: Manifest = {"conditions": {}} | (
            {"observedGeneration": {}} if self.version == "0.9" else {}
        )
        kind = {"group": "leaderworkerset.x-k8s.io", "version": "v1", "kind": "LeaderWorkerSet"}
        return {
            "components": {
                "schemas": {
                    "DeleteOptions": {"x-kubernetes-group-version-kind": [kind | {"kind": "D"}]},
                    "Meta": {"properties": {}},
                    "LeaderWorkerSet": {
                        "x-kubernetes-group-version-kind": [kind],
                        "properties": {"status": {"properties": status}},
                    },
                }
            }
        }


def seen(cluster: Cluster) -> LeaderWorkerSetLookout:
    lookout = LeaderWorkerSetLookout(cluster)
    in_virtual_time(lookout.look())
    return lookout


def test_one_that_is_there_is_no_problem() -> None:
    lookout = seen(Cluster(version="0.9"))
    assert lookout.problem is None
    lookout.require()


@pytest.mark.parametrize(
    ("version", "reason", "says"),
    [
        (None, "LeaderWorkerSetMissing", "install LeaderWorkerSet v0.9"),
        ("0.8", "LeaderWorkerSetTooOld", "older than v0.9: upgrade it"),
    ],
)
def test_one_that_is_missing_or_too_old_is_told_everywhere(
    version: str | None, reason: str, says: str
) -> None:
    with capture_logs() as logs:
        lookout = seen(Cluster(version=version))
    assert lookout.problem is not None
    assert says in lookout.problem
    [line] = logs
    assert line["log_level"] == "error"
    assert says in line["problem"]
    with pytest.raises(Refused, match=says) as refused:
        lookout.require()
    assert refused.value.reason == reason


def test_before_the_first_answer_nothing_is_refused() -> None:
    lookout = LeaderWorkerSetLookout(Cluster(away=True))
    lookout.require()
    assert lookout.problem == "the API server has not answered yet"


def scenario(lookout: LeaderWorkerSetLookout, story: Coroutine[Any, Any, None]) -> None:
    async def told() -> None:
        looking = asyncio.create_task(lookout.run())
        await story
        looking.cancel()

    in_virtual_time(told())


@pytest.mark.parametrize("before", [None, "0.8"])
def test_it_is_seen_when_it_comes(before: str | None) -> None:
    cluster = Cluster(version=before)
    lookout = LeaderWorkerSetLookout(cluster)

    async def story() -> None:
        comes = asyncio.create_task(lookout.comes())
        await asyncio.sleep(100)
        assert not comes.done()
        cluster.version = "0.9"
        await asyncio.wait_for(comes, LOOK_SECONDS + 1)
        assert lookout.problem is None

    with capture_logs() as logs:
        scenario(lookout, story())
    assert [line["event"] for line in logs] == [
        "LeaderWorkerSet is needed",
        "LeaderWorkerSet is there now",
    ]


def test_an_api_server_that_is_away_changes_nothing() -> None:
    cluster = Cluster(version="0.9")
    lookout = LeaderWorkerSetLookout(cluster)

    async def story() -> None:
        await asyncio.sleep(1)
        cluster.away = True
        await asyncio.sleep(1000)
        assert lookout.problem is None
        cluster.away = False
        await asyncio.sleep(100)
        cluster.away = True
        await asyncio.sleep(1000)

    with capture_logs() as logs:
        scenario(lookout, story())
    assert [(line["event"], line["error"]) for line in logs] == [
        ("cannot look for LeaderWorkerSet", "refused")
    ] * 2


def test_what_stays_too_old_is_looked_at_ever_less() -> None:
    cluster = Cluster(version="0.8")
    scenario(LeaderWorkerSetLookout(cluster), asyncio.sleep(20 * LOOK_SECONDS))
    assert 20 < cluster.read_schemas < 32


def test_the_schemas_are_read_once_when_all_is_well() -> None:
    cluster = Cluster(version="0.9")
    scenario(LeaderWorkerSetLookout(cluster), asyncio.sleep(1000))
    assert cluster.read_schemas == 1
