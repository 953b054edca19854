"""This machine: where caches live, what it is, its packages, its sysctls, one run at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.kind.command import SetupError, run, run_logged, succeeds

REPOSITORY = Path(__file__).resolve().parents[2]

# What the kubelet, kube-proxy, dockerd and we ourselves change for the whole machine.
CLUSTER_SYSCTLS = (
    "kernel.panic",
    "kernel.panic_on_oops",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
)
ENGINE_SYSCTLS = (
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.default.forwarding",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
)
# Four nodes with some dozens of pods each watch more files than most machines allow.
LEAST_SYSCTLS = {"fs.inotify.max_user_instances": 1024, "fs.inotify.max_user_watches": 524288}

CAP_SYS_RESOURCE = 24


def cache() -> Path:
    """Folder of all that we keep between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llamacluster"


def run_folder() -> Path:
    """Folder of sockets and pid files of the Docker engine that we start as root."""
    return Path("/run/llamacluster")


def is_root() -> bool:
    return os.geteuid() == 0


def is_debian(os_release: Path = Path("/etc/os-release")) -> bool:
    """Whether Debian's packages can be installed here."""
    try:
        text = os_release.read_text()
    except OSError:
        return False
    ids = {line.partition("=")[2].strip('"') for line in text.splitlines() if line[:3] == "ID="}
    return "debian" in ids and shutil.which("apt-get") is not None


def lacks_capability(capability: int, status: str) -> bool:
    """Whether a capability is outside the bounding set in the text of a /proc/PID/status."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "CapBnd":
            return not int(value, 16) >> capability & 1
    return False


def lacks_sys_resource() -> bool:
    """Whether containers on this machine cannot be given CAP_SYS_RESOURCE."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    return lacks_capability(CAP_SYS_RESOURCE, status)


def pid_runs(pid_file: Path, program: str) -> int | None:
    """The pid in a file, if a live process with this program name has it now."""
    try:
        pid = int(pid_file.read_text().strip())
    except (OSError, ValueError):
        return None
    return pid if program_of(pid) == program[:15] else None


def program_of(pid: int) -> str | None:
    """Name (15 characters at most) of a live process; a zombie, which nobody collects, is none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return None if fields.get("State", "Z").startswith("Z") else fields.get("Name")


# Packages


def install_packages(
    packages: Mapping[str, str], log: Path, on_line: Callable[[str], None] | None = None
) -> None:
    """Install the Debian packages whose program (package -> program) is not on this machine."""
    missing = sorted(package for package, program in packages.items() if not find(program))
    if not missing:
        return
    if not (is_debian() and is_root()):
        raise SetupError(
            f"These programs are missing: {', '.join(packages[name] for name in missing)}. "
            f"Install them (Debian's packages: {' '.join(missing)}) and run this again."
        )
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300"]
    # An earlier run may have been interrupted half-way.
    run_logged(["dpkg", "--configure", "-a"], log, env=env, on_line=on_line)
    run_logged([*apt, "update"], log, env=env, on_line=on_line)
    run_logged(
        [*apt, "install", "-y", "--no-install-recommends", *missing], log, env=env, on_line=on_line
    )


def find(program: str) -> str | None:
    """Path of a program, also where a person's PATH leaves the sbin folders out."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(program, path=f"{path}:/usr/local/sbin:/usr/sbin:/sbin")


# Sysctls


def sysctl_path(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")


def read_sysctls(names: Sequence[str]) -> dict[str, str]:
    """Values of those sysctls that exist here."""
    values = {}
    for name in names:
        with contextlib.suppress(OSError):
            values[name] = sysctl_path(name).read_text().strip()
    return values


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _saved_sysctls() -> Path:
    return cache() / "state" / "sysctls.json"


def save_sysctls() -> None:
    """Remember the machine's values, unless a run before us in this boot did."""
    if not is_root():
        return
    if _load_saved():
        return
    write_whole(
        _saved_sysctls(),
        json.dumps(
            {"boot": boot_id(), "values": read_sysctls((*CLUSTER_SYSCTLS, *ENGINE_SYSCTLS))},
            indent=2,
        ),
    )


def _load_saved() -> dict[str, str]:
    try:
        saved = json.loads(_saved_sysctls().read_text())
    except (OSError, ValueError):
        return {}
    return dict(saved["values"]) if saved.get("boot") == boot_id() else {}


def raise_inotify_limits() -> None:
    """Room for the watches of four nodes; a hint where we may not change it."""
    for name, least in LEAST_SYSCTLS.items():
        now = read_sysctls([name]).get(name)
        if now is None or int(now) >= least:
            continue
        try:
            sysctl_path(name).write_text(str(least))
        except OSError:
            print(
                f"Note: {name} is {now}; if pods fail with 'too many open files', run: "
                f"sudo sysctl {name}={least}",
                file=sys.stderr,
            )


def restore_sysctls(*, engine: bool) -> None:
    """Give the machine its own values back; those a Docker engine needs only with `engine`."""
    saved = _load_saved()
    for name, value in saved.items():
        if name in ENGINE_SYSCTLS and not engine:
            continue
        if read_sysctls([name]).get(name, value) != value:
            with contextlib.suppress(OSError):
                sysctl_path(name).write_text(value)
    if engine:
        _saved_sysctls().unlink(missing_ok=True)


# Files and bridges


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new text, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)


def mounts_below(folder: Path, mountinfo: str) -> list[str]:
    """Mount points at or below a folder, deepest first."""
    points = [line.split()[4] for line in mountinfo.splitlines() if line]
    prefix = str(folder)
    return sorted(
        {point for point in points if point == prefix or point.startswith(prefix + "/")},
        key=lambda point: (-point.count("/"), point),
    )


def unmount_below(folder: Path) -> None:
    """Detach whatever a killed Docker engine left mounted below its folders."""
    for point in mounts_below(folder, Path("/proc/self/mountinfo").read_text()):
        succeeds(["umount", "--lazy", point])


def bridges() -> list[str]:
    """Names of bridges that a Docker engine made."""
    names = []
    for link in Path("/sys/class/net").iterdir():
        name = link.name
        is_network = len(name) == 15 and name.startswith("br-") and name[3:].isalnum()
        if (link / "bridge").is_dir() and (name == "docker0" or is_network):
            names.append(name)
    return sorted(names)


def remove_bridges(names: Sequence[str]) -> None:
    for name in names:
        run(["ip", "link", "delete", name, "type", "bridge"])


# One run at a time

_held = threading.local()


@contextlib.contextmanager
def only_run(what: str) -> Iterator[None]:
    """Hold the machine's lock; wait for another run that holds it, and say so.

    A run that already holds it goes straight through. The kernel lets go of the lock when the
    holder ends in whatever way.
    """
    depth: int = getattr(_held, "depth", 0)
    if depth:
        _held.depth = depth + 1
        try:
            yield
        finally:
            _held.depth -= 1
        return
    path = cache() / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        _wait_for(lock.fileno(), path)
        lock.seek(0)
        lock.truncate()
        lock.write(f"{what} (pid {os.getpid()})")
        lock.flush()
        _held.depth = 1
        try:
            yield
        finally:
            _held.depth = 0
            lock.seek(0)
            lock.truncate()
            lock.flush()


@contextlib.contextmanager
def mark(folder: Path) -> Iterator[None]:
    """A file of this process in a folder, which stays there if this does not end as it should."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / str(os.getpid())
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # the kernel lets go of it when the process ends
        yield
        path.unlink()


def marks(folder: Path) -> dict[Path, bool]:
    """The files that `mark` made in a folder, and whether the process of each is alive."""
    alive = {}
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError), path.open() as held:  # it may end just now
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                alive[path] = True
            else:
                alive[path] = False
    return alive


def _wait_for(descriptor: int, path: Path) -> None:
    told = 0.0
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() - told > 60:
                holder = path.read_text().strip() or "another run"
                print(f"Waiting: {holder} is at work on this machine's clusters.", file=sys.stderr)
                told = time.monotonic()
            time.sleep(0.5)
        else:
            return
