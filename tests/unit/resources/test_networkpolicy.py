"""Who may reach which pods, judged as a network does: by the labels of pods and the rules."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from llamacluster.agent.contract.places import (
    AGENT_PORT,
    DEFAULT_SERVER_PORT,
    ENGINE_PORT,
    RPC_PORT,
)
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.resources.leaderpod import leader_pod
from llamacluster.resources.leaderpolicy import leader_egress_policy, leader_policy
from llamacluster.resources.leaderworkerset import spec_hash
from llamacluster.resources.metadata import LWS_GROUP_INDEX_LABEL
from llamacluster.resources.networkpolicy import OperatorPods
from llamacluster.resources.planjob import plan_job
from llamacluster.resources.planpolicy import plan_policy
from llamacluster.resources.workerpod import worker_pod
from llamacluster.resources.workerspolicy import group_policy, workers_policy
from tests.build import IMAGE, Manifest, a_plan, llama_cluster

OPERATOR = OperatorPods("system", {"app": "operator"})
API = DEFAULT_SERVER_PORT
OWN_PORTS = (AGENT_PORT, RPC_PORT, ENGINE_PORT, API)
Pod = tuple[str, dict[str, str]]
"""Namespace and labels."""


def policies(cluster: LlamaCluster, groups: int = 2) -> list[Manifest]:
    return [
        plan_policy(cluster),
        workers_policy(cluster),
        leader_policy(cluster, OPERATOR),
        leader_egress_policy(cluster),
        *(group_policy(cluster, group) for group in range(groups)),
    ]


def a_pod(role: str, group: int = 0, name: str = "x") -> Pod:
    """A pod as LeaderWorkerSet makes it of our template."""
    cluster, plan = llama_cluster(name), a_plan()
    template = {
        "leader": leader_pod(cluster, IMAGE, plan),
        "worker": worker_pod(cluster, IMAGE, plan),
        "plan": plan_job(cluster, IMAGE)["spec"]["template"],
    }[role]
    labels = {**template["metadata"]["labels"], LWS_GROUP_INDEX_LABEL: str(group)}
    return "ns", labels


STRANGER: Pod = ("ns", {"app": "theirs"})
ABROAD: Pod = ("elsewhere", {"app": "theirs"})
THE_OPERATOR: Pod = ("system", {"app": "operator", "pod-template-hash": "1"})


def lets_in(rules: list[Manifest], source: Pod | str, to: Pod, port: int) -> bool:
    """Whether ingress rules of policies that select `to` let a pod or an address in."""
    return any(
        {"protocol": "TCP", "port": port} in rule["ports"]
        and any(is_peer(peer, source, to[0]) for peer in rule["from"])
        for policy in rules
        if selects(policy, to)
        for rule in policy["spec"].get("ingress", [])
    )


def lets_out(rules: list[Manifest], source: Pod, to: Pod | str, port: int) -> bool:
    """The same of egress."""
    return any(
        any(allowed.get("port") in (None, port) for allowed in rule["ports"])
        and ("to" not in rule or any(is_peer(peer, to, source[0]) for peer in rule["to"]))
        for policy in rules
        if selects(policy, source)
        for rule in policy["spec"].get("egress", [])
    )


def selects(policy: Manifest, pod: Pod) -> bool:
    wanted = policy["spec"]["podSelector"]["matchLabels"]
    same = policy["metadata"]["namespace"] == pod[0]
    return bool(same and wanted.items() <= pod[1].items())


def is_peer(peer: Manifest, who: Pod | str, home: str) -> bool:
    if "ipBlock" in peer:
        if not isinstance(who, str):
            return False  # as the strictest networks see it
        block = peer["ipBlock"]
        inside = ip_address(who) in ip_network(block["cidr"])
        return inside and not any(ip_address(who) in ip_network(n) for n in block["except"])
    if isinstance(who, str):
        return False
    namespace, labels = who
    if "namespaceSelector" in peer:
        names = peer["namespaceSelector"].get("matchLabels", {})
        right_place = names.items() <= {"kubernetes.io/metadata.name": namespace}.items()
    else:
        right_place = namespace == home
    wanted: dict[str, str] = peer.get("podSelector", {}).get("matchLabels", {})
    return right_place and wanted.items() <= labels.items()


@pytest.mark.parametrize("port", [AGENT_PORT, RPC_PORT])
def test_a_worker_lets_in_the_leader_of_its_own_group_alone(port: int) -> None:
    rules, worker = policies(llama_cluster()), a_pod("worker", 0)
    assert lets_in(rules, a_pod("leader", 0), worker, port)
    for stranger in (
        *(STRANGER, ABROAD, THE_OPERATOR),
        *(a_pod("leader", 1), a_pod("worker", 0), a_pod("plan"), a_pod("leader", 0, "y")),
        ("elsewhere", a_pod("leader", 0)[1]),
        *("10.0.0.1", "fd00::1"),
    ):
        assert not lets_in(rules, stranger, worker, port), stranger


def test_a_worker_of_a_group_that_is_unknown_lets_nobody_in() -> None:
    rules = policies(llama_cluster(), groups=1)
    assert not lets_in(rules, a_pod("leader", 1), a_pod("worker", 1), RPC_PORT)


def test_nothing_goes_out_of_a_worker() -> None:
    rules, worker = policies(llama_cluster()), a_pod("worker")
    [egress] = [
        policy["spec"]["egress"]
        for policy in rules
        if selects(policy, worker) and "Egress" in policy["spec"]["policyTypes"]
    ]
    assert egress == []


@pytest.mark.parametrize("port", OWN_PORTS)
def test_nobody_comes_into_the_planner(port: int) -> None:
    for source in (STRANGER, THE_OPERATOR, a_pod("leader")):
        assert not lets_in(policies(llama_cluster()), source, a_pod("plan"), port)


def test_the_api_is_for_the_namespace_unless_the_spec_names_others() -> None:
    leader = a_pod("leader")
    default = policies(llama_cluster())
    assert lets_in(default, STRANGER, leader, API)
    assert not lets_in(default, ABROAD, leader, API)
    assert not lets_in(default, "10.1.2.3", leader, API)

    peers = [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "elsewhere"}}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"]}},
    ]
    named = policies(llama_cluster(networkPolicy={"from": peers}))
    assert lets_in(named, ABROAD, leader, API)
    assert lets_in(named, "10.1.2.3", leader, API)
    assert not lets_in(named, "10.9.2.3", leader, API)
    assert not lets_in(named, STRANGER, leader, API)


def test_the_leaders_state_is_for_the_operator_and_for_monitoring_alone() -> None:
    leader, watcher = a_pod("leader"), ("ns", {"app": "watcher"})
    peers = [{"podSelector": {"matchLabels": {"app": "watcher"}}}]
    for monitoring, seen in ((None, False), (peers, True)):
        wanted = {} if monitoring is None else {"monitoring": monitoring}
        rules = policies(llama_cluster(networkPolicy=wanted))
        assert lets_in(rules, THE_OPERATOR, leader, AGENT_PORT)
        assert lets_in(rules, watcher, leader, AGENT_PORT) is seen
        for stranger in (STRANGER, ("ns", THE_OPERATOR[1]), ("system", {}), a_pod("worker")):
            assert not lets_in(rules, stranger, leader, AGENT_PORT)
        assert not lets_in(rules, watcher, leader, RPC_PORT)
        assert not lets_in(rules, watcher, a_pod("worker"), AGENT_PORT)


def test_no_policy_of_leaders_speaks_of_both_directions() -> None:
    """kube-router would mix them up between two leaders."""
    for policy in policies(llama_cluster()):
        if selects(policy, a_pod("leader")):
            assert len(policy["spec"]["policyTypes"]) == 1


def test_without_known_operator_pods_the_leaders_state_is_for_nobody() -> None:
    rules = [leader_policy(llama_cluster(), None)]
    for source in (STRANGER, THE_OPERATOR, ABROAD):
        assert not lets_in(rules, source, a_pod("leader"), AGENT_PORT)


@pytest.mark.parametrize("role", ["leader", "plan"])
def test_a_model_from_the_network_is_read_from_anywhere_but_a_clouds_own_addresses(
    role: str,
) -> None:
    rules, reader = policies(llama_cluster()), a_pod(role)
    for source in (STRANGER, ABROAD, "1.2.3.4", "10.0.0.1"):
        assert lets_out(rules, reader, source, 443)
    for hidden in (
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "fe80::1",
        "fd00:ec2::254",
    ):
        assert not lets_out(rules, reader, hidden, 80)
    assert lets_out(rules, reader, "169.254.20.10", 53), "the DNS cache of a node"


@pytest.mark.parametrize("uri", ["pvc://claim/m.gguf", "file:///m.gguf"])
def test_a_model_on_a_volume_opens_no_way_out(uri: str) -> None:
    rules = policies(llama_cluster(model={"uri": uri}))
    for target in (STRANGER, ABROAD, "1.2.3.4"):
        assert not lets_out(rules, a_pod("leader"), target, 443)
        assert not lets_out(rules, a_pod("plan"), target, 443)
    assert not lets_out(rules, a_pod("plan"), STRANGER, 53)
    worker = a_pod("worker")
    assert lets_out(rules, a_pod("leader"), worker, RPC_PORT)
    assert lets_out(rules, a_pod("leader"), worker, AGENT_PORT)
    assert not lets_out(rules, a_pod("leader"), worker, 22)
    assert lets_out(rules, a_pod("leader"), STRANGER, 53)


def test_who_may_reach_the_pods_changes_no_pod() -> None:
    assert spec_hash(llama_cluster(networkPolicy={"enabled": False})) == spec_hash(llama_cluster())


@pytest.mark.parametrize(
    "wrong",
    [
        {"from": []},
        {"from": [{}]},
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]},
        {"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]},
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]},
        {"from": [{"ipBlock": {"cidr": "fd00::/8"}}]},
        {"monitoring": [{"ipBlock": {"cidr": "::ffff:10.0.0.0/104"}}]},
        {"monitoring": []},
        {"monitoring": [{"ipBlock": {}}]},
        {"to": []},
    ],
)
def test_a_wrong_peer_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="networkPolicy"):
        llama_cluster(networkPolicy=wrong)
