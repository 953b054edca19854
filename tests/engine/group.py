"""A group in containers of the engine image, locked down like its pods: no root, no capability, a
read-only root file system, limits, names from the DNS."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from llamacluster.agent.contract.messages import LeaderStatus, Plan, WorkerStatus
from llamacluster.agent.contract.options import (
    GateOptions,
    LeaderOptions,
    PlanOptions,
    TunnelOptions,
    WorkerOptions,
    gate_args,
    leader_args,
    plan_args,
    tunnel_args,
    worker_args,
)
from llamacluster.agent.contract.places import (
    AGENT_PORT,
    AGENT_UID,
    GATE_DIR,
    LEADER_ADDRESS_ENV,
    PROBE_PORT,
    RPC_TLS_DIR,
    SCRATCH_DIR,
    STATUS,
    TUNNELLED_AGENT_PORT,
)
from llamacluster.api.quantity import to_bytes
from llamacluster.resources.leaderpod import GATE_MEMORY, GATE_MEMORY_WITH_TLS
from tests.kind.docker import Engine

T = TypeVar("T")
GENEROUS = 60.0
DOMAIN = "x.ns"
LOCKED_DOWN = (
    *("--user", f"{AGENT_UID}:{AGENT_UID}", "--cap-drop", "ALL", "--read-only"),
    *("--security-opt", "no-new-privileges"),
    *("--tmpfs", "/models:mode=1777"),
)
OWN_TMP = ("--tmpfs", f"{SCRATCH_DIR}:mode=1777")


def eventually(look: Callable[[], T | None], seconds: float = GENEROUS) -> T:
    """What `look` returns once it is true; an assertion with its last answer if it never is."""
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s, last answer: {answer!r}"
        time.sleep(0.05)  # between two looks at a condition
    return answer


@dataclass
class Container:
    """One pod."""

    engine: Engine
    id: str
    published: dict[int, str] = field(default_factory=dict)
    """Docker's ports by the container's, until one does not answer: it has others after a restart.
    To ask Docker before each look costs more than all that is looked at."""

    def url(self, port: int) -> str:
        if port not in self.published:
            address = self.engine.docker("port", self.id, str(port)).split()[0]
            self.published[port] = address.rpartition(":")[2]
        return f"http://127.0.0.1:{self.published[port]}"

    def get(self, path: str, port: int = AGENT_PORT) -> tuple[int, str]:
        return self._ask(port, urllib.request.Request(self.url(port) + path))

    def post(self, path: str, body: object, port: int = AGENT_PORT) -> tuple[int, str]:
        content, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        return self._ask(port, urllib.request.Request(self.url(port) + path, content, headers))

    def _ask(self, port: int, request: urllib.request.Request) -> tuple[int, str]:
        """Status and body; OSError where there is no answer."""
        try:
            with urllib.request.urlopen(request, timeout=GENEROUS) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            self.published.pop(port, None)
            raise

    def run_python(self, code: str) -> str:
        return self.engine.docker("exec", self.id, "python3", "-c", code)

    def kill_processes(self, name: str, signum: signal.Signals = signal.SIGKILL) -> None:
        """A signal for all processes of that name."""
        self.run_python(
            "import os, pathlib\n"
            "for comm in pathlib.Path('/proc').glob('[0-9]*/comm'):\n"
            f"    if comm.read_text().strip() == {name[:15]!r}:\n"
            f"        os.kill(int(comm.parent.name), {signum.value})\n"
        )

    def terminate(self) -> tuple[float, int]:
        """SIGTERM, as the kubelet sends it; seconds until the end, and the exit code."""
        began = time.monotonic()
        self.signal("TERM")
        code = self.wait()
        return time.monotonic() - began, code

    def signal(self, name: str) -> None:
        self.engine.docker("kill", "--signal", name, self.id)

    def wait(self) -> int:
        """Waits for its end; the exit code."""
        return int(self.engine.docker("wait", self.id))

    def is_running(self) -> bool:
        shown = self.engine.docker("inspect", "--format", "{{.State.Running}}", self.id)
        return shown.strip() == "true"

    def log(self) -> str:
        return self.engine.docker("logs", self.id)


@dataclass
class Group:
    """Starts pods by the names that LeaderWorkerSet would give them, and removes them. Gate and
    tunnels are containers in the network of another, as in their pods. With `tls`, a folder as a
    Secret's volume, the group is encrypted."""

    engine: Engine
    image: str
    models: Path
    tls: Path | None = None
    leaf_delay_seconds: int = 300
    name: str = "x-0"
    network: str = field(default_factory=lambda: f"llamacluster-{uuid.uuid4().hex[:8]}")
    pods: dict[str, Container] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine.docker("network", "create", self.network)

    @property
    def _shared_tmp(self) -> tuple[str, ...]:
        """The pod's SCRATCH_DIR, which leader and gate have in common."""
        return ("--volume", f"{self.network}:{SCRATCH_DIR}")

    def remove(self) -> None:
        if self.pods:
            ids = [pod.id for pod in self.pods.values()]
            self.engine.docker("rm", "--force", "--volumes", *ids)
        self.engine.docker("network", "rm", self.network)
        self.engine.docker("volume", "rm", "--force", self.network)

    def start_worker(self, index: int, *docker_args: str, grace_seconds: int = 300) -> Container:
        options = WorkerOptions(grace_seconds=grace_seconds, encrypted=self.tls is not None)
        port = PROBE_PORT if self.tls else AGENT_PORT
        name = f"{self.name}-{index}"
        worker = self._start(name, worker_args(options), [port], docker_args)
        self._start_tunnel(name, TunnelOptions(grace_seconds=grace_seconds))
        return worker

    def plan(self, options: PlanOptions) -> Plan:
        """What the planner says; its container is gone then."""
        printed = self.engine.docker(
            *("run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp:mode=1777"),
            *("--user", f"{AGENT_UID}:{AGENT_UID}", "--cap-drop", "ALL"),
            *("--volume", f"{self.models}:/test-models:ro", "--cpus", "1", "--memory", "1g"),
            *(self.image, *plan_args(options)),
        )
        plan: Plan = json.loads(printed.splitlines()[-1])
        return plan

    def start_leader(
        self,
        options: LeaderOptions,
        *docker_args: str,
        gate: GateOptions | None = None,
        gate_args_of_docker: Sequence[str] = (),
    ) -> Container:
        options = replace(options, encrypted=self.tls is not None)
        ports = [AGENT_PORT, options.server_port]
        leader = self._start(
            self.name, leader_args(options), ports, (*self._shared_tmp, *docker_args)
        )
        gate = gate or GateOptions(
            options.parallel, options.context_size, grace_seconds=options.grace_seconds
        )
        memory = GATE_MEMORY_WITH_TLS if gate.tls_secret else GATE_MEMORY
        self._start_beside(
            self.name,
            "gate",
            gate_args(gate),
            (
                # runc keeps owner, but not mode, of a folder that the image does not have when
                # the container is started again.
                *("--tmpfs", f"{GATE_DIR}:mode=1777,uid={AGENT_UID}", "--cpus", "1"),
                *("--memory", f"{to_bytes(memory)}b"),
                *self._shared_tmp,
                *gate_args_of_docker,
            ),
        )
        self._start_tunnel(
            self.name, TunnelOptions(len(options.layers), grace_seconds=options.grace_seconds)
        )
        return leader

    def _start_tunnel(self, pod: str, options: TunnelOptions) -> None:
        if self.tls:
            options = replace(options, leaf_delay_seconds=self.leaf_delay_seconds)
            volume = ("--volume", f"{self.tls}:{RPC_TLS_DIR}:ro")
            self._start_beside(pod, f"tunnel of {pod}", tunnel_args(options), volume)

    def _start_beside(
        self, pod: str, name: str, args: list[str], docker_args: tuple[str, ...] = ()
    ) -> None:
        """A further container of a pod."""
        identity = self.engine.docker(
            *("run", "--detach", "--network", f"container:{self.pods[pod].id}"),
            *(() if self._shared_tmp[1] in docker_args else OWN_TMP),
            *LOCKED_DOWN,
            *("--env", f"{LEADER_ADDRESS_ENV}={self.name}.{DOMAIN}"),
            *("--memory", "128m"),
            *docker_args,
            self.image,
            *args,
        ).strip()
        self.pods[name] = Container(self.engine, identity)

    def start_plain_server(self, *args: str) -> Container:
        """llama-server alone, without agents."""
        return self._start(
            "plain",
            [*args, "--host", "0.0.0.0", "--port", "8080"],
            [8080],
            ("--entrypoint", "llama-server"),
        )

    def _start(
        self, name: str, args: list[str], ports: list[int], docker_args: tuple[str, ...]
    ) -> Container:
        identity = self.engine.docker(
            *("run", "--detach", "--network", self.network),
            *(() if self._shared_tmp[1] in docker_args else OWN_TMP),
            *("--hostname", name, "--network-alias", f"{name}.{DOMAIN}"),
            *("--env", f"{LEADER_ADDRESS_ENV}={self.name}.{DOMAIN}"),
            *LOCKED_DOWN,
            *("--volume", f"{self.models}:/test-models:ro"),
            *("--cpus", "1", "--memory", "512m"),
            *(word for port in ports for word in ("--publish", f"127.0.0.1::{port}")),
            *docker_args,
            self.image,
            *args,
        ).strip()
        self.pods[name] = Container(self.engine, identity)
        return self.pods[name]

    @property
    def leader(self) -> Container:
        return self.pods[self.name]

    def tunnel(self, pod: str) -> Container:
        return self.pods[f"tunnel of {pod}"]

    @property
    def gate(self) -> Container:
        return self.pods["gate"]

    def worker(self, index: int) -> Container:
        return self.pods[f"{self.name}-{index}"]

    def status(self) -> LeaderStatus:
        code, body = self.leader.get(STATUS)
        assert code == 200
        status: LeaderStatus = json.loads(body)
        return status

    def terminate(self, seconds: float = GENEROUS) -> dict[str, float]:
        """SIGTERM to all at once, as when the group is deleted; how many seconds each took to
        end."""
        began = time.monotonic()
        self.engine.docker("kill", "--signal", "TERM", *(pod.id for pod in self.pods.values()))
        return self.ends(began, seconds)

    def ends(self, began: float, seconds: float = GENEROUS) -> dict[str, float]:
        """When each pod ended, in seconds since `began`."""
        ended: dict[str, float] = {}

        def all_ended() -> bool:
            left = {name: pod.id for name, pod in self.pods.items() if name not in ended}
            state = ("inspect", "--format", "{{.State.Running}}")
            running = self.engine.docker(*state, *left.values()).split()
            for name, runs in zip(left, running, strict=True):
                if runs != "true":
                    ended[name] = time.monotonic() - began
            return ended.keys() == self.pods.keys()

        eventually(all_ended, seconds)
        return ended

    def worker_status(self, index: int) -> WorkerStatus:
        worker = self.worker(index)
        if self.tls:
            url = f"http://127.0.0.1:{TUNNELLED_AGENT_PORT}{STATUS}"
            code, body = (
                200,
                worker.run_python(
                    f"from urllib.request import urlopen; print(urlopen('{url}').read().decode())"
                ),
            )
        else:
            code, body = worker.get(STATUS)
        assert code == 200
        status: WorkerStatus = json.loads(body)
        return status

    def until(self, reason: str, formations: int = 0, seconds: float = GENEROUS) -> LeaderStatus:
        """The status once its reason is this one, and the group has formed that often."""

        def look() -> LeaderStatus | None:
            try:
                status = self.status()
            except (OSError, AssertionError):
                return None
            right = status["reason"] == reason and status["formations"] >= formations
            return status if right else None

        try:
            return eventually(look, seconds)
        except AssertionError as error:
            raise AssertionError(f"never {reason}:\n{self.leader.log()[-8000:]}") from error

    def ask(self, path: str, body: object) -> Any:
        code, answer = self.leader.post(path, body, 8080)
        assert code == 200, answer
        return json.loads(answer)
