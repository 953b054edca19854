"""`kubectl llamacluster doctor`: what it makes of the API server's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacluster.cli.doctor import CHECKS, READS, Answers, Finding, Level, ask
from llamacluster.controller.kubeapi import ApiError
from tests.build import Manifest, stored
from tests.fakekubeapi import FakeKubeApi

SINCE = "2026-11-22T12:00:00Z"


def crd(*, status: Manifest, name: str = "v1", served: bool = True) -> Manifest:
    schema = {"openAPIV3Schema": {"properties": {"status": {"properties": status}}}}
    return {"spec": {"versions": [{"name": name, "served": served, "schema": schema}]}}


def node(
    name: str, memory: str = "8Gi", arch: str = "amd64", cpu: Sequence[str] = ("AVX2",), **spec: Any
) -> Manifest:
    labels = {f"feature.node.kubernetes.io/cpu-cpuid.{flag}": "true" for flag in cpu}
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/arch": arch, **labels}},
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


def tainted(name: str, key: str, **fields: Any) -> Manifest:
    return node(name, taints=[{"key": key, "effect": "NoSchedule"}], **fields)


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


READY = ("Ready", "True", "Ready")
ISOLATED = ("Isolated", "True", "PoliciesEnforced")
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
    "clusters": with_conditions(READY, ISOLATED),
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


def test_a_healthy_cluster_has_nothing_to_fix() -> None:
    assert bad() == []
    text = "\n".join(finding.message for finding in findings())
    assert "2 take pods, with 24.0 GiB of memory in all and at most 16.0 GiB in one" in text


NOT_TRIED = bad(clusters={"items": []})


def test_a_network_is_what_operators_have_found_it_to_be() -> None:
    [(level, message)] = NOT_TRIED
    assert level == "unknown"
    assert "network: nobody has tried yet" in message
    [network] = [finding for finding in findings() if finding.about == "network"]
    assert network.message == "enforces NetworkPolicies: tried at ns/x"
    refuted = with_conditions(READY, ("Isolated", "False", "PoliciesNotEnforced"))
    assert ("error", "network: does not enforce NetworkPolicies") in [
        (level, message[:41]) for level, message in bad(clusters=refuted)
    ]


def test_nodes_that_are_tainted_by_choice_are_counted_and_no_error() -> None:
    mixed = [node("a"), tainted("b", "dedicated"), tainted("c", "control-plane")]
    text = [f.message for f in findings(nodes={"items": mixed}) if f.about == "nodes"]
    assert text == [
        "1 take pods, with 8.0 GiB of memory in all and at most 8.0 GiB in one",
        "2 more are tainted (control-plane, dedicated), with 16.0 GiB of memory in all and at most"
        " 8.0 GiB in one: tolerations in workers.tolerations and leader.tolerations let groups on"
        " them",
    ]
    assert bad(nodes={"items": mixed}) == []
    [(level, message)] = bad(nodes={"items": mixed[1:2]})
    assert level == "warning"
    assert "all (1) are tainted (dedicated)" in message


def test_nodes_that_are_not_well_are_not_counted() -> None:
    ill = [tainted("b", "node.kubernetes.io/disk-pressure"), node("c", unschedulable=True)]
    text = "\n".join(f.message for f in findings(nodes={"items": [node("a"), *ill]}))
    assert "1 take pods" in text
    assert "tainted" not in text


def test_cpus_are_told_by_what_llama_cpp_gains_from_them() -> None:
    nodes = [
        node("a", cpu=("AVX2",)),
        node("b", cpu=("AVX2", "AVX512F")),
        node("c", cpu=("AVX2", "AVX512F", "AMXTILE", "AMXINT8")),
        node("d", cpu=("AVX2", "AVX512F")),
    ]
    arm = [node("e", arch="arm64", cpu=()), node("f", arch="arm64", cpu=("SVE",))]
    [told] = [f.message for f in findings(nodes={"items": nodes}) if f.about == "CPUs"]
    assert told == (
        "nodes by the best that llama.cpp uses: AMX (the fastest prompts): 1; AVX-512 (faster"
        " prompts): 2; AVX2 (the usual): 1"
    )
    [told] = [f.message for f in findings(nodes={"items": arm}) if f.about == "CPUs"]
    assert told.endswith("SVE (faster prompts): 1; NEON (the usual): 1")


def test_a_node_without_avx2_is_a_warning_and_one_that_tells_nothing_is_unknown() -> None:
    nodes = [node("a", cpu=("SSE42",)), node("b", cpu=())]
    assert bad(nodes={"items": nodes}) == [
        ("warning", "CPUs: no AVX2 in a: llama.cpp is much slower there"),
        (
            "unknown",
            "CPUs: no node-feature-discovery tells those of 1 of 2 nodes: llama.cpp is faster with"
            " AVX2, AVX-512 and AMX",
        ),
    ]


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
    [(level, message)] = [found for found in bad(**answers) if found not in NOT_TRIED]
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
                    ("Ready", "False", "Loading"), ("Progressing", "True", "Loading"), ISOLATED
                )
            },
            "Ready is False, Loading",
        ),
        (
            {
                "clusters": with_conditions(READY, ("Isolated", "False", "PoliciesDisabled")),
            },
            "PoliciesDisabled",
        ),
    ],
)
def test_what_may_be_meant_so_is_a_warning(answers: dict[str, Manifest | None], words: str) -> None:
    [(level, message)] = [found for found in bad(**answers) if found not in NOT_TRIED]
    assert level == "warning"
    assert words in message


def test_a_condition_that_is_bad_comes_with_the_page_that_explains_it() -> None:
    found = findings(clusters=with_conditions(("Ready", "False", "DoesNotFit")))
    [error] = [finding for finding in found if finding.level is Level.ERROR]
    assert error.about == "LlamaCluster ns/x"
    assert error.fix == "docs/troubleshooting.md#doesnotfit"


@pytest.mark.parametrize("read", [*sorted(READS), "clusters"])
def test_what_may_not_be_read_is_unknown_and_the_rest_is_told(read: str) -> None:
    found = findings({read: "you may not"})
    [unknown] = [finding for finding in found if finding.level is not Level.OK]
    assert (unknown.level, unknown.message) == (Level.UNKNOWN, "you may not")


NODES = st.builds(
    lambda spec, status, labels: {"metadata": {"name": "n", **labels}, **spec, **status},
    st.sampled_from([{}, {"spec": {}}, *({"spec": tainted("n", k)["spec"]} for k in ("a", "b"))]),
    st.sampled_from([{}, {"status": {}}, {"status": node("n")["status"]}])
    | st.just({"status": {"conditions": node("n")["status"]["conditions"]}}),
    st.sampled_from([{}, node("n")["metadata"], node("n", arch="riscv64")["metadata"]]),
)
LISTS = {
    "nodes": st.lists(NODES, max_size=3),
    "operators": st.lists(st.sampled_from([operator(), operator(0)]), max_size=2),
    "storageclasses": st.lists(st.sampled_from([STANDARD, {"metadata": {}}]), max_size=2),
    "clusters": st.lists(
        st.sampled_from([stored(), {**stored(), "spec": {}}, *HEALTHY["clusters"]["items"]]),
        max_size=2,
    ),
}
FOUND = {
    "version": st.sampled_from([HEALTHY["version"], {"gitVersion": "v1"}]),
    "crd": st.just({}),
    "leaderworkersets": st.sampled_from([crd(status={}), crd(status={}, name="v1beta1")]),
    **{name: items.map(lambda listed: {"items": listed}) for name, items in LISTS.items()},
}


@given(st.fixed_dictionaries({}, optional={k: st.none() | it for k, it in FOUND.items()}))
def test_whatever_is_answered_there_is_something_to_say_of_it(
    answers: dict[str, Manifest | None],
) -> None:
    found = {name: it for name, it in answers.items() if it is not None}
    denied = {name: "you may not" for name, it in answers.items() if it is None}
    told = [finding for check in CHECKS for finding in check(Answers(found, denied))]
    assert all(finding.message for finding in told)


Answered = dict[str, Manifest | ApiError]


def answering(answers: Answered) -> FakeKubeApi:
    class Answering(FakeKubeApi):
        async def get_raw(self, path: str, seconds: float) -> Manifest:  # noqa: ARG002
            answer = answers[path]
            if isinstance(answer, ApiError):
                raise answer
            return answer

    return Answering()


REFUSED = ApiError(403, "you may not")
ABSENT = ApiError(404, "not found")


async def test_refusals_and_what_is_missing_are_told_apart() -> None:
    paths = {"version": "/v", "a": "/a", "b": "/b", "c": "/c"}
    version = HEALTHY["version"]
    answers: Answered = {"/v": version, "/a": {"kind": "A"}, "/b": REFUSED, "/c": ABSENT}
    told = await ask(answering(answers), paths)
    assert told == Answers({"version": version, "a": {"kind": "A"}}, {"b": "you may not"})
    told = await ask(answering({**answers, "/v": REFUSED}), paths)
    assert told.denied.keys() == {"version", "b"}
    for code in (401, 500):
        with pytest.raises(ApiError, match=str(code)):
            await ask(answering({**answers, "/c": ApiError(code, "broken")}), paths)


async def test_where_nothing_comes_of_the_cluster_the_way_to_it_is_wrong() -> None:
    paths = {"version": "/v", "a": "/a"}
    with pytest.raises(ApiError, match="403: you may not"):
        await ask(answering({"/v": REFUSED, "/a": REFUSED}), paths)
    pages: list[Manifest | ApiError] = [ABSENT, {"kind": "Page"}]
    for version in pages:
        with pytest.raises(ApiError, match="it is no API server"):
            await ask(answering({"/v": version, "/a": ABSENT}), paths)
