"""Whether an object has to be applied: only for what we want and is not so."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacluster.controller.apply import (
    NotOurs,
    PredecessorRemains,
    check_ownership,
    difference,
    with_digest,
)
from llamacluster.resources.leaderpolicy import leader_egress_policy, leader_policy
from llamacluster.resources.leaderworkerset import leader_worker_set
from llamacluster.resources.metadata import DESIRED_HASH_ANNOTATION
from llamacluster.resources.service import service
from llamacluster.resources.workerspolicy import group_policy, workers_policy
from tests.build import IMAGE, Manifest, a_plan, llama_cluster

LIMITED = {"count": 2, "resources": {"limits": {"cpu": "1000m", "memory": "1.5Gi"}}}
WANTED = with_digest(leader_worker_set(llama_cluster(workers=LIMITED), IMAGE, a_plan()))


def live(**changes: Any) -> Manifest:
    """WANTED as it is stored."""
    stored = copy.deepcopy(WANTED)
    stored["metadata"] |= {"uid": "u", "generation": 3, "resourceVersion": "9"}
    stored["status"] = {"replicas": 1}
    return stored


def worker(manifest: Manifest) -> Manifest:
    template = manifest["spec"]["leaderWorkerTemplate"]["workerTemplate"]
    pod: Manifest = template["spec"]
    return pod


def test_what_does_not_exist_is_applied() -> None:
    assert difference(WANTED, None) == "it does not exist"


def test_what_is_as_wanted_is_not_applied() -> None:
    assert difference(WANTED, live()) is None


def test_additions_of_others_are_no_difference() -> None:
    stored = live()
    stored["metadata"]["labels"]["theirs"] = "1"
    stored["metadata"]["ownerReferences"].insert(0, {"uid": "another", "kind": "App"})
    stored["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"]["partition"] = 2
    pod = worker(stored)
    pod["containers"].insert(0, {"name": "sidecar", "image": "i"})
    pod["containers"][1]["ports"].append({"containerPort": 9, "protocol": "TCP"})
    pod["volumes"].insert(0, {"name": "theirs"})
    assert difference(WANTED, stored) is None


def test_equal_quantities_are_no_difference() -> None:
    stored = live()
    worker(stored)["containers"][0]["resources"]["limits"] = {"cpu": "1", "memory": "1536Mi"}
    assert difference(WANTED, stored) is None


@pytest.mark.parametrize("other", ["2", 2, "1001m", "-1", "much", ""])
def test_another_quantity_is_a_difference(other: str | int) -> None:
    stored = live()
    worker(stored)["containers"][0]["resources"]["limits"]["cpu"] = other
    place = ".spec.leaderWorkerTemplate.workerTemplate.spec.containers[0].resources.limits.cpu"
    assert difference(WANTED, stored) == f"{place} is {other!r} instead of '1000m'"


def test_an_edit_is_named_with_its_place_and_both_values() -> None:
    stored = live()
    stored["spec"]["replicas"] = 5
    assert difference(WANTED, stored) == ".spec.replicas is 5 instead of 1"


def test_a_removed_field_is_named() -> None:
    stored = live()
    del worker(stored)["securityContext"]["fsGroup"]
    place = ".spec.leaderWorkerTemplate.workerTemplate.spec.securityContext.fsGroup"
    assert difference(WANTED, stored) == f"{place} is missing"


def test_a_removed_entry_of_a_merged_list_is_named() -> None:
    stored = live()
    worker(stored)["volumes"] = [{"name": "theirs"}]
    place = ".spec.leaderWorkerTemplate.workerTemplate.spec.volumes"
    assert difference(WANTED, stored) == f"{place} has no entry name tmp"


def test_a_list_of_words_is_compared_as_a_whole() -> None:
    stored = live()
    worker(stored)["containers"][0]["args"].append("--more")
    place = ".spec.leaderWorkerTemplate.workerTemplate.spec.containers[0].args"
    assert difference(WANTED, stored) == f"{place} has 5 entries instead of 4"


def test_empty_parts_that_the_api_server_drops_are_no_difference() -> None:
    empty = {"selector": {}, "list": [], "set": {"emptyDir": {}}, "value": ""}
    wanted = {"metadata": {}, "spec": empty}
    assert difference(wanted, {"metadata": {}, "spec": {"set": {}}}) is None


def test_a_changed_wish_is_a_difference_even_where_it_only_takes_away() -> None:
    before = with_digest(service(llama_cluster(server={"service": {"annotations": {"a": "1"}}})))
    after = with_digest(service(llama_cluster()))
    why = difference(after, before)
    assert why is not None
    assert DESIRED_HASH_ANNOTATION in why


@given(st.permutations(list(WANTED["spec"])))
def test_the_digest_does_not_depend_on_the_order_of_fields(order: list[str]) -> None:
    wanted = leader_worker_set(llama_cluster(workers=LIMITED), IMAGE, a_plan())
    shuffled = {**wanted, "spec": {key: wanted["spec"][key] for key in order}}
    assert with_digest(shuffled)["metadata"] == WANTED["metadata"]


def test_the_digest_leaves_the_manifest_itself_alone() -> None:
    wanted = service(llama_cluster())
    before = copy.deepcopy(wanted)
    with_digest(wanted)
    assert wanted == before


def owned_by(*owners: Manifest) -> Manifest:
    return {"kind": "Service", "metadata": {"name": "x", "ownerReferences": list(owners)}}


def owner(
    uid: str, kind: str = "LlamaCluster", name: str = "x", *, controller: bool = True
) -> Manifest:
    return {"uid": uid, "kind": kind, "name": name, "controller": controller}


def test_what_we_control_is_ours_whoever_else_owns_it() -> None:
    cluster = llama_cluster()
    mine = owner(cluster.metadata.uid)
    check_ownership(cluster, owned_by(owner("u", "ConfigMap", controller=False), mine))


@pytest.mark.parametrize(
    ("live", "error", "message"),
    [
        (
            {"kind": "Service", "metadata": {"name": "x"}},
            NotOurs,
            "Service x exists already and was not made for this LlamaCluster: delete it, or give "
            "the LlamaCluster another name",
        ),
        (
            owned_by(owner("another", "Deployment", "web")),
            NotOurs,
            "Service x exists already and belongs to Deployment web",
        ),
        (
            owned_by(owner("another", name="y")),
            NotOurs,
            "Service x exists already and belongs to LlamaCluster y",
        ),
        (
            owned_by(owner("another", controller=False)),
            NotOurs,
            "was not made for this LlamaCluster",
        ),
        (
            owned_by(owner("another")),
            PredecessorRemains,
            "Service x of the deleted LlamaCluster is still being removed",
        ),
    ],
)
def test_what_we_do_not_control_is_not_ours(
    live: Manifest, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_ownership(llama_cluster(), live)


POLICIES = [
    with_digest(policy)
    for policy in (
        leader_policy(llama_cluster(), None),
        leader_egress_policy(llama_cluster()),
        workers_policy(llama_cluster()),
        group_policy(llama_cluster(), 0),
    )
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: str(policy["metadata"]["name"]))
def test_a_policy_that_is_as_wanted_is_not_applied(policy: Manifest) -> None:
    stored = copy.deepcopy(policy)
    # The API server drops empty lists; and what a policy does not speak of it need not leave out.
    stored["spec"] = {key: value for key, value in stored["spec"].items() if value != []}
    assert difference(policy, stored) is None
    other = "egress" if "Ingress" in stored["spec"]["policyTypes"] else "ingress"
    stored["spec"].setdefault(other, [])
    assert difference(policy, stored) is None


def opened(way: str) -> Manifest:
    """The policy of a group, after somebody opened it a little."""
    stored = copy.deepcopy(POLICIES[-1])
    [rule] = stored["spec"]["ingress"]
    match way:
        case "for fewer pods":
            stored["spec"]["podSelector"]["matchLabels"]["nobody"] = "is"
        case "at a port":
            rule["ports"].append({"protocol": "TCP", "port": 22})
        case "to a peer":
            rule["from"].append({"podSelector": {}})
        case "to other namespaces":
            rule["from"][0]["namespaceSelector"] = {}
        case "by a rule":
            stored["spec"]["ingress"].append({})
    return stored


@pytest.mark.parametrize(
    "way", ["for fewer pods", "at a port", "to a peer", "to other namespaces", "by a rule"]
)
def test_a_policy_that_says_more_is_applied_again(way: str) -> None:
    assert difference(POLICIES[-1], opened(way)) is not None
    closed = copy.deepcopy(POLICIES[2])
    closed["spec"]["ingress"] = [{}]
    assert difference(POLICIES[2], closed) is not None
