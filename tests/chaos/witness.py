"""What is seen of a group from outside: by its clients, and in the API server."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

from llamacluster.agent.contract.places import AGENT_PORT, STATUS
from llamacluster.resources.metadata import CLUSTER_LABEL
from tests.chaos.laws import Answer, Span
from tests.e2e.live import Live, eventually
from tests.kind import docker
from tests.kind.cluster import Cluster
from tests.kind.command import listening_to

LOOK_SECONDS = 0.5
CLIENT = Path(__file__).with_name("client.py")
ON_CONTROL_PLANE = {
    "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
    "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}],
}
"""The one node that no fault takes away."""


@dataclass(frozen=True)
class Sight:
    """How the group looked at a time; None: nobody told."""

    at: float
    pod: bool | None
    """The leader's pod is Ready: the Service sends requests to it."""
    cluster: bool | None
    """The LlamaCluster says Ready."""
    held: bool
    """Kubernetes lets a container wait before it starts it again (CrashLoopBackOff)."""


@dataclass
class Witness:
    """Sees one group for as long as `watching` lasts."""

    live: Live
    api: str
    """Base URL of `kubectl proxy`."""
    answers: list[Answer] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list)
    """One for each change."""
    operator_is_away: bool = False
    """What the LlamaCluster says is of before."""
    judged: int = 0
    """So many answers."""

    def unjudged(self) -> list[Answer]:
        """The answers since the last call: those between two faults count too."""
        new = self.answers[self.judged :]
        self.judged += len(new)
        return new

    def is_noticed(self, since: float) -> float | None:
        """When the group first let somebody know, since then, that it does not serve. That may be
        the clients alone whose requests it ended: it can be whole again between two looks."""
        told = [a.ended for a in self.answers if a.outcome == "refused" and a.began >= since]
        told += [a.ended for a in self.answers if a.outcome == "lost" and a.ended >= since]
        told += [s.at for s in self.sights if s.at >= since and False in (s.pod, s.cluster)]
        return min(told, default=None)

    def is_whole(self, since: float) -> float | None:
        """When the group first both answered again since then, and said that it is Ready."""
        probes = (a for a in self.answers if a.kind == "probe" and a.outcome == "done")
        probe = next((a for a in probes if a.began >= since), None)
        last = self.sights[-1]
        if probe is None or False in (last.pod, last.cluster):
            return None
        # As long as it looks like that.
        same = itertools.takewhile(
            lambda s: (s.pod, s.cluster) == (last.pod, last.cluster), reversed(self.sights)
        )
        return max(probe.ended, min(s.at for s in same) if last.pod else 0.0)

    def ready(self) -> list[Span]:
        """When the group said that it is Ready, be it to the Service or to people."""
        ends = [*(sight.at for sight in self.sights[1:]), time.time()]
        return [
            Span(sight.at, end)
            for sight, end in zip(self.sights, ends, strict=True)
            if sight.pod or sight.cluster
        ]

    def held_seconds(self, since: float) -> float:
        """How long Kubernetes has let a container wait since then."""
        ends = [*(sight.at for sight in self.sights[1:]), time.time()]
        spans = [
            Span(sight.at, end) for sight, end in zip(self.sights, ends, strict=True) if sight.held
        ]
        return sum(span.shared_with(Span(since, time.time())) for span in spans)

    def load_seconds(self) -> float:
        """How long the engine last took to load the model; 0 if nobody tells."""
        path = f"pods/{self.live.name}-group-0:{AGENT_PORT}/proxy{STATUS}"
        told = self._ask(f"/api/v1/namespaces/{self.live.namespace}/{path}")
        return float((told or {}).get("loadSeconds") or 0.0)

    def look(self) -> None:
        """Once."""
        namespace, name = self.live.namespace, self.live.name
        pods = self._ask(
            f"/api/v1/namespaces/{namespace}/pods?labelSelector={CLUSTER_LABEL}%3D{name}"
        )
        kind = "apis/llamacluster.dev/v1alpha1"
        cluster = self._ask(f"/{kind}/namespaces/{namespace}/llamaclusters/{name}")
        of_cluster = None if self.operator_is_away else _is_ready(cluster)
        sight = Sight(
            time.time(), _leader_is_ready(pods, f"{name}-group-0"), of_cluster, _is_held(pods)
        )
        if not self.sights or replace(sight, at=self.sights[-1].at) != self.sights[-1]:
            self.sights.append(sight)

    def _ask(self, path: str) -> dict[str, Any] | None:
        """An object; empty if there is none, None if nobody tells."""
        try:
            with urllib.request.urlopen(self.api + path, timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            return {} if error.code == 404 else None
        except (OSError, ValueError, http.client.HTTPException):
            return None


def _leader_is_ready(pods: dict[str, Any] | None, name: str) -> bool | None:
    if pods is None:
        return None
    return any(pod["metadata"]["name"] == name and _is_ready(pod) for pod in pods.get("items", []))


def _is_held(pods: dict[str, Any] | None) -> bool:
    return any(
        container["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
        for pod in (pods or {}).get("items", [])
        for container in pod["status"].get("containerStatuses", [])
    )


def _is_ready(found: dict[str, Any] | None) -> bool | None:
    if found is None:
        return None
    if "deletionTimestamp" in found.get("metadata", {}):
        return False
    conditions = found.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


@contextlib.contextmanager
def watching(live: Live, image: str) -> Iterator[Witness]:
    """A witness, with clients that ask all the time."""
    with _api(live.cluster) as api:
        witness = Witness(live, api)
        done = Event()

        def look_again_and_again() -> None:
            while not done.wait(LOOK_SECONDS):
                witness.look()

        witness.look()
        Thread(target=look_again_and_again, daemon=True).start()
        with _load(witness, image):
            try:
                yield witness
            finally:
                done.set()


@contextlib.contextmanager
def _api(cluster: Cluster) -> Iterator[str]:
    process = subprocess.Popen(
        cluster.kubectl_command("proxy", "--port=0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the API server may be away
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:\d+", line)
        assert found, line
        yield f"http://{found[0]}"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _load(witness: Witness, image: str) -> Iterator[None]:
    """The clients' pod. Its output is read from its node: that needs no API server."""
    live, name = witness.live, f"load-{witness.live.name}"
    config_map = live.kubectl(
        *("create", "configmap", name, f"--from-file={CLIENT}", "--dry-run=client", "-o", "json")
    )
    live.kubectl("apply", "-f", "-", stdin=config_map)
    live.kubectl("apply", "-f", "-", stdin=json.dumps(_pod(live, name, image)))
    live.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
    pod = live.read("pod", name)
    file = f"/var/log/pods/{live.namespace}_{name}_{pod['metadata']['uid']}/clients/0.log"
    engine = docker.need_running()
    command = ["docker", "exec", pod["spec"]["nodeName"], "tail", "-n", "+1", "-F", file]

    def hear(line: str) -> None:
        # As the container runtime writes it: time, stream, whole or part, and the text.
        said = json.loads(line.split(" ", 3)[3])
        if said["kind"] != "oracle":
            witness.answers.append(Answer(**said))

    try:
        with listening_to(command, hear, env=engine.env):
            eventually(
                lambda: any(a.outcome == "done" for a in witness.answers), "clients are served"
            )
            yield
    finally:
        live.kubectl("delete", "pod", name, "--grace-period=0", "--force")


def _pod(live: Live, name: str, image: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            **ON_CONTROL_PLANE,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "clients",
                    "image": image,
                    "command": [
                        *("python3", "/clients/client.py"),
                        *("http://tiny-model/tiny.gguf", f"http://{live.name}:8080"),
                    ],
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "runAsNonRoot": True,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "volumeMounts": [{"name": "clients", "mountPath": "/clients"}],
                }
            ],
            "volumes": [{"name": "clients", "configMap": {"name": name}}],
        },
    }
