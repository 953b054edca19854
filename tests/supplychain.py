"""`make sbom` and `make audit`: what the product is made of, and what is known against it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from tests.environment import programs
from tests.kind import docker, images
from tests.kind.command import CommandFailed, SetupError, run
from tests.kind.host import REPOSITORY

LOCK = REPOSITORY / "requirements" / "audit.txt"
OPERATOR = REPOSITORY / "requirements" / "operator.txt"
SECONDS = 120
INSTALL_SECONDS = 120
AUDIT_SECONDS = 20
"""`make test` asks too, and is not to wait for a network that is not there."""
ANSWER_SECONDS = 5
DEBIAN_PACKAGES = r"""
dpkg-query --show --showformat='${Package} ${Version}\n' | while read -r name version; do
    licences=$(grep -hs '^License:' "/usr/share/doc/$name/copyright" \
        | cut -d' ' -f2- | sort -u | paste -sd '|')
    printf '%s\t%s\t%s\n' "$name" "$version" "${licences:-see its copyright file}"
done
"""
"""A line for each package of an image: name, version and licences, as Debian states them."""


class NotThere(Exception):
    """The tools cannot be installed."""


def tool(name: str) -> str:
    """Path of a tool, installed from the lock if it is not there. Raises NotThere."""
    # By itself pip would try for minutes where there is no network.
    impatient = (f"--timeout={ANSWER_SECONDS}", "--retries=1")
    try:
        return str(programs("audit", LOCK, *impatient, seconds=INSTALL_SECONDS) / name)
    except CommandFailed as error:
        raise NotThere(f"{name} cannot be installed: {_last_line(str(error))}") from error


def audit() -> None:
    """Says what is known against the operator's packages; that it cannot be known is no failure."""
    print("==> Known vulnerabilities of the operator's packages (never fails)", flush=True)
    try:
        command = [tool("pip-audit"), "--require-hashes", "--disable-pip", "--format=json"]
        patient = ["--progress-spinner=off", f"--timeout={ANSWER_SECONDS}", "--requirement"]
        done = subprocess.run(
            [*command, *patient, str(OPERATOR)],
            timeout=AUDIT_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
        print(told(done.stdout) or f"not checked: {_last_line(done.stderr)}")
    except NotThere as error:
        print(f"not checked: {error}")
    except subprocess.TimeoutExpired:
        print(f"not checked: the vulnerability service did not answer within {AUDIT_SECONDS} s")


def told(report: str) -> str | None:
    """A report of pip-audit in words; None if it is none.

    pip-audit itself is content where the service knows nothing of a package.
    """
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return None
    asked = [one for one in packages if "vulns" in one]
    skipped = [one["skip_reason"] for one in packages if "skip_reason" in one]
    lines = [
        f"{one['name']} {one['version']}: {found['id']},"
        f" fixed in {', '.join(found['fix_versions']) or 'no version yet'}"
        for one in asked
        for found in one["vulns"]
    ]
    if asked and not lines:
        lines = [f"none is known against {len(asked)} packages"]
    if skipped:
        lines.append(f"not checked: {len(skipped)} of {len(packages)} packages, as {skipped[0]}")
    return "\n".join(lines)


def _last_line(text: str) -> str:
    return (text.strip() or "no word why").splitlines()[-1]


def sbom(folder: Path) -> None:
    """Writes the operator's packages as CycloneDX, and the Debian packages of both images with
    their licences."""
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "operator.cdx.json"
    requirements = (tool("cyclonedx-py"), "requirements", str(OPERATOR))
    about = ("--pyproject", str(REPOSITORY / "pyproject.toml"), "--output-reproducible")
    run([*requirements, *about, "--output-file", str(made)], timeout=SECONDS)
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
            try:
                sbom(Path(folder))
            except (NotThere, CommandFailed, SetupError) as error:
                sys.exit(str(error))
        case _:
            sys.exit("usage: python -m tests.supplychain audit | sbom FOLDER")


if __name__ == "__main__":
    main(sys.argv[1:])
