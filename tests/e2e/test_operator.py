"""The operator's own pod: what it needs, and what it may do."""

from __future__ import annotations

import sys

import pytest

from tests.e2e.live import Live, eventually, tiny
from tests.kind import docker
from tests.kind.command import run
from tests.kind.images import BuiltImages
from tests.kind.product import SYSTEM_NAMESPACE, install_operator, leading_pod, operator_log

pytestmark = pytest.mark.e2e

IDLE_MEBIBYTES = 120
SLOW_API_SERVER = {"the lease cannot be had", "lease not renewed"}
"""Warnings of an operator all of whose rights are there."""
RESIDENT_KIBIBYTES = (
    "print(next(l.split()[1] for l in open('/proc/1/status') if l.startswith('VmRSS')))"
)


def in_operator(live: Live, *command: str) -> str:
    where = f"--namespace={SYSTEM_NAMESPACE}"
    return live.cluster.kubectl("exec", where, the_leader(live), "--", *command)


def the_leader(live: Live) -> str:
    """The operator's pod that works."""
    return eventually(lambda: leading_pod(live.cluster), "an operator leads")


def test_it_is_small(group: Live) -> None:
    resident = int(in_operator(group, "python3", "-c", RESIDENT_KIBIBYTES)) / 1024
    print(f"operator: {resident:.0f} MiB resident")
    assert resident <= IDLE_MEBIBYTES


def test_a_newer_operator_restarts_no_group_until_it_is_asked_to(
    fresh: Live, images: BuiltImages
) -> None:
    def running() -> dict[str, tuple[str, str]]:
        return {
            name: (pod["metadata"]["uid"], pod["spec"]["containers"][0]["image"])
            for name, pod in fresh.pods().items()
            if "deletionTimestamp" not in pod["metadata"]
        }

    def upgrade(*options: str) -> str:
        where = (f"--kubeconfig={fresh.cluster.kubeconfig}", f"--namespace={fresh.namespace}")
        command = (sys.executable, "-m", "llamacluster.cli.plugin", "upgrade", "tiny")
        return run([*command, *where, *options], timeout=240)

    fresh.apply()
    fresh.wait_until_ready()
    before = running()
    assert "nothing to upgrade" in upgrade()
    newer = BuiltImages(engine=f"{images.engine}-next", operator=images.operator)
    docker.need_running().docker("tag", images.engine, newer.engine)
    fresh.cluster.load(newer.engine)
    install_operator(fresh.cluster, newer)
    try:
        fresh.kubectl("scale", "llc/tiny", "--replicas=2")  # the newer operator does its work
        fresh.wait_for("Ready", "True", "Ready")
        after = running()
        assert len(after) == 2 * len(before)
        assert before.items() <= after.items()
        assert {image for _, image in after.values()} == {images.engine}
        status = fresh.get()["status"]
        assert status["engine"]["image"] == images.engine
        assert status["upgrade"]["image"] == newer.engine
        assert newer.engine in fresh.kubectl("get", "llc", "tiny", "-o", "wide")

        assert f"{images.engine} -> {newer.engine}" in upgrade("--dry-run")
        assert running() == after
        spec = fresh.get()["spec"]
        assert "tiny is upgraded" in upgrade("--wait", "--timeout=230")
        assert {image for _, image in running().values()} == {newer.engine}
        assert fresh.get()["spec"] == spec
        assert "upgrade" not in fresh.get()["status"]
    finally:
        install_operator(fresh.cluster, images)
    # And back again: an older operator restarts nothing either.
    eventually(lambda: "upgrade" in fresh.get()["status"], "the older one is offered")
    assert {image for _, image in running().values()} == {newer.engine}


def test_with_rights_in_one_namespace_it_serves_that_one_alone(
    fresh: Live, group: Live, images: BuiltImages
) -> None:
    install_operator(fresh.cluster, images, f"--set=watchNamespaces={{{fresh.namespace}}}")
    try:
        group.patch({"replicas": 2})
        fresh.apply(tiny())
        fresh.wait_until_ready()
        assert group.read("lws", "tiny-group")["spec"]["replicas"] == 1
        log = operator_log(fresh.cluster, the_leader(fresh))
        assert "forbidden" not in str(log)
        told = {line["event"] for line in log if line["level"] in ("error", "warning")}
        assert told <= SLOW_API_SERVER
    finally:
        install_operator(fresh.cluster, images)
    group.wait_for("Ready", "True", "Ready")
    assert group.read("lws", "tiny-group")["spec"]["replicas"] == 2
