"""Two operators, of which one works: whatever happens to it, the other one goes on. That it does so
in time is proved where time is the test's own (tests/unit/controller/test_election.py)."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.live import Json, Live, eventually
from tests.kind import faults
from tests.kind.command import CommandFailed, listening_to
from tests.kind.product import OPERATOR, OPERATOR_PODS, SYSTEM_NAMESPACE, leading_pod, operator_log

pytestmark = pytest.mark.e2e

NOBODY = "holder:"
IN_SYSTEM = f"--namespace={SYSTEM_NAMESPACE}"


def lease(live: Live) -> Json:
    found: Json = json.loads(
        live.cluster.kubectl("get", "lease/llamacluster-operator", IN_SYSTEM, "-o", "json")
    )["spec"]
    return found


def leader(live: Live) -> str:
    return eventually(lambda: leading_pod(live.cluster), "an operator leads")


def scales(live: Live, replicas: int) -> bool:
    """Whether the LeaderWorkerSet has what the LlamaCluster was told: somebody reconciles."""
    count: int = live.read("lws", "tiny-group")["spec"]["replicas"]
    return count == replicas


@pytest.fixture(autouse=True)
def two_operators(group: Live) -> Iterator[None]:
    """Both are ready before each test and after it; the group is as it was."""
    rolled_out(group)
    yield
    rolled_out(group)
    group.patch({"replicas": 1})
    eventually(lambda: scales(group, 1), "the group is as it was")


def rolled_out(live: Live) -> None:
    live.cluster.kubectl("rollout", "status", OPERATOR, IN_SYSTEM, "--timeout=120s")


def test_one_leads_and_the_other_is_ready_too(group: Live) -> None:
    pods = json.loads(
        group.cluster.kubectl("get", "pods", IN_SYSTEM, "-l", OPERATOR_PODS, "-o", "json")
    )["items"]
    names = {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}
    leads = leader(group)
    [other] = names - {leads}
    assert [line["event"] for line in operator_log(group.cluster, other)][-1] == "standing by"
    assert "leading" in [line["event"] for line in operator_log(group.cluster, leads)]


def killed(live: Live, pod: str) -> Callable[[], None]:
    live.cluster.kubectl("delete", "pod", pod, IN_SYSTEM, "--force", "--grace-period=0")
    return lambda: None


def frozen(live: Live, pod: str) -> Callable[[], None]:
    at = faults.find_container(live.cluster, SYSTEM_NAMESPACE, pod)
    faults.freeze_process(at.node, at.container_id)

    def undo() -> None:
        with contextlib.suppress(CommandFailed):  # it ends as soon as it wakes up
            faults.thaw_process(at.node, at.container_id)

    return undo


@pytest.mark.parametrize("strike", [killed, frozen])
def test_another_one_works_then(
    group: Live, strike: Callable[[Live, str], Callable[[], None]]
) -> None:
    first = leader(group)
    transitions = lease(group)["leaseTransitions"]
    began = time.monotonic()
    undo = strike(group, first)
    try:
        group.patch({"replicas": 2})
        eventually(lambda: scales(group, 2), "another operator works")
        print(f"another operator works after {time.monotonic() - began:.1f} s")
        assert lease(group)["leaseTransitions"] > transitions
        assert leader(group) != first
    finally:
        undo()


def test_one_that_wakes_up_ends_without_a_word_to_the_api_server(group: Live) -> None:
    first = leader(group)
    undo = frozen(group, first)
    try:
        eventually(lambda: leader(group) != first, "another one leads")
    finally:
        undo()

    def last_end() -> Json | None:
        """How the container ended that was frozen."""
        pod = json.loads(group.cluster.kubectl("get", "pod", first, IN_SYSTEM, "-o", "json"))
        [container] = pod["status"]["containerStatuses"]
        ended: Json | None = container["lastState"].get("terminated")
        return ended

    ended = eventually(last_end, "the one that woke up ends")
    assert ended["exitCode"] == 1
    before = group.cluster.kubectl("logs", IN_SYSTEM, first, "--previous").splitlines()
    last = json.loads(before[-1])
    assert (last["level"], last["event"]) == ("error", "lease lost: ends")
    assert leader(group) != first


def test_one_that_is_told_to_end_hands_over_at_once(group: Live) -> None:
    first = leader(group)
    holders: list[str] = []
    watch = group.cluster.kubectl_command(
        *("get", "lease/llamacluster-operator", IN_SYSTEM, "--watch", "-o"),
        "jsonpath=holder:{.spec.holderIdentity}{'\\n'}",
    )
    with listening_to(watch, holders.append):
        eventually(lambda: holders, "the lease is seen")
        group.cluster.kubectl("delete", "pod", first, IN_SYSTEM, "--wait=false")
        eventually(
            lambda: holders[-1] != NOBODY and not holders[-1].startswith(f"{NOBODY}{first}_"),
            "another one holds it",
        )
    # It was given back, so that nobody had to wait until it ran out.
    assert NOBODY in holders
