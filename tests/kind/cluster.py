"""A kind cluster with LeaderWorkerSet: made once, used again, and taken away."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.kind import docker, gotools, host, nodeimage
from tests.kind.command import CommandFailed, SetupError, run
from tests.kind.steps import step

CONFIG = host.REPOSITORY / "kind-config.yaml"
LWS_NAMESPACE = "lws-system"
SYSTEM_NAMESPACES = ("kube-system", "local-path-storage", LWS_NAMESPACE)
WHERE_AND_WHAT = (
    "go-template={{range .items}}{{.metadata.namespace}} {{.kind}} {{.metadata.name}}"
    '{{"\\n"}}{{end}}'
)
LWS_CHART_IN_REGISTRY = "oci://registry.k8s.io/lws/charts/lws"

# The oldest releases that do what is asked of them here. kind: the release whose notes list the
# node image that nodeimage.PULLED names. kubectl: one minor version from the server.
LEAST_VERSIONS = {"kind": (0, 33), "kubectl": (1, 35), "helm": (3, 14)}
VERSION_COMMANDS = {
    "kind": ["version"],
    "kubectl": ["version", "--client"],
    "helm": ["version", "--short"],
}
SECONDS_UNTIL_READY = 240
SECONDS_TO_COME_BACK = 60


class Cluster:
    """One kind cluster of this name, with the folder of what belongs to it."""

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name):
            raise ValueError(f"not a name for a cluster: {name!r}")
        self.name = name

    def __repr__(self) -> str:
        return f"Cluster({self.name!r})"

    @property
    def folder(self) -> Path:
        return host.cache() / "clusters" / self.name

    @property
    def kubeconfig(self) -> Path:
        """This cluster's own file, whatever a person's default kubeconfig says."""
        return self.folder / "kubeconfig"

    # Life

    def up(self, *, renew: bool = False) -> None:
        """Make the cluster, or take the one that is there; ready for use when this returns.

        With `renew`, one that was made from another node image, or in which tests were killed, is
        made anew.
        """
        with host.only_run(f"bringing up cluster {self.name}"):
            engine = docker.find_or_start()
            host.save_sysctls()
            host.raise_inotify_limits()
            # All of them now: what cannot be had is better said before anything is made.
            kind, *_ = [tool(name) for name in LEAST_VERSIONS]
            usable = self._is_whole(engine) and not (
                renew and (self._is_outdated(engine) or self._was_left())
            )
            if not (usable and self._comes_back()):
                if self._containers(engine):
                    with step(f"Cluster {self.name}: remove what an earlier run left"):
                        self._delete(engine, kind)
                self._create(engine, kind)
            self._install_leaderworkerset(engine)
            self._wait_until_ready()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """For tests, which give it back as it was. If they are killed, what they made has the room
        that others need: those take a new cluster then."""
        with contextlib.ExitStack() as stack:
            with host.only_run(f"lending cluster {self.name}"):
                self.up(renew=True)
                stack.enter_context(host.mark(self._tests))
            yield

    def down(self) -> None:
        """Remove the cluster; the machine's sysctls are restored after the last one."""
        with host.only_run(f"removing cluster {self.name}"):
            engine = docker.running()
            if engine:
                with step(f"Cluster {self.name}: remove"):
                    self._delete(engine, tool("kind"))
            shutil.rmtree(self.folder, ignore_errors=True)
            if not known():
                host.restore_sysctls(engine=False)

    def exists(self) -> bool:
        """Whether a Docker engine runs and has all nodes of this cluster running."""
        engine = docker.running()
        return engine is not None and self._is_whole(engine)

    # Use

    def nodes(self) -> list[str]:
        """Names of all nodes, which are also the names of their containers."""
        return sorted(self._containers(docker.need_running()))

    def worker_nodes(self) -> list[str]:
        return [node for node in self.nodes() if not node.endswith("-control-plane")]

    def kubectl(self, *args: str, stdin: str | None = None, timeout: float = 300) -> str:
        """Standard output of kubectl on this cluster; CommandFailed says what went wrong."""
        return run(self.kubectl_command(*args), stdin=stdin, timeout=timeout)

    def kubectl_command(self, *args: str) -> list[str]:
        """The command that is kubectl on this cluster."""
        return [tool("kubectl"), f"--kubeconfig={self.kubeconfig}", *args]

    def helm(self, *args: str, stdin: str | None = None, timeout: float = 600) -> str:
        """Standard output of helm on this cluster."""
        return run(
            [tool("helm"), f"--kubeconfig={self.kubeconfig}", *args], stdin=stdin, timeout=timeout
        )

    def load(self, image: str) -> bool:
        """Give every node an image of the Docker engine; False when all had it already."""
        engine = docker.need_running()
        image_id = engine.image_id(image)
        if image_id is None:
            raise SetupError(
                f"The Docker engine has no image {image}. Build it: python -m tests.kind images"
            )
        nodes = self.nodes()
        if not nodes:
            raise SetupError(f"Cluster {self.name} is not up. Run: python -m tests.kind up")
        with ThreadPoolExecutor() as pool:
            ids = list(pool.map(lambda node: _id_on_node(engine, node, image), nodes))
        lacking = [node for node, found in zip(nodes, ids, strict=True) if found != image_id]
        if not lacking:
            return False
        with step(f"Cluster {self.name}: load {image} into {len(lacking)} nodes") as now:
            now.run(
                [
                    *(tool("kind"), "load", "docker-image", image),
                    *(f"--name={self.name}", f"--nodes={','.join(lacking)}"),
                ],
                env=engine.env,
            )
        return True

    # How

    @property
    def _made(self) -> Path:
        """Written after kind made the cluster: without it, the making was interrupted."""
        return self.folder / "made.json"

    @property
    def _tests(self) -> Path:
        """Marks of those to whom it is lent."""
        return self.folder / "tests"

    def _containers(self, engine: docker.Engine) -> dict[str, str]:
        """State of each node's container, by node name."""
        listed = engine.docker(
            "ps", "--all", "--filter", f"label=io.x-k8s.kind.cluster={self.name}",
            "--format", "{{.Names}} {{.State}}",
        )  # fmt: skip
        return dict(line.split(" ", 1) for line in listed.splitlines())

    def _is_whole(self, engine: docker.Engine) -> bool:
        """Whether it was made to the end, and all its nodes run."""
        try:
            made = json.loads(self._made.read_text())
        except (OSError, ValueError):
            return False
        states = self._containers(engine)
        return (
            sorted(states) == made["nodes"]
            and all(state == "running" for state in states.values())
            and self.kubeconfig.exists()
        )

    def _comes_back(self) -> bool:
        """Whether its API server answers, or soon does, after its nodes were restarted."""
        if self._answers():
            return True
        with step(f"Cluster {self.name}: wait for its API server") as now:
            deadline = time.monotonic() + SECONDS_TO_COME_BACK
            while time.monotonic() < deadline:
                if self._answers():
                    return True
                time.sleep(1)
            now.note = "it does not answer; the cluster is made anew"
        return False

    def _answers(self) -> bool:
        try:
            self.kubectl("get", "--raw=/readyz", "--request-timeout=5s", timeout=20)
        except CommandFailed:
            return False
        return True

    def _is_outdated(self, engine: docker.Engine) -> bool:
        """Whether a cluster made now would have other nodes."""
        return bool(json.loads(self._made.read_text())["image"] != nodeimage.node_image(engine))

    def _was_left(self) -> bool:
        """Whether tests were killed, and none are under way."""
        alive = host.marks(self._tests).values()
        return bool(alive) and not any(alive)

    def _create(self, engine: docker.Engine, kind: str) -> None:
        image = nodeimage.node_image(engine)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        with step(
            f"Cluster {self.name}: create",
            "run this again; if it fails again, read the log and look at free memory and disk",
        ) as now:
            now.run(
                [
                    *(kind, "create", "cluster", f"--name={self.name}", f"--image={image}"),
                    *(f"--config={CONFIG}", f"--kubeconfig={self.kubeconfig}", "--retain"),
                ],
                env=engine.env,
            )
            # For the person: the same, in the kubeconfig that kubectl reads by itself.
            now.run([kind, "export", "kubeconfig", f"--name={self.name}"], env=engine.env)
            made = {"image": image, "nodes": sorted(self._containers(engine))}
            host.write_whole(self._made, json.dumps(made, indent=2))

    def _delete(self, engine: docker.Engine, kind: str) -> None:
        self._made.unlink(missing_ok=True)
        run([kind, "delete", "cluster", f"--name={self.name}"], env=engine.env, timeout=180)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_until_ready(self) -> None:
        """Until nodes, network, DNS, storage and LeaderWorkerSet's webhooks all do their work."""
        with step(
            f"Cluster {self.name}: ready",
            f"kubectl --kubeconfig={self.kubeconfig} get pods -A; docker logs NODE",
        ) as now:
            parts = self.kubectl("get", "daemonsets,deployments", "-A", "-o", WHERE_AND_WHAT)
            for what in (
                ["wait", "--for=condition=Ready", "nodes", "--all"],
                *(
                    ["-n", namespace, "rollout", "status", f"{kind}/{name}"]
                    for namespace, kind, name in (line.split() for line in parts.splitlines())
                    if namespace in SYSTEM_NAMESPACES
                ),
            ):
                now.doing(" ".join(what))
                self.kubectl(
                    *what, f"--timeout={SECONDS_UNTIL_READY}s", timeout=SECONDS_UNTIL_READY + 30
                )
            now.doing("asking LeaderWorkerSet's webhooks")
            self._wait_for_webhooks()

    def _install_leaderworkerset(self, engine: docker.Engine) -> None:
        if not self._has_leaderworkerset():
            with step(f"Cluster {self.name}: LeaderWorkerSet {gotools.LWS_VERSION}") as now:
                now.run(
                    [
                        *(
                            tool("helm"),
                            f"--kubeconfig={self.kubeconfig}",
                            "upgrade",
                            "--install",
                            "lws",
                        ),
                        *_lws_chart(engine),
                        *(f"--namespace={LWS_NAMESPACE}", "--create-namespace"),
                        f"--set=image.manager.tag={gotools.LWS_VERSION}",
                        "--set=image.manager.pullPolicy=IfNotPresent",
                        "--set=resources.requests.cpu=50m",
                        "--set=resources.requests.memory=64Mi",
                    ]
                )

    def _has_leaderworkerset(self) -> bool:
        """Whether the release is there; one that was interrupted half-way is not."""
        listed = self.helm("list", f"--namespace={LWS_NAMESPACE}", "--all", "--output=json")
        for release in json.loads(listed):
            if release["name"] == "lws":
                if release["status"] == "deployed":
                    return True
                self.helm("uninstall", "lws", f"--namespace={LWS_NAMESPACE}", "--wait")
        return False

    def _wait_for_webhooks(self) -> None:
        """Until the API server gets answers from both webhooks: nothing is really made."""
        probe = json.dumps({"apiVersion": "v1", "kind": "List", "items": [LWS_PROBE, POD_PROBE]})
        deadline = time.monotonic() + SECONDS_UNTIL_READY
        while True:
            try:
                self.kubectl("create", "--dry-run=server", "-f", "-", stdin=probe, timeout=30)
            except CommandFailed:
                if time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(0.5)


_PROBE_POD_SPEC = {"containers": [{"name": "probe", "image": "probe"}]}
LWS_PROBE = {
    "apiVersion": "leaderworkerset.x-k8s.io/v1",
    "kind": "LeaderWorkerSet",
    "metadata": {"name": "probe", "namespace": "default"},
    "spec": {
        "replicas": 1,
        "leaderWorkerTemplate": {"size": 2, "workerTemplate": {"spec": _PROBE_POD_SPEC}},
    },
}
POD_PROBE = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "probe-0",
        "namespace": "default",
        "labels": {
            "leaderworkerset.sigs.k8s.io/name": "probe",
            "leaderworkerset.sigs.k8s.io/worker-index": "0",
        },
        "annotations": {"leaderworkerset.sigs.k8s.io/size": "2"},
    },
    "spec": _PROBE_POD_SPEC,
}


def known() -> list[str]:
    """Names of the clusters that we made and that were not taken down."""
    folder = host.cache() / "clusters"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def down_all() -> None:
    """Remove all our clusters, stop the Docker engine that we started, restore the machine."""
    with host.only_run("taking everything down"):
        for name in known():
            Cluster(name).down()
        engine = docker.running()
        if engine is None or engine.own:
            with step("Docker engine: stop") as now:
                _remove_networks(engine)
                if not docker.stop():
                    now.note = "none of ours was running"
                docker.forget()
        host.restore_sysctls(engine=True)


def _remove_networks(engine: docker.Engine | None) -> None:
    if engine:
        with contextlib.suppress(CommandFailed):
            engine.docker("network", "rm", "kind")


def environment(cluster: Cluster) -> dict[str, str]:
    """What a person's shell needs to use this cluster, and nothing that it has already."""
    needed: dict[str, str] = {}
    if not cluster.kubeconfig.exists():
        raise SetupError(
            f"There is no cluster {cluster.name}. "
            f"Run: python -m tests.kind up --name={cluster.name}"
        )
    engine = docker.need_running()
    if engine.address and os.environ.get("DOCKER_HOST") != engine.address:
        needed["DOCKER_HOST"] = engine.address
    if os.environ.get("KUBECONFIG") != str(cluster.kubeconfig):
        needed["KUBECONFIG"] = str(cluster.kubeconfig)
    path = os.environ.get("PATH", os.defpath)
    folders = {str(Path(tool(name)).parent) for name in LEAST_VERSIONS}
    more = sorted(folders - set(path.split(os.pathsep)))
    if more:
        needed["PATH"] = os.pathsep.join([*more, path])
    return needed


def _id_on_node(engine: docker.Engine, node: str, image: str) -> str | None:
    """The id of an image in a node's containerd."""
    try:
        answer = engine.docker("exec", node, "crictl", "inspecti", "--output=json", image)
        return str(json.loads(answer)["status"]["id"])
    except (CommandFailed, ValueError, KeyError):
        return None


def _lws_chart(engine: docker.Engine) -> list[str]:
    """Helm's arguments for the chart: from the cache, else the Go module, else its registry."""
    kept = host.cache() / "charts" / f"lws-{gotools.LWS_VERSION}"
    if not kept.exists() and gotools.can_build():
        module = gotools.module_folder("sigs.k8s.io/lws", gotools.LWS_VERSION)
        chart = module / "charts" / "lws"
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as part:
            gotools.copy_folder(chart, Path(part) / "lws").rename(kept)
    if kept.exists():
        return [str(kept)]
    if engine.may_pull:
        return [LWS_CHART_IN_REGISTRY, f"--version={gotools.LWS_VERSION.removeprefix('v')}"]
    raise SetupError(
        "LeaderWorkerSet's chart comes out of its Go module: install Go (go.dev/doc/install)."
    )


# Tools

_tools: dict[str, str] = {}


def tool(name: str) -> str:
    """Path of kind, kubectl or helm: the one on PATH if it is new enough, else built with Go."""
    if name not in _tools:
        _tools[name] = _new_enough_on_path(name) or _build_tool(name)
    return _tools[name]


def _new_enough_on_path(name: str) -> str | None:
    path = shutil.which(name)
    if path is None:
        return None
    try:
        version = parse_version(run([path, *VERSION_COMMANDS[name]], timeout=30))
    except CommandFailed:
        return None
    return path if version and version >= LEAST_VERSIONS[name] else None


def parse_version(text: str) -> tuple[int, int] | None:
    """Major and minor version out of what a tool prints about itself."""
    found = re.search(r"\bv(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _build_tool(name: str) -> str:
    try:
        return str(gotools.programs(gotools.KUBERNETES, [name])[name])
    except SetupError as no_go:
        least = ".".join(map(str, LEAST_VERSIONS[name]))
        raise SetupError(
            f"{name} {least} or newer is needed and is not on PATH. Install it, or install Go and "
            "it is built for you."
        ) from no_go
