"""`make docs`: the documentation as a site, into a folder. Any warning is an error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.environment import programs
from tests.kind.host import REPOSITORY

LOCK = REPOSITORY / "requirements" / "docs.txt"
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(?:https?:)?//[^\s\">]+"
    r"|<link\b[^>]*\brel=\"?(?:stylesheet|preload|preconnect|icon)\b[^>]*"
    r"\bhref=\"?(?:https?:)?//[^\s\">]+"
    r"|@import[^;]*//[^;]+|url\(\"?(?:https?:)?//[^)]+"
)
"""What a browser would load from another host as it shows a page."""


def build(folder: Path) -> None:
    """Writes the site; ends the process where mkdocs warns of anything, such as a dead link or
    anchor, or where a page would load something from elsewhere."""
    mkdocs = programs("docs", LOCK, seconds=600) / "mkdocs"
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--quiet", "--site-dir", folder.resolve()],
        cwd=REPOSITORY,
        # The theme's advertisement of its successor.
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    if done.returncode:
        sys.exit(done.returncode)
    pages = sorted(folder.rglob("*.html"))
    fetched = {
        f"{file.relative_to(folder)}: {found}"
        for file in [*pages, *folder.rglob("*.css")]
        for found in _FETCHED.findall(file.read_text())
    }
    if fetched:
        sys.exit("the site would load from elsewhere:\n" + "\n".join(sorted(fetched)))
    print(f"{len(pages)} pages: {folder / 'index.html'}")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
