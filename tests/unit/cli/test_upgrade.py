"""`kubectl llamacluster upgrade`, on an API server in memory."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llamacluster.cli import connection
from llamacluster.cli.plugin import plugin
from llamacluster.cli.terminal import BadInput, Failed
from llamacluster.cli.upgrade import Request, perform
from llamacluster.controller.kubeapi import LEADERWORKERSETS, LLAMACLUSTERS, ApiError
from llamacluster.resources.metadata import UPGRADE_ANNOTATION
from tests.build import Manifest, stored
from tests.fakekubeapi import FakeKubeApi
from tests.virtualtime import in_virtual_time

OFFERED = {"id": "2", "image": "engine:2", "changes": ["image: engine:1 -> engine:2"]}


def condition(kind: str, status: str, reason: str) -> Manifest:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "the operator's words",
        "lastTransitionTime": "2026-11-22T12:00:00Z",
    }


def status(*conditions: Manifest, upgrade: Manifest | None = None) -> Manifest:
    found: Manifest = {"observedGeneration": 1, "conditions": list(conditions)}
    return found if upgrade is None else {**found, "upgrade": upgrade}


@pytest.fixture
def api() -> FakeKubeApi:
    made = FakeKubeApi()
    made.put(LLAMACLUSTERS, stored(status=status(upgrade=OFFERED)))
    made.put(LEADERWORKERSETS, {"metadata": {"name": "x-group", "namespace": "ns"}})
    return made


def asked_for(api: FakeKubeApi) -> str | None:
    metadata = api.objects["leaderworkersets", "ns", "x-group"]["metadata"]
    found: str | None = metadata.get("annotations", {}).get(UPGRADE_ANNOTATION)
    return found


def request(**fields: Any) -> Request:
    return Request(**{"name": "x", "namespace": "ns", **fields})


async def test_it_shows_what_changes_and_asks_for_it(
    api: FakeKubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    await perform(api, request())
    assert asked_for(api) == "2"
    assert "image: engine:1 -> engine:2" in capsys.readouterr().out
    await perform(api, request(cancel=True))
    assert asked_for(api) is None


async def test_a_dry_run_only_shows(api: FakeKubeApi, capsys: pytest.CaptureFixture[str]) -> None:
    await perform(api, request(dry_run=True))
    assert asked_for(api) is None
    assert "image: engine:1 -> engine:2" in capsys.readouterr().out


@pytest.mark.parametrize("other", ["--dry-run", "--wait"])
def test_a_request_is_taken_back_without_a_try_and_without_a_wait(
    api: FakeKubeApi, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    asyncio.run(perform(api, request()))
    monkeypatch.setattr(connection, "run", lambda _, act: asyncio.run(act(api, "ns")))
    result = CliRunner().invoke(plugin, ["upgrade", "x", "--cancel", other])
    assert result.exit_code == 2
    assert "it goes without --dry-run and --wait" in result.stderr
    assert asked_for(api) == "2"


async def test_there_may_be_nothing_to_upgrade(
    api: FakeKubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(LLAMACLUSTERS, stored(status=status()))
    await perform(api, request())
    assert asked_for(api) is None
    assert "up to date" in capsys.readouterr().out


def test_programs_are_told_what_it_came_to(
    api: FakeKubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "run", lambda _, act: asyncio.run(act(api, "ns")))

    def answer(*arguments: str) -> Any:
        result = CliRunner().invoke(plugin, ["upgrade", "x", "-o", "json", *arguments])
        assert result.exit_code == 0
        return json.loads(result.stdout)

    upgrade = {"id": "2", "image": "engine:2", "changes": ["image: engine:1 -> engine:2"]}
    of_x = {"name": "x", "namespace": "ns", "upgrade": upgrade}
    assert answer("--dry-run") == of_x | {"outcome": "Available"}
    assert answer() == of_x | {"outcome": "Requested"}
    assert answer("--cancel") == of_x | {"outcome": "Cancelled"}
    api.put(LLAMACLUSTERS, stored(status=status()))
    assert answer() == of_x | {"outcome": "UpToDate", "upgrade": None}


async def test_a_name_that_nobody_has_is_the_users_mistake(api: FakeKubeApi) -> None:
    with pytest.raises(BadInput, match="no LlamaCluster y in namespace ns"):
        await perform(api, request(name="y"))


async def test_an_operator_that_has_not_seen_the_spec_is_waited_for(api: FakeKubeApi) -> None:
    api.put(LLAMACLUSTERS, stored(generation=2, status=status(upgrade=OFFERED)))
    with pytest.raises(Failed, match="not seen the newest spec"):
        await perform(api, request())


WAITS = status(condition("Ready", "False", "RollingOut"))
SERVES_ON = status(condition("Ready", "True", "RollingOut"))
READY = status(condition("Ready", "True", "Ready"))
PLANS = status(condition("Ready", "True", "Ready"), upgrade=OFFERED | {"requested": True})
STUCK = status(condition("Progressing", "False", "RolloutStuck"))
TOO_LARGE = status(condition("Planned", "False", "DoesNotFit"), upgrade=OFFERED)


def waited(api: FakeKubeApi, *statuses: Manifest, seconds: float = 60) -> list[str]:
    """What is told while the LlamaCluster gets these statuses, one every five seconds."""
    told: list[str] = []

    async def main() -> None:
        asked = asyncio.create_task(
            perform(api, request(wait=True, timeout_seconds=seconds), tell=told.append)
        )
        for one in statuses:
            await asyncio.sleep(5)
            api.put(LLAMACLUSTERS, stored(status=one))
        await asked

    in_virtual_time(main())
    return told


def test_it_waits_until_all_groups_are_ready_with_the_upgrade(
    api: FakeKubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    told = waited(api, PLANS, WAITS, READY)
    assert told[-1] == "RollingOut: the operator's words"
    assert "x is upgraded" in capsys.readouterr().out


@pytest.mark.parametrize("error", [ApiError(503, "starting"), TimeoutError()])
def test_an_api_server_that_restarts_meanwhile_is_waited_for(
    api: FakeKubeApi, error: ApiError | TimeoutError
) -> None:
    told: list[str] = []

    async def main() -> None:
        asked = asyncio.create_task(perform(api, request(wait=True), tell=told.append))
        await asyncio.sleep(5)
        api.refusals["llamaclusters/get"] = error
        await asyncio.sleep(60)
        api.refusals.clear()
        api.put(LLAMACLUSTERS, stored(status=READY))
        await asked

    in_virtual_time(main())
    assert told[-1] in (
        "the API server does not answer: 503: starting",
        "the API server does not answer: in time",
    )


def test_what_the_api_server_forbids_ends_the_wait(api: FakeKubeApi) -> None:
    async def main() -> None:
        asked = asyncio.create_task(perform(api, request(wait=True)))
        await asyncio.sleep(5)
        api.refusals["llamaclusters/get"] = ApiError(403, "forbidden")
        await asked

    with pytest.raises(ApiError, match="forbidden"):
        in_virtual_time(main())


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (STUCK, "RolloutStuck: the operator's words"),
        (TOO_LARGE, "DoesNotFit: the operator's words"),
        (WAITS, "not upgraded within 60 s: RollingOut"),
        (SERVES_ON, "not upgraded within 60 s: RollingOut"),
    ],
)
def test_it_does_not_wait_for_what_does_not_come(
    api: FakeKubeApi, after: Manifest, message: str
) -> None:
    with pytest.raises(Failed, match=message):
        waited(api, PLANS, after)


def test_no_time_to_wait_is_refused() -> None:
    result = CliRunner().invoke(plugin, ["upgrade", "x", "--wait", "--timeout=0"])
    assert result.exit_code == 2
    assert "Invalid value for '--timeout': '0' is less than 1s" in result.output


def test_help_says_the_exit_codes() -> None:
    result = CliRunner().invoke(plugin, ["upgrade", "--help"])
    assert result.exit_code == 0
    assert "0  asked for, or nothing to upgrade" in result.output
    assert CliRunner().invoke(plugin, ["upgrade"]).exit_code == 2


def test_without_a_cluster_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    (tmp_path / "config").write_text("apiVersion: v1\nkind: Config\n")
    result = CliRunner().invoke(plugin, ["upgrade", "x", "--kubeconfig", str(tmp_path / "config")])
    assert result.exit_code == 2
