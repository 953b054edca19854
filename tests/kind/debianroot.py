"""Debian roots made from packages by mmdebstrap, where no base image can be pulled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.kind import host
from tests.kind.contenthash import content_key
from tests.kind.steps import Step

PACKAGES = {"mmdebstrap": "mmdebstrap"}

OPTIONS = (
    "--variant=minbase",
    # An index that aged in a mirror is still signed by Debian.
    '--aptopt=Acquire::Check-Valid-Until "false"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)


def root_tar(suite: str, packages: Sequence[str], step: Step) -> Path:
    """A tar of a minimal Debian root with these packages, from the cache where it was made."""
    key = content_key(suite, *OPTIONS, *sorted(packages))
    target = host.cache() / "roots" / f"{suite}-{key}.tar"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part.tar")
    part.unlink(missing_ok=True)
    include = [f"--include={','.join(packages)}"] if packages else []
    step.run(["mmdebstrap", *OPTIONS, *include, suite, str(part)])
    part.replace(target)
    return target
