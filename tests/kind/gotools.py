"""Programs built with Go from pinned modules: for this machine and for the node image."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.kind import host
from tests.kind.command import CommandFailed, SetupError, run
from tests.kind.contenthash import content_key
from tests.kind.steps import step

HERE = Path(__file__).parent / "go"
LEAST_GO = (1, 21)  # from here on Go fetches by itself the newer release that a module asks for

KUBERNETES_VERSION = "v1.36.3"
LWS_VERSION = "v0.9.0"

LINKER_FLAGS = " ".join(
    [
        "-s -w",
        *(
            f"-X k8s.io/component-base/version.{name}={value}"
            for name, value in {
                "gitVersion": KUBERNETES_VERSION,
                "gitMajor": KUBERNETES_VERSION.split(".")[0].removeprefix("v"),
                "gitMinor": KUBERNETES_VERSION.split(".")[1],
                "gitTreeState": "clean",
                "gitCommit": "unknown",
                "buildDate": "1970-01-01T00:00:00Z",
            }.items()
        ),
    ]
)


@dataclass(frozen=True)
class Module:
    """A folder with a go.mod, and the programs (name -> package) that it pins."""

    name: str
    programs: Mapping[str, str]
    tags: str = ""
    """Of Go's build."""

    @property
    def folder(self) -> Path:
        return HERE / self.name

    @property
    def key(self) -> str:
        """Changes with any pinned version, flag or source of ours, and with the machine's kind."""
        flags = [LINKER_FLAGS, os.uname().machine, *([self.tags] if self.tags else [])]
        return content_key(*flags, files=[self.folder], root=HERE)


KUBERNETES = Module(
    "kubernetes",
    {
        "kind": "sigs.k8s.io/kind",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
        "helm": "helm.sh/helm/v3/cmd/helm",
        "kubeadm": "k8s.io/kubernetes/cmd/kubeadm",
        "kubelet": "k8s.io/kubernetes/cmd/kubelet",
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
        "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
        "etcd": "go.etcd.io/etcd/server/v3",
        "coredns": "./coredns",
        "lws-manager": "sigs.k8s.io/lws/cmd",
        "local-path-provisioner": "github.com/rancher/local-path-provisioner",
    },
)
NETWORK = Module(
    "network", {"kube-router": "github.com/cloudnativelabs/kube-router/cmd/kube-router"}
)
# Without its ways to find what to scrape, which are most of it.
PROMETHEUS = Module(
    "prometheus",
    {"promtool": "github.com/prometheus/prometheus/cmd/promtool"},
    tags="remove_all_sd",
)
PROMETHEUS_SERVER = Module(
    "prometheus",
    {"prometheus": "github.com/prometheus/prometheus/cmd/prometheus"},
    tags="remove_all_sd,enable_kubernetes_sd",
)
PROMETHEUS_ADAPTER = Module(
    "prometheus-adapter", {"adapter": "sigs.k8s.io/prometheus-adapter/cmd/adapter"}
)

# What `go build` calls a program: the last part of its package, without a version.
BUILT_AS = {"etcd": "server", "lws-manager": "cmd"}
# Imports a library under a spelling (Sirupsen) that Go does not allow beside today's (sirupsen).
BUILT_ALONE = frozenset({"local-path-provisioner"})


def go_version() -> tuple[int, int] | None:
    """Version of the Go on this machine, None when there is none."""
    try:
        found = re.search(r"go(\d+)\.(\d+)", run(["go", "version"], timeout=60))
    except CommandFailed:
        return None
    return (int(found[1]), int(found[2])) if found else None


def can_build() -> bool:
    version = go_version()
    return version is not None and version >= LEAST_GO


def programs(module: Module, names: Iterable[str]) -> dict[str, Path]:
    """Paths of a module's programs, built now if they are not in the cache.

    Raises SetupError where there is no Go that could build them.
    """
    folder = host.cache() / "go" / f"{module.name}-{module.key}"
    wanted = {name: folder / name for name in names}
    missing = [name for name, path in wanted.items() if not path.exists()]
    if not missing:
        return wanted
    if not can_build():
        raise SetupError(
            f"{', '.join(missing)} must be built, for which Go {LEAST_GO[0]}.{LEAST_GO[1]} or "
            "newer is needed. Install Go (go.dev/doc/install)."
        )
    part = folder / f"part-{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    title = f"Go: build {', '.join(missing)}"
    if len(missing) > 3:
        title = f"Go: build {len(missing)} programs of {module.name}"
    with step(title, "look whether the Go module proxy can be reached, then run this again") as now:
        together = [name for name in missing if name not in BUILT_ALONE]
        for group in (together, *([name] for name in missing if name in BUILT_ALONE)):
            if group:
                now.run(
                    [
                        *("go", "build", "-v", "-trimpath", "-buildvcs=false"),
                        # What the linker leaves out need not be compiled: a fifth of the work.
                        *("-gcflags", "all=-dwarf=false", "-ldflags", LINKER_FLAGS),
                        *(["-tags", module.tags] if module.tags else []),
                        *("-o", f"{part}/"),
                        *(module.programs[name] for name in group),
                    ],
                    env={"CGO_ENABLED": "0"},
                    cwd=module.folder,
                )
        for name in missing:
            (part / BUILT_AS.get(name, name)).rename(folder / name)
        part.rmdir()
    return wanted


def module_folder(path: str, version: str) -> Path:
    """Where Go keeps the files of a module at a version."""
    text = run(["go", "mod", "download", "-json", f"{path}@{version}"], cwd=HERE, timeout=600)
    return Path(str(json.loads(text)["Dir"]))


def copy_folder(source: Path, target: Path) -> Path:
    """Copy a folder of a module to `target`, writable: Go keeps its modules read-only."""
    shutil.copytree(source, target)
    for path in [target, *target.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200)
    return target
