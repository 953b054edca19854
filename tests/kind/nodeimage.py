"""The image that kind's nodes run: pulled where that can be, else built here.

Built: Debian packages, Kubernetes and its companions from Go modules, and the images that a new
cluster needs, preloaded. No container registry is asked for anything.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.kind import debianroot, gotools, host
from tests.kind.command import CommandFailed, SetupError
from tests.kind.contenthash import content_key
from tests.kind.docker import Engine
from tests.kind.imagearchive import Image, write
from tests.kind.steps import Step, step

# From the notes of the kind release that gotools builds.
PULLED = (
    "kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed"
)
SECONDS_TO_PULL = 600.0

SUITE = "bookworm"  # newer systemd refuses cgroup v1
TOOLS_PACKAGES = ("conntrack", "ipset", "iproute2", "iptables", "kmod", "nftables", "procps")
NODE_PACKAGES = (
    *TOOLS_PACKAGES,
    *("systemd", "systemd-sysv", "mount", "util-linux", "e2fsprogs"),
    *("containerd", "runc", "containernetworking-plugins", "libseccomp2", "ethtool", "socat"),
    *("bash", "ca-certificates", "curl", "jq", "pigz"),
)

# As `kubeadm config images list` names them, and as the manifests beside this file do.
KUBERNETES = gotools.KUBERNETES_VERSION
REGISTRY = "registry.k8s.io"
PAUSE = f"{REGISTRY}/pause:3.10.2"
LWS = f"{REGISTRY}/lws/lws:{gotools.LWS_VERSION}"
OURS = "localhost/llamacluster"
TOOLS = f"{OURS}/tools:{SUITE}"

CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE_PROGRAMS = ("kubeadm", "kubelet", "kubectl")
IMAGE_PROGRAMS = (
    *CONTROL_PLANE,
    "kube-proxy",
    "etcd",
    "coredns",
    "lws-manager",
    "local-path-provisioner",
)

HERE = Path(__file__).parent
FOLDER = HERE / "node"
PACKAGES = debianroot.PACKAGES | {"gcc": "cc", "libc6-dev": "cc", "jq": "jq"}


def node_image(engine: Engine) -> str:
    """Name of an image for kind's --image that this engine has, got in the cheapest way."""
    built = built_name()
    for name in (built, PULLED):
        if engine.has_image(name):
            return name
    if engine.may_pull:
        with step(f"Node image: pull {PULLED.partition('@')[0]}") as now:
            if engine.pull(PULLED, SECONDS_TO_PULL):
                return PULLED
            now.note = "cannot be pulled here; it is built instead"
    if not (host.is_debian() and host.is_root()):
        raise SetupError(
            f"The node image {PULLED} can neither be pulled nor built: building needs Debian and "
            "root. Look whether `docker pull` works, or load the image by hand."
        )
    build(engine, built)
    return built


def built_name() -> str:
    """The name of the image that we build; it changes with whatever goes in."""
    key = content_key(
        gotools.KUBERNETES.key,
        gotools.NETWORK.key,
        f"lacks sys_resource: {host.lacks_sys_resource()}",
        files=[FOLDER, HERE / "nodeimage.py", HERE / "imagearchive.py", HERE / "debianroot.py"],
        root=HERE,
    )
    return f"localhost/kind-node:{KUBERNETES}-{key}"


def build(engine: Engine, name: str) -> None:
    """Build the node image under this name."""
    with step("Node image: Debian packages for the build") as now:
        host.install_packages(PACKAGES, now.log, now.doing)
    programs = gotools.programs(gotools.KUBERNETES, (*NODE_PROGRAMS, *IMAGE_PROGRAMS))
    programs |= gotools.programs(gotools.NETWORK, gotools.NETWORK.programs)
    with step("Node image: Debian roots") as now:
        node_root = debianroot.root_tar(SUITE, NODE_PACKAGES, now)
        tools_root = debianroot.root_tar(SUITE, TOOLS_PACKAGES, now)
    work = host.cache() / "build"
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work, prefix="node-") as folder:
        with step("Node image: system images") as now:
            programs["pause"] = _pause(Path(folder), now)
            archive = Path(folder) / "images.tar"
            write(system_images(programs, tools_root), archive)
        with step("Node image: base") as now:
            base = _base(engine, node_root, Path(folder), now)
        with step("Node image: put together") as now:
            _commit(engine, base, name, programs, archive, now)
            _remove_older(engine, name)


def system_images(programs: Mapping[str, Path], tools_root: Path) -> list[Image]:
    """What a new cluster runs, under the names that its manifests ask for."""

    def one(name: str, program: str, path: str, *, user: str = "", tools: bool = False) -> Image:
        return Image(
            name,
            {path: programs[program]},
            root=tools_root if tools else None,
            entrypoint=[path],
            user=user,
        )

    return [
        *(
            one(f"{REGISTRY}/{program}:{KUBERNETES}", program, f"/usr/local/bin/{program}")
            for program in CONTROL_PLANE
        ),
        one(
            f"{REGISTRY}/kube-proxy:{KUBERNETES}",
            "kube-proxy",
            "/usr/local/bin/kube-proxy",
            tools=True,
        ),
        one(f"{REGISTRY}/etcd:3.6.8-0", "etcd", "/usr/local/bin/etcd"),
        one(f"{REGISTRY}/coredns/coredns:v1.14.2", "coredns", "/coredns"),
        one(PAUSE, "pause", "/pause", user="65535:65535"),
        one(LWS, "lws-manager", "/manager", user="65532:65532"),
        one(f"{OURS}/kube-router:v1.6.1", "kube-router", "/usr/local/bin/kube-router", tools=True),
        one(
            f"{OURS}/local-path-provisioner:v0.0.30",
            "local-path-provisioner",
            "/usr/local/bin/local-path-provisioner",
        ),
        Image(TOOLS, {}, root=tools_root),
    ]


def _pause(folder: Path, now: Step) -> Path:
    """The pause program, compiled from the Kubernetes module's own source."""
    kubernetes = gotools.module_folder("k8s.io/kubernetes", KUBERNETES)
    target = folder / "pause"
    source = kubernetes / "build" / "pause" / "linux" / "pause.c"
    version = PAUSE.rpartition(":")[2]
    flags = ["-Os", "-Wall", "-static", f"-DVERSION=v{version}"]
    now.run(["cc", *flags, "-o", str(target), str(source)])
    return target


def _base(engine: Engine, root: Path, folder: Path, now: Step) -> str:
    """The node's root with kind's files and ours; Docker's layer cache makes it quick."""
    root_image = f"{OURS}/node-root:{root.stem}"
    if not engine.has_image(root_image):
        now.run(["docker", "import", str(root), root_image], env=engine.env, show=False)
    context = folder / "context"
    kind = gotools.module_folder("sigs.k8s.io/kind", "v0.33.0")
    gotools.copy_folder(kind / "images" / "base" / "files", context / "files")
    shutil.copytree(FOLDER / "files", context / "ours")
    shutil.copyfile(FOLDER / "Dockerfile", context / "Dockerfile")
    containerd = context / "files" / "etc" / "containerd" / "config.toml"
    containerd.write_text(containerd_settings(containerd.read_text(), host.lacks_sys_resource()))
    sbin = context / "ours" / "usr" / "local" / "sbin"
    sbin.mkdir(parents=True, exist_ok=True)
    if host.lacks_sys_resource():
        shutil.copy(HERE / "runtime" / "runc-without-sys-resource", sbin / "runc")
    else:
        (sbin / "runc").symlink_to("/usr/sbin/runc")
    base = f"{OURS}/node-base:{SUITE}"
    now.run(
        ["docker", "build", "--build-arg", f"ROOT={root_image}", "-t", base, str(context)],
        env=engine.env,
    )
    return base


def containerd_settings(text: str, lacks_sys_resource: bool) -> str:
    """kind's settings for containerd, with our pause image.

    Without CAP_SYS_RESOURCE nobody may lower a process's OOM score.
    """
    lines = []
    for line in text.splitlines():
        key = line.partition("=")[0].strip()
        if key == "sandbox_image":
            line = f'  sandbox_image = "{PAUSE}"'
        if key == "restrict_oom_score_adj" and lacks_sys_resource:
            line = "  restrict_oom_score_adj = true"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _commit(
    engine: Engine, base: str, name: str, programs: Mapping[str, Path], archive: Path, now: Step
) -> None:
    """Put programs, manifests and preloaded images into a container and make it an image."""
    container = "llamacluster-node-build"
    engine.remove_container(container)
    try:
        now.doing("starting a container to fill")
        run_args = ("--detach", "--privileged", "--entrypoint=sleep", f"--name={container}")
        engine.docker("run", *run_args, base, "infinity")
        for program in NODE_PROGRAMS:
            now.doing(f"copying {program}")
            engine.docker("cp", str(programs[program]), f"{container}:/usr/bin/{program}")
        inside = ("exec", container)
        engine.docker(*inside, "mkdir", "-p", "/kind/manifests", "/var/lib/containerd")
        for manifest in sorted((FOLDER / "manifests").iterdir()):
            engine.docker("cp", str(manifest), f"{container}:/kind/manifests/{manifest.name}")
        engine.docker(
            *("exec", "-i", container, "cp", "/dev/stdin", "/kind/version"), stdin=KUBERNETES
        )
        asked = f"--kubernetes-version={KUBERNETES}"
        _check_names(engine.docker(*inside, "kubeadm", "config", "images", "list", asked), programs)
        now.doing("preloading the system images")
        engine.docker("exec", "--detach", container, "containerd")
        _wait_for_containerd(engine, container)
        engine.docker("cp", str(archive), f"{container}:/images.tar")
        # Unpacked when a node first runs them: an overlay cannot be unpacked on an overlay.
        ctr_import = ("ctr", "--namespace=k8s.io", "images", "import", "--no-unpack")
        engine.docker(*inside, *ctr_import, "/images.tar")
        engine.docker(*inside, "rm", "/images.tar")
        engine.docker(*inside, "pkill", "--exact", "containerd")
        engine.docker(*inside, "sh", "-c", "while pgrep --exact containerd; do sleep 0.1; done")
        now.doing("committing the image")
        entrypoint = 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]'
        engine.docker("commit", "--change", entrypoint, container, name)
    finally:
        engine.remove_container(container)


def _remove_older(engine: Engine, name: str) -> None:
    """Free the disk of node images that were built before and that no cluster uses."""
    repository = name.partition(":")[0]
    for other in engine.docker(
        "images", "--format", "{{.Repository}}:{{.Tag}}", repository
    ).split():
        if other != name:
            with contextlib.suppress(CommandFailed):
                engine.docker("rmi", other)


def _check_names(listed: str, programs: Mapping[str, Path]) -> None:
    """kubeadm must ask for just the names that are preloaded."""
    have = {image.name for image in system_images(programs, Path("unused"))}
    missing = sorted(set(listed.split()) - have)
    if missing:
        raise SetupError(
            f"This kubeadm asks for {', '.join(missing)}: set nodeimage.py's versions to match."
        )


def _wait_for_containerd(engine: Engine, container: str) -> None:
    for _ in range(100):
        try:
            engine.docker("exec", container, "ctr", "version")
        except CommandFailed:
            time.sleep(0.2)
        else:
            return
    raise SetupError("containerd did not start in the container that becomes the node image")
