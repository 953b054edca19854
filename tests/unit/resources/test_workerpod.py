"""The workers' pod."""

from __future__ import annotations

from llamacluster.agent.contract.options import WorkerOptions, parse
from llamacluster.agent.contract.places import CONTROL_TOKEN_FILE, RPC_PORT, WORKER_CONTAINER
from llamacluster.resources.workerpod import worker_pod
from tests.build import IMAGE, a_plan, llama_cluster

PLAN = a_plan()
TOKEN = CONTROL_TOKEN_FILE


def test_a_worker_serves_rpc_and_has_nothing_of_the_model() -> None:
    spec = worker_pod(llama_cluster(), IMAGE, PLAN)["spec"]
    [container] = spec["containers"]
    assert container["name"] == WORKER_CONTAINER
    assert {"name": "rpc", "containerPort": RPC_PORT} in container["ports"]
    assert [volume["name"] for volume in spec["volumes"]] == ["tmp", "control"]


def test_a_worker_is_the_same_whatever_the_leader_is_told() -> None:
    """So that a new model or context rolls the groups for the leader's sake alone."""
    one = worker_pod(llama_cluster(inference={"contextSize": 64}), IMAGE, PLAN)
    other = worker_pod(llama_cluster(model={"uri": "file:///other.gguf"}), IMAGE, PLAN)
    assert one == other


def test_threads_are_given_only_if_the_user_set_them() -> None:
    plain = worker_pod(llama_cluster(), IMAGE, PLAN)["spec"]["containers"][0]
    set_ = worker_pod(llama_cluster(workers={"count": 1, "threads": 3}), IMAGE, PLAN)
    assert parse(plain["args"]) == WorkerOptions(control_token_file=TOKEN)
    assert parse(set_["spec"]["containers"][0]["args"]) == WorkerOptions(
        3, control_token_file=TOKEN
    )
