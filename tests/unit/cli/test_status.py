"""`kubectl llamacluster status`: what it shows of a status, within 80 columns."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from rich.console import Console

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.status import GroupPhase
from llamacluster.cli.status import is_ready, screen
from llamacluster.planning.reasons import Reason
from tests.build import Manifest, stored

NOW = datetime(2026, 11, 22, 12, 3, tzinfo=UTC)
SINCE = "2026-11-22T12:00:00Z"
MEMORY = {"weights": "900Mi", "context": "6Mi", "compute": "10Mi", "memoryLimit": "1100Mi"}
STATUS: Manifest = {
    "observedGeneration": 1,
    "endpoint": "http://x.ns.svc:8080/v1",
    "engine": {"image": "engine:1", "version": "0.7.0"},
    "conditions": [
        {
            "type": kind,
            "status": value,
            "reason": reason,
            "message": "in the operator's own words, which may well be longer than one line of 80",
            "lastTransitionTime": SINCE,
        }
        for kind, value, reason in (
            ("Degraded", "True", "WorkerLost"),
            ("Ready", "False", "WorkerLost"),
            ("Planned", "True", "Planned"),
        )
    ],
    "groups": [
        {
            "index": 0,
            "phase": "Loading",
            "reason": "Loading",
            "message": "the engine loads the model",
            "since": SINCE,
            "workersAttached": 1,
            "restarts": 3,
            "restartCauses": [
                {
                    "pod": "x-group-0-1",
                    "container": "worker",
                    "count": 3,
                    "reason": "OOMKilled",
                    "exitCode": 137,
                    "at": SINCE,
                }
            ],
            "recoveries": 2,
            "recoveryCauses": [{"reason": "EngineHung", "count": 2, "at": SINCE}],
            "lost": {"reason": "WorkerLost", "message": "x-group-0-1 is gone", "at": SINCE},
            "lastRecovery": {"reason": "EngineHung", "at": SINCE, "seconds": 7},
        }
    ],
    "plan": {
        "inputsHash": "abc",
        "fits": True,
        "message": "fits",
        "method": "Engine",
        "model": {
            "architecture": "llama",
            "name": "A model",
            "layers": 24,
            "bytes": 1,
            "contextTrain": 2048,
            "headerDigest": "d",
        },
        "workers": 2,
        "workerMemory": "1200Mi",
        "perWorker": [
            {**MEMORY, "firstLayer": 0, "lastLayer": 11, "layers": 12, "observed": "950Mi"},
            {**MEMORY, "firstLayer": 12, "lastLayer": 24, "layers": 13},
        ],
        "leader": MEMORY,
        "leaderMemory": "1500Mi",
        "tensorSplit": "12,13",
        "advice": ["one worker is faster"],
    },
    "upgrade": {"id": "2", "image": "engine:2", "changes": ["image: engine:1 -> engine:2"]},
}


def shown(cluster: Manifest, width: int = 80, told: dict[int, float] | None = None) -> str:
    console = Console(width=width, color_system=None, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(screen(LlamaCluster.model_validate(cluster), console, NOW, told or {}))
    return captured.get()


def test_one_screen_tells_all_within_80_columns() -> None:
    text = shown(stored(status=STATUS))
    assert all(len(line) <= 80 for line in text.splitlines())
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "Endpoint: http://x.ns.svc:8080/v1",
        "Engine: engine:1 (0.7.0)",
        "0 Loading 3m 1/2 3 2 Loading",
        "group 0: lost by WorkerLost: x-group-0-1 is gone",
        "group 0: restarted 3x: worker of x-group-0-1, last after OOMKilled, exit code",
        "group 0: recovered from EngineHung 2x (last 3m ago)",
        "worker 1 0-11 900Mi 6Mi 10Mi 1200Mi 950Mi",
        "worker 2 12-23 + output 900Mi 6Mi 10Mi 1200Mi",
        "leader input 900Mi 6Mi 10Mi 1500Mi",
        "- one worker is faster",
    ):
        assert line in lines
    assert "Upgrade available: image: engine:1 -> engine:2" in text
    assert "kubectl llamacluster upgrade x" in text


def test_a_group_that_tells_its_pace_shows_it_within_80_columns() -> None:
    text = shown(stored(status=STATUS), told={0: 14.26})
    assert all(len(line) <= 80 for line in text.splitlines())
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "GROUP PHASE FOR WORKERS RESTARTS RECOVERIES TOKENS/S REASON" in lines
    assert "0 Loading 3m 1/2 3 2 14.3 Loading" in lines


def test_nothing_of_a_group_is_cut_off_at_80_columns() -> None:
    longest = {
        "phase": max(GroupPhase, key=len),
        "reason": max(Reason, key=len),
        "since": "2026-11-22T10:10:00Z",
        "workersAttached": 13,
        "restarts": 12,
        "recoveries": 3,
    }
    groups = [{**STATUS["groups"][0], **longest}, {**STATUS["groups"][0], "index": 1}]
    plan = {**STATUS["plan"], "workers": 15}
    told = {0: 104.26}
    lines = shown(stored(status={**STATUS, "groups": groups, "plan": plan}), told=told).splitlines()
    of_groups = [" ".join(line.split()) for line in lines if line.startswith(("0 ", "1 "))]
    assert of_groups == [
        f"0 {longest['phase']} 113m 13/15 12 3 104.3 {longest['reason']}",
        # Of a group that tells no pace, none is shown.
        "1 Loading 3m 1/15 3 2 Loading",
    ]


def test_ready_comes_first_then_the_plan() -> None:
    text = shown(stored(status=STATUS))
    at = [text.index(f"\n{kind}") for kind in ("Ready ", "Planned ", "Degraded ")]
    assert at == sorted(at)


def test_a_status_of_an_older_spec_is_told_to_be_so() -> None:
    cluster = stored(generation=2, status=STATUS)
    assert "has not seen the newest spec" in shown(cluster)
    assert not is_ready(LlamaCluster.model_validate(cluster))


def test_an_object_that_nobody_has_looked_at_has_a_screen_too() -> None:
    text = shown(stored())
    assert "LlamaCluster x" in text
    assert "is it running?" in text


def test_what_others_say_cannot_move_the_cursor() -> None:
    status = {**STATUS, "groups": [{**STATUS["groups"][0], "message": "a\x1b[2Jb"}]}
    assert "\x1b" not in shown(stored(status=status))


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({}, False),
        (STATUS, False),
        ({**STATUS, "conditions": [{**STATUS["conditions"][1], "status": "True"}]}, True),
    ],
)
def test_ready_is_what_the_condition_says(status: Manifest, ready: bool) -> None:
    assert is_ready(LlamaCluster.model_validate(stored(status=status))) is ready
