"""The Docker engine: the person's own where one answers, else one that we start as root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.kind import host
from tests.kind.command import CommandFailed, SetupError, run, succeeds, tail
from tests.kind.steps import step

RUNTIME_WRAPPER = Path(__file__).parent / "runtime" / "runc-without-sys-resource"
PACKAGES = {
    "docker.io": "dockerd",
    "iptables": "iptables",
    "iproute2": "ip",
    "jq": "jq",
    "ca-certificates": "update-ca-certificates",
}


@dataclass(frozen=True)
class Engine:
    """A Docker engine that answers. `own` is true for the one that we started."""

    address: str | None
    own: bool

    @property
    def env(self) -> dict[str, str]:
        """What a docker or kind command needs in its environment to find this engine."""
        env = {"DOCKER_HOST": self.address} if self.address else {}
        if not succeeds(["docker", "buildx", "version"], timeout=10):
            env["DOCKER_BUILDKIT"] = "0"
        return env

    def docker(self, *args: str, stdin: str | None = None, timeout: float | None = 600) -> str:
        """Standard output of a docker command."""
        env = {"DOCKER_HOST": self.address} if self.address else {}
        return run(["docker", *args], env=env, stdin=stdin, timeout=timeout)

    def has_image(self, image: str) -> bool:
        return self.image_id(image) is not None

    def image_id(self, image: str) -> str | None:
        """The engine's id of an image, None when it has none of that name."""
        try:
            return self.docker("image", "inspect", "--format", "{{.Id}}", image).strip()
        except CommandFailed:
            return None

    def pull(self, image: str, seconds: float) -> bool:
        """Whether the image could be pulled in that time."""
        try:
            self.docker("pull", "--quiet", image, timeout=seconds)
        except CommandFailed:
            return False
        return True

    def remove_container(self, name: str) -> None:
        """Remove a container with its volumes, if there is one of that name."""
        if self.docker("ps", "--all", "--quiet", "--filter", f"name=^{name}$").strip():
            self.docker("rm", "--force", "--volumes", name)

    @property
    def may_pull(self) -> bool:
        """Whether it is worth trying a container registry at all.

        LLAMACLUSTER_PULL=always or never decides. Else: a machine that came with a Docker engine
        has used it with a registry; on one where we had to start our own, all is built here.
        """
        wish = os.environ.get("LLAMACLUSTER_PULL", "")
        return wish == "always" or (wish != "never" and not self.own)


def socket() -> Path:
    return host.run_folder() / "docker.sock"


def pid_file() -> Path:
    return host.run_folder() / "docker.pid"


def data_root() -> Path:
    return host.cache() / "docker"


def exec_root() -> Path:
    return host.run_folder() / "docker"


def answers(address: str | None) -> bool:
    """Whether an engine answers at this address (None: wherever the docker command looks)."""
    env = {"DOCKER_HOST": address} if address else {}
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    return succeeds(command, env=env, timeout=20)


def running() -> Engine | None:
    """The engine that answers now; nothing is started."""
    ours = f"unix://{socket()}"
    asked_for = os.environ.get("DOCKER_HOST", ours)
    if os.environ.get("DOCKER_HOST") != ours and answers(None):
        return Engine(None, own=False)
    if asked_for != ours:
        return None  # never another engine than the one that was asked for
    if socket().exists() and answers(ours):
        return Engine(ours, own=True)
    return None


def need_running() -> Engine:
    """The engine that answers now, or an error that says how to get one."""
    engine = running()
    if engine is None:
        raise SetupError("No Docker engine answers. Start one, or run: python -m tests.kind up")
    return engine


def find_or_start() -> Engine:
    """The engine that answers, else our own, started from whatever a former run left."""
    engine = running()
    if engine:
        return engine
    address = os.environ.get("DOCKER_HOST", "")
    if address and address != f"unix://{socket()}":
        raise SetupError(
            f"DOCKER_HOST is {address}, and no Docker engine answers there. "
            "Start it, or unset DOCKER_HOST."
        )
    if not (host.is_root() and (host.is_debian() or host.find("dockerd"))):
        raise SetupError(
            "No Docker engine answers. Start Docker (docs.docker.com/get-docker), or run this as "
            "root on Debian, where an engine is installed and started for you."
        )
    with step("Docker engine: install", "run apt-get update by hand and read what it says") as now:
        host.install_packages(PACKAGES, now.log, now.doing)
    with step("Docker engine: start", "read the log; `python -m tests.kind down --all` cleans up"):
        host.save_sysctls()
        _clean_up_after_a_killed_engine()
        _start()
    return Engine(f"unix://{socket()}", own=True)


def daemon_settings() -> dict[str, object]:
    """Our dockerd's settings: nothing shared with an engine that the machine may get later."""
    settings: dict[str, object] = {
        "data-root": str(data_root()),
        "exec-root": str(exec_root()),
        "pidfile": str(pid_file()),
        "hosts": [f"unix://{socket()}"],
        "storage-driver": "overlay2",
        "log-driver": "json-file",
        "log-opts": {"max-size": "10m", "max-file": "2"},
    }
    if host.lacks_sys_resource():
        settings["runtimes"] = {"runc-without-sys-resource": {"path": str(_installed_wrapper())}}
        settings["default-runtime"] = "runc-without-sys-resource"
    return settings


def _installed_wrapper() -> Path:
    return host.cache() / "state" / RUNTIME_WRAPPER.name


def _start() -> None:
    for folder in (data_root(), exec_root()):
        folder.mkdir(parents=True, exist_ok=True)
    # A copy: the engine outlives a checkout that is moved or deleted.
    host.write_whole(_installed_wrapper(), RUNTIME_WRAPPER.read_text())
    _installed_wrapper().chmod(0o755)
    settings = host.cache() / "state" / "daemon.json"
    host.write_whole(settings, json.dumps(daemon_settings(), indent=2))
    log = host.cache() / "log" / "dockerd.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    dockerd = host.find("dockerd") or "dockerd"
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    with log.open("w") as out:
        process = subprocess.Popen(
            [dockerd, "--config-file", str(settings)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PATH": path},
            cwd="/",
            start_new_session=True,
        )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if socket().exists() and answers(f"unix://{socket()}"):
            return
        time.sleep(0.3)
    code = process.poll()
    if code is None:
        process.terminate()
    raise CommandFailed([dockerd], code, tail(log.read_text(errors="replace")), log)


def _clean_up_after_a_killed_engine() -> None:
    """Make a half state startable: its processes may be gone while files and mounts remain."""
    if host.pid_runs(pid_file(), "dockerd"):
        # It runs but does not answer.
        stop()
    else:
        pid_file().unlink(missing_ok=True)
    socket().unlink(missing_ok=True)
    containerd = exec_root() / "containerd"
    if not host.pid_runs(containerd / "containerd.pid", "containerd"):
        (containerd / "containerd.pid").unlink(missing_ok=True)
        for left in containerd.glob("*.sock*"):
            left.unlink()
        host.unmount_below(exec_root())
        host.unmount_below(data_root())
    if not _another_dockerd():
        # The new engine gives its networks the same names and subnets again.
        host.remove_bridges(host.bridges())


def _another_dockerd() -> bool:
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return any(host.program_of(pid) == "dockerd" for pid in pids)


def stop() -> bool:
    """Stop the engine that we started, and only that. False when none runs."""
    pid = host.pid_runs(pid_file(), "dockerd")
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while host.program_of(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    if host.program_of(pid):
        os.kill(pid, signal.SIGKILL)
    pid_file().unlink(missing_ok=True)
    return True


def forget() -> None:
    """Remove what our stopped engine leaves on the machine; its data stays as a cache."""
    if not host.is_root() or pid_file().exists():
        return
    host.unmount_below(exec_root())
    host.unmount_below(data_root())
    if not _another_dockerd():
        host.remove_bridges(host.bridges())
