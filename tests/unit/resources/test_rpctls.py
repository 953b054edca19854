"""RPC encryption in the pods, and its Secret and ConfigMap."""

from __future__ import annotations

import base64

import pytest

from llamacluster.agent.contract.options import LeaderOptions, TunnelOptions, WorkerOptions, parse
from llamacluster.agent.contract.places import (
    AGENT_PORT,
    CONTROL_TOKEN_FILE,
    PROBE_PORT,
    RPC_PORT,
    RPC_TLS_DIR,
    SCRATCH_DIR,
)
from llamacluster.resources.leaderpod import leader_pod
from llamacluster.resources.rpctls import rpc_authority, rpc_secret, server_name
from llamacluster.resources.workerpod import worker_pod
from tests.build import IMAGE, Manifest, a_plan, llama_cluster

PLAN = a_plan(3, 3, 3)
ENCRYPTED = llama_cluster(rpc={"encryption": True}, terminationGracePeriodSeconds=60)


def containers(pod: Manifest) -> dict[str, Manifest]:
    return {container["name"]: container for container in pod["spec"]["containers"]}


def secrets(pod: Manifest) -> list[Manifest]:
    """Volumes of Secrets, but for the agents' token."""
    volumes = [volume for volume in pod["spec"]["volumes"] if "secret" in volume]
    return [volume for volume in volumes if volume["name"] != "control"]


@pytest.mark.parametrize("build", [leader_pod, worker_pod])
def test_without_encryption_nothing_of_it_is_in_a_pod(build) -> None:  # type: ignore[no-untyped-def]
    plain = build(llama_cluster(rpc={"encryption": False}), IMAGE, PLAN)
    assert plain == build(llama_cluster(), IMAGE, PLAN)
    assert "tunnel" not in containers(plain)
    assert not secrets(plain)


def test_a_worker_is_reached_through_its_tunnel_alone() -> None:
    pods = containers(worker_pod(ENCRYPTED, IMAGE, PLAN))
    ports = {port["name"]: port["containerPort"] for port in pods["tunnel"]["ports"]}
    assert ports == {"rpc": RPC_PORT, "agent": AGENT_PORT}
    worker = pods["worker"]
    assert worker["ports"] == [{"name": "probe", "containerPort": PROBE_PORT}]
    assert worker["readinessProbe"]["httpGet"]["port"] == "probe"
    assert worker["livenessProbe"]["httpGet"]["port"] == "probe"
    told = parse(worker["args"])
    assert told == WorkerOptions(
        grace_seconds=60, encrypted=True, control_token_file=CONTROL_TOKEN_FILE
    )
    assert parse(pods["tunnel"]["args"]) == TunnelOptions(grace_seconds=60)


def test_the_leaders_tunnel_leads_to_each_worker() -> None:
    pods = containers(leader_pod(ENCRYPTED, IMAGE, PLAN))
    told = parse(pods["leader"]["args"])
    assert isinstance(told, LeaderOptions)
    assert told.encrypted
    tunnel = parse(pods["tunnel"]["args"])
    assert tunnel == TunnelOptions(workers=3, grace_seconds=60)
    assert "ports" not in pods["tunnel"]


@pytest.mark.parametrize("build", [leader_pod, worker_pod])
def test_the_private_key_is_in_the_tunnel_alone(build) -> None:  # type: ignore[no-untyped-def]
    """Nor has any other container a folder in which the tunnel's HAProxy is told something."""
    pod = build(ENCRYPTED, IMAGE, PLAN)
    [volume] = secrets(pod)
    assert volume["secret"] == {"secretName": "x-rpc-tls", "defaultMode": 0o440}
    mounting = [
        (name, mount["mountPath"], mount["readOnly"])
        for name, container in containers(pod).items()
        for mount in container["volumeMounts"]
        if mount["name"] == volume["name"]
    ]
    assert mounting == [("tunnel", RPC_TLS_DIR, True)]
    tunnel, others = set[str](), set[str]()
    for name, container in containers(pod).items():
        names = {mount["name"] for mount in container["volumeMounts"]}
        (tunnel if name == "tunnel" else others).update(names)
    assert tunnel == {"rpc-tls", "tunnel"}
    assert not tunnel & others
    assert not pod["spec"].get("shareProcessNamespace")
    [own] = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "tunnel"]
    assert own["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Mi"}
    assert {"name": "tunnel", "mountPath": SCRATCH_DIR} in containers(pod)["tunnel"]["volumeMounts"]


@pytest.mark.parametrize("build", [leader_pod, worker_pod])
def test_the_containers_of_a_pod_are_of_one_image(build) -> None:  # type: ignore[no-untyped-def]
    """What tunnel and leader say to each other may change from release to release."""
    assert {one["image"] for one in containers(build(ENCRYPTED, IMAGE, PLAN)).values()} == {IMAGE}


def test_the_secret_holds_what_a_tunnel_needs_and_goes_with_its_owner() -> None:
    secret = rpc_secret(ENCRYPTED, ["new\n", "former\n"], "certificate\n", "key\n")
    assert {name: base64.b64decode(text).decode() for name, text in secret["data"].items()} == {
        "ca.crt": "new\nformer\n",
        "tls.crt": "certificate\n",
        "tls.key": "key\n",
    }
    known = rpc_authority(ENCRYPTED, "new\n")
    assert known["data"] == {"ca.crt": "new\n"}
    for made, name in ((secret, "x-rpc-tls"), (known, "x-rpc-ca")):
        assert made["metadata"]["name"] == name
        assert made["metadata"]["ownerReferences"][0]["uid"] == ENCRYPTED.metadata.uid


def test_the_certificate_is_for_all_pods_of_the_cluster() -> None:
    assert server_name(ENCRYPTED) == "*.x-group.ns"
