"""The operator's own pod: what it needs, and what it may do."""

from __future__ import annotations

import pytest

from tests.e2e.live import Live, tiny
from tests.kind.images import BuiltImages
from tests.kind.product import OPERATOR, SYSTEM_NAMESPACE, install_operator

pytestmark = pytest.mark.e2e

IDLE_MEBIBYTES = 120
RESIDENT_KIBIBYTES = (
    "print(next(l.split()[1] for l in open('/proc/1/status') if l.startswith('VmRSS')))"
)


def in_operator(live: Live, *command: str) -> str:
    return live.cluster.kubectl("exec", f"--namespace={SYSTEM_NAMESPACE}", OPERATOR, "--", *command)


def test_it_is_small(group: Live) -> None:
    resident = int(in_operator(group, "python3", "-c", RESIDENT_KIBIBYTES)) / 1024
    print(f"operator: {resident:.0f} MiB resident")
    assert resident <= IDLE_MEBIBYTES


def test_a_newer_operator_restarts_no_group(group: Live, images: BuiltImages) -> None:
    def running() -> dict[str, tuple[str, str]]:
        return {
            name: (pod["metadata"]["uid"], pod["spec"]["containers"][0]["image"])
            for name, pod in group.pods().items()
        }

    before = running()
    newer = BuiltImages(engine="localhost/llamacluster/engine:next", operator=images.operator)
    install_operator(group.cluster, newer)
    try:
        group.kubectl("scale", "llc/tiny", "--replicas=2")  # the newer operator does its work
        group.wait_for("Ready", "True", "Ready")
        after = running()
        assert len(after) == 2 * len(before)
        assert before.items() <= after.items()
        assert {image for _, image in after.values()} == {images.engine}
        assert group.get()["status"]["engine"]["image"] == images.engine
    finally:
        group.kubectl("scale", "llc/tiny", "--replicas=1")
        install_operator(group.cluster, images)


def test_with_rights_in_one_namespace_it_serves_that_one_alone(
    fresh: Live, group: Live, images: BuiltImages
) -> None:
    install_operator(fresh.cluster, images, f"--set=watchNamespaces={{{fresh.namespace}}}")
    try:
        group.patch({"replicas": 2})
        fresh.apply(tiny())
        fresh.wait_until_ready()
        assert group.read("lws", "tiny-group")["spec"]["replicas"] == 1
        log = fresh.cluster.kubectl("logs", f"--namespace={SYSTEM_NAMESPACE}", OPERATOR)
        assert '"level": "error"' not in log
        assert '"level": "warning"' not in log
    finally:
        install_operator(fresh.cluster, images)
    group.wait_for("Ready", "True", "Ready")
    assert group.read("lws", "tiny-group")["spec"]["replicas"] == 2
