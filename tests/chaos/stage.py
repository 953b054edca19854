"""The cluster made ready for faults, and groups in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

from tests.chaos import bounds
from tests.chaos.faults import LWS_MANAGER
from tests.chaos.witness import ON_CONTROL_PLANE, Witness, watching
from tests.e2e.live import Json, Live, tiny
from tests.kind import faults
from tests.kind.cluster import LWS_NAMESPACE, Cluster
from tests.kind.command import CommandFailed
from tests.kind.images import BuiltImages
from tests.kind.product import OPERATOR, SYSTEM_NAMESPACE, install_operator, publish_model

ON_IT = json.dumps({"spec": {"template": {"spec": ON_CONTROL_PLANE}}})
"""For a Deployment."""
SETTLED_SECONDS = 240.0


def put_controllers_on_control_plane(cluster: Cluster, images: BuiltImages) -> None:
    """LeaderWorkerSet and the operator run where no fault strikes by accident: that they are away
    is a fault of its own. They stay there; it is nothing to other tests."""
    namespace = f"--namespace={LWS_NAMESPACE}"
    cluster.kubectl("patch", namespace, LWS_MANAGER, "--type=merge", "-p", ON_IT)
    cluster.kubectl("rollout", "status", namespace, LWS_MANAGER, "--timeout=120s")
    pins = [f"--set-json={key}={json.dumps(value)}" for key, value in ON_CONTROL_PLANE.items()]
    install_operator(cluster, images, "--take-ownership", *pins)


def serve_model(cluster: Cluster, images: BuiltImages, namespace: str) -> None:
    """As in the examples, but where no node is lost."""
    publish_model(cluster, images, namespace)
    model = (f"--namespace={namespace}", "deployment/tiny-model")
    cluster.kubectl("patch", *model, "--type=merge", "-p", ON_IT)
    cluster.kubectl("rollout", "status", *model, "--timeout=120s")


def struck(name: str, *, encrypted: bool = False) -> Json:
    """A group to be struck."""
    recovery = {"lostNodeSeconds": bounds.LOST_NODE_SECONDS}
    manifest = tiny(recovery=recovery, rpc={"encryption": encrypted})
    manifest["metadata"]["name"] = name
    return manifest


@contextlib.contextmanager
def serving(
    cluster: Cluster, images: BuiltImages, namespace: str, manifest: Json
) -> Iterator[Witness]:
    """A group that is Ready, serves clients and is watched."""
    live = Live(cluster, namespace, manifest["metadata"]["name"])
    live.apply(manifest)
    live.wait_until_ready()
    with watching(live, images.engine) as witness:
        yield witness


def settle(witness: Witness) -> None:
    """Wait until the group is as before a fault."""
    try:
        _until("the group is at rest", lambda: _is_at_rest(witness))
    except AssertionError as late:
        raise AssertionError(f"{late}\n{witness.live.scene()}") from late


def settle_cluster(cluster: Cluster) -> None:
    """Wait until Kubernetes and the controllers are as before a fault."""
    _until("the cluster is at rest", lambda: _works(cluster))


def _until(what: str, holds: Callable[[], bool]) -> None:
    faults.wait_until(what, holds, SETTLED_SECONDS, every=1)


def _is_at_rest(witness: Witness) -> bool:
    last = witness.sights[-1]
    if not (last.pod and last.cluster):
        return False
    try:
        pods = list(witness.live.pods().values())
    except CommandFailed:
        return False
    return len(pods) == 3 and all(
        "deletionTimestamp" not in pod["metadata"] and _has(pod, "Ready") for pod in pods
    )


def _works(cluster: Cluster) -> bool:
    try:
        nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
        controllers = [
            json.loads(cluster.kubectl("get", name, f"--namespace={namespace}", "-o", "json"))
            for namespace, name in ((LWS_NAMESPACE, LWS_MANAGER), (SYSTEM_NAMESPACE, OPERATOR))
        ]
    except CommandFailed:
        return False
    return all(_has(node, "Ready") for node in nodes) and all(
        _has(controller, "Available") for controller in controllers
    )


def _has(found: Json, condition: str) -> bool:
    conditions = found["status"].get("conditions", [])
    return any(c["type"] == condition and c["status"] == "True" for c in conditions)
