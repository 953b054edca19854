"""Keys for what is cached: two inputs that differ in any byte get different keys."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

SKIPPED_FOLDERS = frozenset({"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})


def files_below(path: Path) -> list[Path]:
    """All files at or below a path, sorted, without what tools leave behind."""
    if path.is_file():
        return [path]
    return sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not SKIPPED_FOLDERS.intersection(file.relative_to(path.parent).parts)
    )


def content_key(
    *texts: str, files: Iterable[Path] = (), root: Path | None = None, digits: int = 12
) -> str:
    """First hex digits of a hash over texts, and over the names, modes and bytes of files.

    Folders stand for all files in them. Names count relative to `root`, so that two checkouts of
    the same tree agree.
    """
    digest = hashlib.sha256()

    def add(part: bytes) -> None:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)

    for text in texts:
        add(text.encode())
    found = {file for path in files for file in files_below(path)}
    for file in sorted(found):
        name = file.relative_to(root) if root else Path(file.name)
        add(name.as_posix().encode())
        add(b"x" if file.stat().st_mode & 0o100 else b"-")
        add(file.read_bytes())
    return digest.hexdigest()[:digits]
