"""Edits of a running LlamaCluster."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from llamacluster.agent.contract.places import ENGINE_PORT
from llamacluster.controller.status import LATER_SECONDS, SETTLED_SECONDS
from llamacluster.controller.upgrade import differences
from tests.e2e.live import Json, Live, eventually
from tests.kind.product import leading_pod

pytestmark = pytest.mark.e2e

OURS = "app.kubernetes.io/instance=tiny"


def context_of_a_slot(group: Live) -> int:
    """What the running engine says, to its own pod alone."""
    ask = (
        "from urllib.request import urlopen;"
        f"print(urlopen('http://127.0.0.1:{ENGINE_PORT}/props').read().decode())"
    )
    told = group.kubectl("exec", "tiny-group-0", "-c", "leader", "--", "python3", "-c", ask)
    size: int = json.loads(told)["default_generation_settings"]["n_ctx"]
    return size


def test_another_context_size_rolls_the_group_and_it_is_ready_again(group: Live) -> None:
    before = group.pods()
    assert context_of_a_slot(group) == 2048
    group.patch({"inference": {"contextSize": 1024}})
    group.wait_for("Ready", "True", "Ready")
    after = group.pods()
    assert after.keys() == before.keys()
    assert all(after[n]["metadata"]["uid"] != before[n]["metadata"]["uid"] for n in after)
    assert context_of_a_slot(group) == 1024


def test_the_scale_subresource_adds_and_removes_whole_groups(group: Live) -> None:
    first = group.pods()
    group.kubectl("scale", "llc/tiny", "--replicas=2")
    group.wait_for("Ready", "True", "Ready")
    pods = group.pods()
    assert len(pods) == 6
    assert all(pods[n]["metadata"]["uid"] == first[n]["metadata"]["uid"] for n in first)
    assert group.get()["status"]["readyReplicas"] == 2
    assert len(group.read("endpointslices", "-l", "kubernetes.io/service-name=tiny")["items"]) == 1

    group.kubectl("scale", "llc/tiny", "--replicas=0")
    found = group.wait_for("Ready", "False", "ScaledToZero")
    assert found["message"]
    eventually(lambda: not group.pods(), "all pods are gone")
    group.kubectl("scale", "llc/tiny", "--replicas=1")
    group.wait_for("Ready", "True", "Ready")


def test_kubectl_autoscale_finds_what_it_scales(group: Live) -> None:
    group.kubectl("autoscale", "llc/tiny", "--min=1", "--max=2", "--cpu=80%")

    def able() -> Json | None:
        conditions = group.read("hpa", "tiny").get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == "AbleToScale"), None)

    try:
        found = eventually(able, "the autoscaler has looked")
        assert (found["status"], found["reason"]) == ("True", "SucceededGetScale")
    finally:
        group.kubectl("delete", "hpa", "tiny")


def test_restarting_the_operator_changes_nothing(group: Live) -> None:
    def objects() -> dict[str, Json]:
        found = [*group.read("lws,svc", "-l", OURS)["items"], *group.pods().values(), group.get()]
        return {f"{one['kind']}/{one['metadata']['name']}": one for one in found}

    group.wait_for("Progressing", "False", "AsExpected")
    group.wait_for("Isolated", "True", "PoliciesEnforced")
    # The kubelet may find a worker ready a moment after the leader, which asks it directly.
    group.kubectl("wait", "--for=condition=Ready", "pods", "-l", group.selector, "--timeout=60s")
    group.kubectl("wait", "--for=condition=Available", "lws/tiny-group", "--timeout=60s")

    def last_look_is_over() -> bool:
        status = group.get()["status"]
        plan = status["plan"]
        since = max(datetime.fromisoformat(one["since"]) for one in status["groups"])
        return all("observed" in one for one in (*plan["perWorker"], plan["leader"])) and (
            datetime.now(UTC) - since > timedelta(seconds=SETTLED_SECONDS + LATER_SECONDS)
        )

    eventually(last_look_is_over, "the operator has seen what the engines hold")
    before = objects()
    operator = ["--namespace=llamacluster-system", "rollout"]
    group.cluster.kubectl(*operator, "restart", "deployment/llamacluster-operator")
    group.cluster.kubectl(*operator, "status", "deployment/llamacluster-operator", "--timeout=120s")
    eventually(lambda: leading_pod(group.cluster), "a new operator leads")
    # The new operator has surely been at work once it has followed an edit of another object.
    label = "app.kubernetes.io/instance=someone-elses"
    group.kubectl("label", "--overwrite", "lws", "tiny-group", label)
    eventually(
        lambda: (
            group.read("lws", "tiny-group")["metadata"]["labels"]["app.kubernetes.io/instance"]
            == "tiny"
        ),
        "the operator takes the label back",
    )
    after = objects()
    assert len(before) == 6
    for found in (before, after):
        # It has its label back, and with it another version.
        found["LeaderWorkerSet/tiny-group"] = found["LeaderWorkerSet/tiny-group"]["spec"]
    assert list(differences(before, after)) == []
