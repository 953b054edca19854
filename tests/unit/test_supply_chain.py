"""What is installed is what was looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kind.host import REPOSITORY

LOCKS = sorted((REPOSITORY / "requirements").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_has_a_hash(lock: Path) -> None:
    text = lock.read_text().replace("\\\n", " ")
    packages = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert len(packages) > 5
    assert [line for line in packages if "==" not in line or "--hash=sha256:" not in line] == []
