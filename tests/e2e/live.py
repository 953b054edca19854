"""A LlamaCluster on the real cluster, with the words that the tests need."""

from __future__ import annotations

import base64
import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from click.testing import CliRunner, Result

from llamacluster.agent.contract.messages import LeaderStatus
from llamacluster.agent.contract.places import AGENT_PORT, STATUS
from llamacluster.cli.plugin import plugin
from llamacluster.resources.metadata import CLUSTER_LABEL, LWS_WORKER_INDEX_LABEL
from tests.e2e.scene import scene
from tests.kind.cluster import Cluster, tool
from tests.kind.command import CommandFailed
from tests.kind.portforward import port_forward
from tests.kind.product import EXAMPLES

T = TypeVar("T")
Json = dict[str, Any]
GENEROUS = 240.0
ASK_STATUS = (
    "from urllib.request import urlopen;"
    f"print(urlopen('http://127.0.0.1:{AGENT_PORT}{STATUS}', timeout=10).read().decode())"
)
HOSTNAME = "kubernetes.io/hostname"
TINY: Json = yaml.safe_load((EXAMPLES / "tiny.yaml").read_text())


def tiny(**spec: Any) -> Json:
    """examples/tiny.yaml with parts of its spec replaced."""
    manifest = copy.deepcopy(TINY)
    manifest["spec"] |= spec
    return manifest


def secret(name: str, entries: dict[str, str], kind: str = "Opaque") -> str:
    """A Secret's manifest."""
    data = {key: base64.b64encode(text.encode()).decode() for key, text in entries.items()}
    metadata = {"name": name}
    return json.dumps(
        {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "data": data}
    )


def eventually(look: Callable[[], T | None], what: str, seconds: float = GENEROUS) -> T:
    """What `look` returns once it is true; fails with what was awaited if it never is."""
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)  # between two looks at a condition
    return answer


def placed(node: str, *, leader_on_it: bool, **model: Any) -> Json:
    """A group with its leader, or with its workers, on a node as long as that is there, and all
    else on others."""
    term = {"matchExpressions": [{"key": HOSTNAME, "operator": "NotIn", "values": [node]}]}
    away = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    here = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [node]}]}
    there = {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": here}]
    }
    manifest = tiny()
    manifest["spec"]["model"] |= model
    for role, is_there in (("leader", leader_on_it), ("workers", not leader_on_it)):
        manifest["spec"][role] |= {
            "affinity": {"nodeAffinity": there if is_there else away},
            "topologySpreadConstraints": [],
        }
    return manifest


@dataclass(frozen=True)
class Live:
    """One LlamaCluster by name."""

    cluster: Cluster
    namespace: str
    name: str = "tiny"

    @property
    def selector(self) -> str:
        """Of the pods of the groups, without that of the planner."""
        return f"{CLUSTER_LABEL}={self.name},{LWS_WORKER_INDEX_LABEL}"

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl(f"--namespace={self.namespace}", *args, stdin=stdin)

    def apply(self, manifest: Json = TINY) -> None:
        """The manifest, under this name."""
        named = {**manifest, "metadata": {**manifest["metadata"], "name": self.name}}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(named))

    def patch(self, spec: Json) -> None:
        self.kubectl("patch", "llc", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def get(self) -> Json:
        return self.read("llc", self.name)

    def read(self, *what: str) -> Json:
        return cast("Json", json.loads(self.kubectl("get", *what, "-o", "json")))

    def pods(self) -> dict[str, Json]:
        """All pods of the groups, by name."""
        found = self.read("pods", "-l", self.selector)
        return {pod["metadata"]["name"]: pod for pod in found["items"]}

    def uids(self) -> dict[str, str]:
        """The identity of each pod, by name."""
        return {name: pod["metadata"]["uid"] for name, pod in self.pods().items()}

    def nodes(self) -> dict[str, str | None]:
        """The node of each pod; none as long as the scheduler has not placed it."""
        return {name: pod["spec"].get("nodeName") for name, pod in self.pods().items()}

    def events(self) -> set[str]:
        """Reasons of the LlamaCluster's events."""
        found = self.read("events", f"--field-selector=involvedObject.name={self.name}")
        return {event["reason"] for event in found["items"]}

    def condition(self, kind: str) -> Json:
        """A condition of the newest generation; empty while there is none."""
        found = self.get()
        for condition in found.get("status", {}).get("conditions", []):
            newest = condition["observedGeneration"] == found["metadata"]["generation"]
            if condition["type"] == kind and newest:
                return cast("Json", condition)
        return {}

    def wait_for(self, kind: str, status: str, reason: str) -> Json:
        """The condition, once it is as awaited."""

        def look() -> Json | None:
            found = self.condition(kind)
            return found if (found.get("status"), found.get("reason")) == (status, reason) else None

        try:
            return eventually(look, f"{kind}={status}, reason {reason}")
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.scene()}") from late

    def wait_until_ready(self) -> None:
        """As a user waits: with kubectl."""
        try:
            self.kubectl("wait", "--for=condition=Ready", f"llc/{self.name}", "--timeout=240s")
        except CommandFailed as late:
            raise AssertionError(f"{late}\n{self.scene()}") from late

    def scene(self) -> str:
        """Where the cluster stands, for a person who was not there."""
        return scene(self.cluster, self.namespace)

    def leader_status(self, group: int = 0) -> LeaderStatus:
        # From within its pod: NetworkPolicies let nobody else ask but the operator.
        told = self.python(f"{self.name}-group-{group}", ASK_STATUS, "-c", "leader")
        return cast("LeaderStatus", json.loads(told))

    def python(self, pod: str, code: str, *options: str) -> str:
        """What Python code prints in a pod (or `deployment/NAME`) that has Python."""
        return self.kubectl("exec", pod, *options, "--", "python3", "-c", code)

    def plugin(self, verb: str, *args: str, stdin: str = "", **env: str) -> Result:
        """What `kubectl llamacluster VERB NAME` does."""
        where = (f"--kubeconfig={self.cluster.kubeconfig}", f"--namespace={self.namespace}")
        path = f"{Path(tool('kubectl')).parent}:{os.environ['PATH']}"
        return CliRunner().invoke(
            plugin,
            [verb, self.name, *where, *args],
            input=stdin,
            env={"PATH": path, "COLUMNS": "80", **env},
        )

    @contextmanager
    def api(self) -> Iterator[str]:
        """Base URL of the API, through the Service."""
        with port_forward(self.cluster, self.namespace, f"service/{self.name}", 8080) as url:
            yield url
