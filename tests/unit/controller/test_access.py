"""What the gates say of the API's Secrets, in the status, the conditions and the events."""

from __future__ import annotations

from typing import Any

import pytest

from llamacluster.agent.contract.messages import GateProblem, GateStatus, Phase
from llamacluster.api.status import AccessStatus, GroupPhase, LlamaClusterStatus
from llamacluster.controller.access import access, attention, told
from llamacluster.controller.agents import checked
from llamacluster.controller.conditions import Rollout, Verdict, degraded, with_history
from llamacluster.controller.events import transition_events
from llamacluster.controller.groups import group_status
from tests.build import llama_cluster
from tests.unit.controller import build
from tests.unit.controller.build import NOW, pod

SERVER = {"apiKeysSecret": {"name": "k"}, "tlsSecret": {"name": "t"}}
EXPIRED: GateProblem = {"reason": "TlsExpired", "message": "expired at noon"}
MISSING: GateProblem = {"reason": "ApiKeysMissing", "message": "there is no Secret k"}
COMPLETE = Rollout(wanted=1, updated=1, observed=True)
PLANNED = Verdict("Planned", True, "Planned", "fits")


def gate(**fields: Any) -> GateStatus:
    empty: GateStatus = {
        "closed": None,
        "attention": None,
        "keys": None,
        "certificateExpires": None,
    }
    return {**empty, **fields}  # type: ignore[typeddict-item]


def test_the_status_says_how_many_keys_there_are_and_until_when_the_certificate_is_good() -> None:
    cluster = llama_cluster(server=SERVER)
    says = [gate(), gate(keys=2, certificateExpires="2026-12-22T22:22:17Z")]
    status = access(cluster, says)
    assert status == AccessStatus(api_keys=2, certificate_expires="2026-12-22T22:22:17Z")
    later = cluster.model_copy(update={"status": LlamaClusterStatus(access=status)})
    assert access(later, []) == status  # no news is no change


def test_without_keys_the_status_says_how_to_add_them() -> None:
    status = access(llama_cluster("gemma"), [gate()])
    assert status.api_keys is None
    assert "kubectl create secret generic gemma-keys" in (status.advice or "")


def test_a_group_with_a_closed_gate_is_failing_even_where_its_leader_is_ready() -> None:
    status = build.leader_status(Phase.Serving, "Ready", "serving", gate=gate(closed=MISSING))
    for leader in (pod(0), pod(0, ready=True)):
        found = group_status(build.group(leader, pod(1), pod(2), status=status), None, NOW)
        assert (found.phase, found.failing) == (GroupPhase.WAITING, True)
        assert found.reason == "ApiKeysMissing"
        assert found.message == "there is no Secret k"
    going = build.group(pod(0, deleting=True), pod(1), pod(2), status=status)
    assert group_status(going, None, NOW).reason == "Stopping"


def test_a_certificate_that_needs_attention_degrades_a_ready_cluster_and_is_told_once() -> None:
    groups = [build.group(pod(0), status=build.leader_status(gate=gate(attention=EXPIRED)))]
    about = attention(told(groups), LlamaClusterStatus())
    assert about == ("TlsExpired", "expired at noon")
    verdict = degraded([build.group_status()], COMPLETE, PLANNED, None, about)
    assert (verdict.status, verdict.reason) == (True, "TlsExpired")

    before = LlamaClusterStatus(conditions=with_history([], [], 1, NOW))
    after = LlamaClusterStatus(conditions=with_history([verdict], [], 1, NOW))
    metadata = llama_cluster().metadata
    [event] = transition_events(metadata, before, after, NOW)
    assert (event["type"], event["reason"]) == ("Warning", "TlsExpired")
    assert transition_events(metadata, after, after, NOW) == []
    assert attention([], after) == about  # no news is no change
    assert attention([gate()], after) is None


@pytest.mark.parametrize(
    "said",
    [
        *(None, 7, "x", {}, {"keys": "2", "certificateExpires": None}),
        {"keys": None, "certificateExpires": 1},
    ],
)
def test_a_gate_that_says_something_else_says_nothing(said: object) -> None:
    found = checked({**build.leader_status(), "gate": said})
    assert found is not None
    assert found["gate"] is None


def test_what_a_gate_says_is_cut_to_what_a_status_takes() -> None:
    said = {
        "keys": -1,
        "certificateExpires": "soon",
        "closed": {"reason": "R" * 999, "message": "m" * 9999},
        "attention": {"reason": "", "message": "m"},
    }
    found = checked({**build.leader_status(), "gate": said})
    assert found is not None
    assert found["gate"] == gate(closed={"reason": "R" * 128, "message": "m" * 4096})


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("2026-12-22T22:22:17Z", "2026-12-22T22:22:17Z"),
        ("2026-W52-2T23:22:17+01:00", "2026-12-22T22:22:17Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),  # of what never ends
        ("9999-12-31T23:59:59-01:00", None),
    ],
)
def test_the_end_of_a_certificate_is_written_in_our_own_way(told: str, kept: str | None) -> None:
    found = checked({**build.leader_status(), "gate": gate(certificateExpires=told)})
    assert found is not None
    assert found["gate"] == gate(certificateExpires=kept)
