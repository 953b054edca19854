"""`kubectl llamacluster doctor`: what it makes of the API server's answers."""

from __future__ import annotations

from typing import Any

import pytest

from llamacluster.cli.doctor import CHECKS, READS, Answers, Finding, Level, ask
from llamacluster.controller.kubeapi import ApiError
from tests.build import Manifest, stored
from tests.fakekubeapi import FakeKubeApi

SINCE = "2026-11-22T12:00:00Z"


def crd(*, status: Manifest, name: str = "v1", served: bool = True) -> Manifest:
    schema = {"openAPIV3Schema": {"properties": {"status": {"properties": status}}}}
    return {"spec": {"versions": [{"name": name, "served": served, "schema": schema}]}}


def node(name: str, memory: str = "8Gi", arch: str = "amd64", **spec: Any) -> Manifest:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/arch": arch}},
        "spec": {"podCIDRs": ["10.244.0.0/24"], **spec},
        "status": {
            "allocatable": {"memory": memory},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def operator(available: int = 1) -> Manifest:
    return {
        "metadata": {"name": "llamacluster-operator", "namespace": "system"},
        "spec": {"template": {"spec": {"containers": [{"image": "operator:1"}]}}},
        "status": {"availableReplicas": available},
    }


STANDARD = {
    "metadata": {
        "name": "standard",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    }
}
HEALTHY: dict[str, Manifest] = {
    "version": {"major": "1", "minor": "36", "gitVersion": "v1.36.3"},
    "crd": {"resources": []},
    "leaderworkersets": crd(status={"observedGeneration": {}}),
    "operators": {"items": [operator()]},
    "nodes": {"items": [node("a"), node("b", "16Gi")]},
    "storageclasses": {"items": [STANDARD]},
    "clusters": {"items": []},
}


def findings(denied: dict[str, str] | None = None, **answers: Manifest | None) -> list[Finding]:
    known = {key: it for key, it in {**HEALTHY, **answers}.items() if it is not None}
    told = Answers({k: it for k, it in known.items() if k not in (denied or {})}, denied or {})
    return [finding for check in CHECKS for finding in check(told)]


def bad(**answers: Manifest | None) -> list[tuple[str, str]]:
    return [
        (finding.level.value, f"{finding.about}: {finding.message}")
        for finding in findings(**answers)
        if finding.level is not Level.OK
    ]


def with_conditions(*conditions: tuple[str, str, str]) -> Manifest:
    told = [
        {"type": kind, "status": status, "reason": reason, "message": "m"}
        for kind, status, reason in conditions
    ]
    status = {
        "observedGeneration": 1,
        "conditions": [{**c, "lastTransitionTime": SINCE} for c in told],
    }
    return {"items": [stored(status=status)]}


def test_a_healthy_cluster_has_nothing_to_fix() -> None:
    assert bad() == []
    text = "\n".join(finding.message for finding in findings())
    assert "2 take pods, with 24.0 GiB of memory in all and at most 16.0 GiB in one" in text


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"version": {"major": "1", "minor": "28+", "gitVersion": "v1.28.2"}}, "older than 1.29"),
        ({"leaderworkersets": None}, "LeaderWorkerSet: is not installed"),
        ({"leaderworkersets": crd(status={})}, "LeaderWorkerSet: is older than 0.9"),
        ({"leaderworkersets": crd(status={}, served=False)}, "does not serve v1"),
        ({"crd": None}, "does not know LlamaCluster"),
        ({"operators": {"items": [operator(0)]}}, "has no pod that is available"),
        ({"nodes": {"items": [node("a", unschedulable=True)]}}, "nodes: none is Ready"),
        ({"nodes": {"items": [node("a", podCIDRs=["fd00::/64"])]}}, "no IPv4 address for pods: a"),
        ({"clusters": {"items": [stored(workers={"count": 99})]}}, "does not follow the API"),
        ({"clusters": {"items": [stored()]}}, "has not seen its newest spec"),
    ],
)
def test_what_keeps_it_from_working_is_an_error(
    answers: dict[str, Manifest | None], words: str
) -> None:
    [(level, message)] = bad(**answers)
    assert level == "error"
    assert words in message


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"operators": {"items": []}}, "no Deployment of it"),
        ({"nodes": {"items": [node("a"), node("b", arch="arm64")]}}, "different architectures"),
        ({"storageclasses": {"items": []}}, "no default StorageClass"),
        (
            {
                "clusters": with_conditions(
                    ("Ready", "False", "Loading"), ("Progressing", "True", "Loading")
                )
            },
            "Ready is False, Loading",
        ),
        (
            {
                "clusters": with_conditions(
                    ("Ready", "True", "Ready"), ("Isolated", "False", "PoliciesDisabled")
                )
            },
            "PoliciesDisabled",
        ),
    ],
)
def test_what_may_be_meant_so_is_a_warning(answers: dict[str, Manifest | None], words: str) -> None:
    [(level, message)] = bad(**answers)
    assert level == "warning"
    assert words in message


def test_a_condition_that_is_bad_comes_with_the_page_that_explains_it() -> None:
    found = findings(clusters=with_conditions(("Ready", "False", "DoesNotFit")))
    [error] = [finding for finding in found if finding.level is Level.ERROR]
    assert error.about == "LlamaCluster ns/x"
    assert error.fix == "docs/troubleshooting.md#doesnotfit"


# Everybody may read the others.
@pytest.mark.parametrize("read", [*sorted(READS.keys() - {"version", "crd"}), "clusters"])
def test_what_may_not_be_read_is_unknown_and_the_rest_is_told(read: str) -> None:
    found = findings({read: "you may not"})
    assert [finding.level for finding in found if finding.level is not Level.OK] == [Level.UNKNOWN]


async def test_refusals_and_what_is_missing_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, Manifest | ApiError] = {
        "/a": {"kind": "A"},
        "/b": ApiError(403, "you may not"),
        "/c": ApiError(404, "not found"),
    }

    async def get_raw(self: FakeKubeApi, path: str, seconds: float) -> Manifest:
        answer = answers[path]
        if isinstance(answer, ApiError):
            raise answer
        return answer

    monkeypatch.setattr(FakeKubeApi, "get_raw", get_raw)
    told = await ask(FakeKubeApi(), {"a": "/a", "b": "/b", "c": "/c"})
    assert told == Answers({"a": {"kind": "A"}}, {"b": "you may not"})
    answers["/c"] = ApiError(500, "broken")
    with pytest.raises(ApiError, match="broken"):
        await ask(FakeKubeApi(), {"c": "/c"})
