"""Tools of the build, each lock file's in an environment of its own, so that they change nothing of
what they look at."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.kind.command import run
from tests.kind.host import cache

VENV_SECONDS = 120


def programs(name: str, lock: Path, *pip_options: str, seconds: float) -> Path:
    """Folder of the programs of a lock file, made anew when that has changed. pip has so many
    seconds. Raises CommandFailed."""
    environment = cache() / name
    stamp = environment / "lock.txt"
    if not (stamp.exists() and stamp.read_bytes() == lock.read_bytes()):
        print(f"installing the tools of requirements/{lock.name}, this once", flush=True)
        run([sys.executable, "-m", "venv", "--clear", str(environment)], timeout=VENV_SECONDS)
        pip = (f"{environment}/bin/pip", "install", "-q", "--disable-pip-version-check")
        options = ("--no-compile", *pip_options, "--require-hashes", "--requirement", str(lock))
        run([*pip, *options], timeout=seconds)
        stamp.write_bytes(lock.read_bytes())
    return environment / "bin"
