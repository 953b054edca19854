"""`make sbom` and `make audit`: what the product is made of, and what is known against it.

Both tools live in an environment of their own, so that they change nothing of what they look at.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from tests.kind import docker, images
from tests.kind.host import REPOSITORY, cache

LOCK = REPOSITORY / "requirements" / "audit.txt"
OPERATOR = REPOSITORY / "requirements" / "operator.txt"
SECONDS = 120
DEBIAN_PACKAGES = (
    "for copyright in /usr/share/doc/*/copyright; do "
    "name=$(basename $(dirname $copyright)); "
    "version=$(dpkg-query -W -f='${Version}' $name 2>/dev/null) || continue; "
    "licences=$(grep -h '^License:' $copyright | cut -d' ' -f2- | sort -u | paste -sd '|'); "
    "printf '%s\\t%s\\t%s\\n' $name $version \"${licences:-see its copyright file}\"; done"
)
"""A line for each package of an image: name, version and licences, as Debian states them."""


def tool(name: str) -> str:
    """Path of a tool, installed from the lock if it is not there."""
    environment = cache() / "audit"
    program = environment / "bin" / name
    stamp = environment / "lock.txt"
    if not (stamp.exists() and stamp.read_bytes() == LOCK.read_bytes()):
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        subprocess.run(
            [environment / "bin" / "pip", "install", "-q", "--require-hashes", "-r", LOCK],
            check=True,
            timeout=600,
        )
        stamp.write_bytes(LOCK.read_bytes())
    return str(program)


def audit() -> None:
    """Says what is known against the operator's packages; that it cannot be known is no failure."""
    print("==> Known vulnerabilities of the operator's packages (never fails)", flush=True)
    try:
        done = subprocess.run(
            [
                *(tool("pip-audit"), "--require-hashes", "--disable-pip", "--progress-spinner=off"),
                *("--timeout=20", "--requirement", str(OPERATOR)),
            ],
            timeout=SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        print(f"not checked: {error}")
        return
    last = (done.stdout or done.stderr).strip() or "none is known"
    asked = done.returncode == 0 or "Found" in done.stderr
    print(last if asked else f"not checked, is the network there? {last.splitlines()[-1]}")


def sbom(folder: Path) -> None:
    """Writes the operator's packages as CycloneDX, and the Debian packages of both images with
    their licences."""
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "operator.cdx.json"
    subprocess.run(
        [tool("cyclonedx-py"), "requirements", str(OPERATOR), "--output-file", str(made)],
        check=True,
        timeout=SECONDS,
    )
    licences = folder / "python-licences.tsv"
    licences.write_text(_python_licences())
    engine = docker.find_or_start()
    for name, image in vars(images.build_images()).items():
        listed = engine.docker("run", "--rm", "--entrypoint=sh", image, "-c", DEBIAN_PACKAGES)
        (folder / f"{name}-debian.tsv").write_text(listed)
    for file in sorted(folder.iterdir()):
        print(file)


def _python_licences() -> str:
    """Name, version and licence of each package of the operator, as it states them itself."""
    lines = []
    for line in OPERATOR.read_text().splitlines():
        if "==" not in line or line.startswith((" ", "#")):
            continue
        name, version = line.split(" ")[0].split("==")
        try:
            told = metadata(name).json
        except PackageNotFoundError:
            continue
        classifiers = [c for c in told.get("classifier", []) if c.startswith("License ::")]
        licence = told.get("license_expression") or "|".join(
            c.rpartition(":: ")[2] for c in classifiers
        )
        lines.append(f"{name}\t{version}\t{licence or told.get('license', 'not stated')}\n")
    return "".join(lines)


def main(argv: Sequence[str]) -> None:
    match argv:
        case ["audit"]:
            audit()
        case ["sbom", folder]:
            sbom(Path(folder))
        case _:
            sys.exit("usage: python -m tests.supplychain audit | sbom FOLDER")


if __name__ == "__main__":
    main(sys.argv[1:])
