"""Tools with an environment of their own, so that they are no part of the one that we test."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.kind.command import run
from tests.kind.host import REPOSITORY, cache


def programs(name: str, *options: str, seconds: float = 600) -> Path:
    """Folder of the programs of requirements/NAME.txt, installed when the lock has changed.

    `options` are pip's; each of the two steps has so many seconds. Raises CommandFailed.
    """
    lock = REPOSITORY / "requirements" / f"{name}.txt"
    environment = cache() / name
    stamp = environment / "lock.txt"
    if not (stamp.exists() and stamp.read_bytes() == lock.read_bytes()):
        print(f"installing the tools of requirements/{name}.txt, this once", flush=True)
        pip = [f"{environment}/bin/pip", "install", "-q", "--disable-pip-version-check", *options]
        run([sys.executable, "-m", "venv", "--clear", str(environment)], timeout=seconds)
        run([*pip, "--require-hashes", "--requirement", str(lock)], timeout=seconds)
        stamp.write_bytes(lock.read_bytes())
    return environment / "bin"
