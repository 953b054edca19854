"""A hook of mkdocs: pages link to files of the repository outside docs/ as they do on a forge, and
the site has copies of these files, below repository/."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
COPIES = "repository/"
_LINK = re.compile(r"(?<=\]\()(?![a-z+]+:|#|/)([^)#\s]+)((?:#[^)\s]*)?)(?=\))")


def on_files(files: Any, config: Any) -> Any:
    """Adds what pages link to, and what these pages link to."""
    todo = [file.src_uri for file in files.documentation_pages()]
    todo += [page for page in _nav(config.nav) if page.startswith(COPIES)]
    seen: set[str] = set()
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        source = _in_repository(page)
        if page.startswith(COPIES) and (ROOT / source).is_file():
            files.append(
                File.generated(
                    config,
                    page,
                    abs_src_path=str(ROOT / source),
                    inclusion=InclusionLevel.NOT_IN_NAV,  # unless it is
                )
            )
        if page.endswith(".md") and (ROOT / source).is_file():
            text = (ROOT / source).read_text()
            todo += [_in_site(_target(source, link)) for link, _ in _LINK.findall(text)]
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leads each link to where the site has its target."""
    place = page.file.src_uri
    source = _in_repository(place)

    def lead(link: re.Match[str]) -> str:
        target = _in_site(_target(source, link[1]))
        return posixpath.relpath(target, posixpath.dirname(place) or ".") + link[2]

    return _LINK.sub(lead, markdown)


def _target(source: str, link: str) -> str:
    """Path in the repository of what the file `source` links to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _in_repository(uri: str) -> str:
    return uri.removeprefix(COPIES) if uri.startswith(COPIES) else f"docs/{uri}"


def _in_site(path: str) -> str:
    return path.removeprefix("docs/") if path.startswith("docs/") else COPIES + path


def _nav(nav: Any) -> list[str]:
    match nav:
        case str():
            return [nav]
        case dict():
            return [page for part in nav.values() for page in _nav(part)]
        case list():
            return [page for part in nav for page in _nav(part)]
    return []
