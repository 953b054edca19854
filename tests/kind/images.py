"""Images for Docker builds: Debian's base images, and the product's own two."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.kind import debianroot, docker, host
from tests.kind.command import SetupError, succeeds
from tests.kind.contenthash import content_key
from tests.kind.docker import Engine
from tests.kind.steps import step

NAME = "localhost/llamacluster"
SECONDS_TO_PULL = 120.0
# Base images that can be made from Debian's packages, and the suite of each.
DEBIAN_BASES = {"debian:forky-slim": "forky", "debian:bookworm-slim": "bookworm"}
PYTHON_IN_OPERATOR_IMAGE = "3.11"


@dataclass(frozen=True)
class BuiltImages:
    """Names of the product's images in the Docker engine."""

    engine: str
    operator: str


@dataclass(frozen=True)
class Recipe:
    """An image of ours: its Dockerfile (context: the repository) and what its content is."""

    name: str
    dockerfile: Path
    inputs: tuple[Path, ...]

    def tag(self, root: Path) -> str:
        """The image's full name; the tag is a hash over its inputs."""
        missing = [path for path in self.inputs if not path.exists()]
        if missing:
            raise SetupError(
                f"The {self.name} image cannot be built: "
                f"{', '.join(str(path.relative_to(root)) for path in missing)} is not there."
            )
        return f"{NAME}/{self.name}:{content_key(files=self.sources(), root=root)}"

    def sources(self) -> Iterable[Path]:
        """What counts: everything in the inputs but the wheels, which the lock file stands for."""
        for path in self.inputs:
            if path.is_dir():
                yield from (child for child in sorted(path.iterdir()) if child.name != "wheels")
            else:
                yield path


def engine_recipe(root: Path) -> Recipe:
    package = root / "operator" / "llamacluster"
    return Recipe(
        "engine",
        root / "images" / "engine" / "Dockerfile",
        (
            root / "images" / "engine",
            package / "agent",
            package / "planning",
            package / "__init__.py",
        ),
    )


def operator_recipe(root: Path) -> Recipe:
    return Recipe(
        "operator",
        root / "images" / "operator" / "Dockerfile",
        (
            root / "images" / "operator",
            root / "operator" / "llamacluster",
            root / "requirements" / "operator.txt",
            root / "pyproject.toml",
        ),
    )


def build_images(root: Path = host.REPOSITORY) -> BuiltImages:
    """Build the product's images, unless the engine has them with just this content."""
    with host.only_run("building images"):
        engine = docker.find_or_start()
        return BuiltImages(
            engine=build_engine(engine, root),
            operator=build_operator(engine, root),
        )


def build_engine(engine: Engine, root: Path) -> str:
    return build(engine, engine_recipe(root), root)


def build_operator(engine: Engine, root: Path) -> str:
    recipe = operator_recipe(root)
    if not engine.has_image(recipe.tag(root)):
        download_wheels(root)
    return build(engine, recipe, root)


def build(engine: Engine, recipe: Recipe, root: Path) -> str:
    """Build one image under its tag, unless the engine has it; returns its name."""
    name = recipe.tag(root)
    if engine.has_image(name):
        return name
    for base in base_images(recipe.dockerfile.read_text()):
        ensure_base(engine, base)
    dockerfile = str(recipe.dockerfile.relative_to(root))
    with step(f"Image: build {name}", f"docker build -f {dockerfile} . shows it again") as now:
        now.run(["docker", "build", "-f", dockerfile, "-t", name, "."], env=engine.env, cwd=root)
        now.note = f"{size(engine, name) / 1e6:.0f} MB"
    return name


def size(engine: Engine, image: str) -> int:
    """Bytes of an image, all layers, uncompressed."""
    return int(engine.docker("image", "inspect", "--format", "{{.Size}}", image))


def base_images(dockerfile: str) -> list[str]:
    """The images that a Dockerfile starts from, without its own stages and without scratch."""
    stages: set[str] = {"scratch"}
    bases: list[str] = []
    defaults: dict[str, str] = {}
    for line in dockerfile.splitlines():
        argument = re.match(r"\s*ARG\s+(\w+)=(\S+)", line, re.IGNORECASE)
        if argument:
            defaults[argument[1]] = argument[2].strip("\"'")
        found = re.match(r"\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", line, re.IGNORECASE)
        if not found:
            continue
        base = re.sub(r"\$\{?(\w+)\}?", lambda name: defaults.get(name[1], name[0]), found[1])
        if base not in stages and base not in bases:
            bases.append(base)
        if found[2]:
            stages.add(found[2])
    return bases


def ensure_base(engine: Engine, image: str) -> None:
    """Have a base image in the engine: there already, pulled, or made from Debian's packages."""
    if engine.has_image(image):
        return
    if engine.may_pull:
        with step(f"Image: pull {image}") as now:
            if engine.pull(image, SECONDS_TO_PULL):
                return
            now.note = "cannot be pulled here; it is made instead"
    suite = DEBIAN_BASES.get(image)
    if suite is None or not (host.is_debian() and host.is_root()):
        raise SetupError(f"{image} can neither be pulled nor made here. Try: docker pull {image}")
    with step(f"Image: make {image} from Debian's packages") as now:
        host.install_packages(debianroot.PACKAGES, now.log, now.doing)
        root = debianroot.root_tar(suite, (), now)
        now.run(
            ["docker", "import", "--change", 'CMD ["bash"]', str(root), image],
            env=engine.env,
            show=False,
        )


def download_wheels(root: Path) -> None:
    """Put just the locked wheels of the operator's requirements where its Dockerfile finds them.

    On the host, because only the host's pip knows the authorities that the host trusts.
    """
    lock = root / "requirements" / "operator.txt"
    folder = root / "images" / "operator" / "wheels"
    with step("Image: download the operator's wheels", "look at pip's message in the log") as now:
        kept = host.cache() / "wheels" / content_key(PYTHON_IN_OPERATOR_IMAGE, files=[lock])
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=kept.parent) as part:
                target = Path(part) / "wheels"
                now.run(
                    [_pip_python(), "-m", "pip", "download", "--require-hashes"]
                    + ["--only-binary=:all:", "--no-deps", f"--dest={target}"]
                    + [f"--python-version={PYTHON_IN_OPERATOR_IMAGE}"]
                    + [f"--platform={platform}" for platform in wheel_platforms()]
                    + ["-r", str(lock)],
                )
                target.rename(kept)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(kept, folder)


def wheel_platforms() -> list[str]:
    """Wheel platforms that run on the operator image's Debian (glibc 2.36), newest first."""
    machine = {"arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)
    glibc = [f"manylinux_2_{minor}_{machine}" for minor in range(36, 16, -1)]
    return [*glibc, f"manylinux2014_{machine}", f"linux_{machine}"]


def _pip_python() -> str:
    """A Python that has pip: this one, else the first on PATH that has."""
    candidates = [sys.executable, *filter(None, map(shutil.which, ("python3", "python")))]
    for python in candidates:
        if succeeds([python, "-m", "pip", "--version"], timeout=60):
            return python
    raise SetupError("The operator's wheels are downloaded with pip, and no Python here has it.")
