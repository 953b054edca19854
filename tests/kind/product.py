"""The product in a cluster, as the demo and the end-to-end tests install it."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.kind.cluster import Cluster
from tests.kind.command import CommandFailed, SetupError
from tests.kind.host import REPOSITORY
from tests.kind.images import BuiltImages
from tests.model import build as model

Json = dict[str, Any]

RELEASE = "llamacluster"
SYSTEM_NAMESPACE = "llamacluster-system"
OPERATOR = f"deployment/{RELEASE}-operator"
OPERATOR_PODS = "app.kubernetes.io/name=llamacluster-operator"
"""Of which one works: see leading_pod."""
CHART = REPOSITORY / "charts" / "llamacluster"
EXAMPLES = REPOSITORY / "examples"
ASK = """
import sys, time, urllib.error, urllib.request
headers = {"Content-Type": "application/json"}
request = urllib.request.Request(sys.argv[1], sys.stdin.buffer.read(), headers)
began = time.monotonic()
while True:
    try:
        answer = urllib.request.urlopen(request, timeout=120)
        break
    except urllib.error.URLError as error:
        refused = isinstance(error.reason, ConnectionRefusedError)
        if not refused or time.monotonic() - began > 10:
            raise
        time.sleep(0.2)
sys.stdout.buffer.write(answer.read())
"""
"""A node's rules for a Service, which refuse connections while nobody serves, follow what the API
server says a moment later."""
ENGINE_IMAGE_IN_EXAMPLES = "localhost/llamacluster/engine"


def install_operator(cluster: Cluster, images: BuiltImages, *options: str) -> None:
    """Install or upgrade the operator's chart with these images; the operator runs afterwards."""
    _remove_interrupted_release(cluster)
    values = {"operatorImage": _image(images.operator), "engineImage": _image(images.engine)}
    cluster.helm(
        *("upgrade", "--install", RELEASE, str(CHART), f"--namespace={SYSTEM_NAMESPACE}"),
        *("--create-namespace", "--wait", "--timeout=5m", "--values=-", *options),
        stdin=json.dumps(values),
    )
    # Helm does not wait until the former pods end, and pods that are ready may stand by yet.
    cluster.kubectl("rollout", "status", OPERATOR, f"--namespace={SYSTEM_NAMESPACE}")
    deadline = time.monotonic() + 60
    while leading_pod(cluster) is None:
        if time.monotonic() > deadline:
            raise SetupError(
                f"no operator leads: kubectl -n {SYSTEM_NAMESPACE} logs -l {OPERATOR_PODS}"
            )
        time.sleep(0.5)


def leading_pod(cluster: Cluster) -> str | None:
    """The operator's pod that works, if it is one that stays."""
    where = (f"--namespace={SYSTEM_NAMESPACE}", "-o", "json")
    try:
        lease = json.loads(cluster.kubectl("get", "lease", f"{RELEASE}-operator", *where))
        holder = lease["spec"]["holderIdentity"].rpartition("_")[0]
        pod = json.loads(cluster.kubectl("get", "pod", holder, *where))
    except (CommandFailed, KeyError):
        return None
    return None if "deletionTimestamp" in pod["metadata"] else holder


def operator_log(cluster: Cluster, pod: str) -> list[Json]:
    """What one of the operator's pods has said."""
    text = cluster.kubectl("logs", f"--namespace={SYSTEM_NAMESPACE}", pod)
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def _remove_interrupted_release(cluster: Cluster) -> None:
    """Helm refuses to touch a release whose last change was interrupted. The CRD stays."""
    listed = cluster.helm("list", f"--namespace={SYSTEM_NAMESPACE}", "--all", "--output=json")
    for release in json.loads(listed):
        if release["name"] == RELEASE and release["status"].startswith(("pending", "uninstalling")):
            uninstall_operator(cluster)


def uninstall_operator(cluster: Cluster) -> None:
    """Remove the operator if it is there; the CRD and all LlamaClusters stay."""
    cluster.helm(
        "uninstall", RELEASE, f"--namespace={SYSTEM_NAMESPACE}", "--ignore-not-found", "--wait"
    )


def operator_is_installed(cluster: Cluster, images: BuiltImages) -> bool:
    """Whether the operator runs with just these images."""
    try:
        deployment = json.loads(
            cluster.kubectl("get", OPERATOR, f"--namespace={SYSTEM_NAMESPACE}", "-o", "json")
        )
    except CommandFailed:
        return False
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    return (
        container["image"] == images.operator
        and f"--engine-image={images.engine}" in container["args"]
        and deployment["status"].get("readyReplicas") == deployment["spec"]["replicas"]
    )


def publish_model(cluster: Cluster, images: BuiltImages, namespace: str) -> None:
    """Serve the tiny model at http://tiny-model/tiny.gguf inside the namespace."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tiny.gguf"
        model.write(file)
        config_map = cluster.kubectl(
            *("create", "configmap", "tiny-model", f"--namespace={namespace}"),
            *(f"--from-file={file}", "--dry-run=client", "-o", "json"),
        )
    # A client-side apply would put the whole model into an annotation, which is too small for it.
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=config_map)
    manifest = (EXAMPLES / "tiny-model.yaml").read_text()
    manifest = manifest.replace(ENGINE_IMAGE_IN_EXAMPLES, images.engine)
    cluster.kubectl("apply", f"--namespace={namespace}", "-f", "-", stdin=manifest)
    cluster.kubectl(
        *("rollout", "status", "deployment/tiny-model", f"--namespace={namespace}"),
        "--timeout=120s",
    )


def ask_service(cluster: Cluster, namespace: str, url: str, body: Json) -> Json:
    """The answer to a POST of JSON from a pod of the namespace: as a client in the cluster asks."""
    answer = cluster.kubectl(
        *("exec", "-i", f"--namespace={namespace}", "deployment/tiny-model", "--"),
        *("python3", "-c", ASK, url),
        stdin=json.dumps(body),
    )
    parsed: Json = json.loads(answer)
    return parsed


def _image(name: str) -> dict[str, str]:
    repository, tag = name.rsplit(":", 1)
    return {"repository": repository, "tag": tag}
