"""A group that serves the tiny model, in containers of the engine image."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from llamacluster.agent.contract.options import LeaderOptions
from llamacluster.controller.authority import issue
from tests.engine.group import DOMAIN, Group
from tests.kind import docker, images
from tests.kind.host import REPOSITORY
from tests.model import write

OPTIONS = LeaderOptions("file:///test-models/tiny.gguf", (13, 12), 1024, 2)


@contextmanager
def serving(*, encrypted: bool = False) -> Iterator[Group]:
    """A leader and two workers, Ready."""
    engine = docker.find_or_start()
    image = images.build_engine(engine, REPOSITORY)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write(folder / "tiny.gguf")
        group = Group(engine, image, folder, certificates(folder) if encrypted else None)
        try:
            group.start_worker(1)
            group.start_worker(2)
            group.start_leader(OPTIONS)
            group.until("Ready", seconds=300)
            yield group
        finally:
            group.remove()


def certificates(folder: Path) -> Path:
    """A folder like a tunnel's volume."""
    made = issue("benchmark", f"*.{DOMAIN}", datetime.now(UTC))
    result = folder / "tls"
    result.mkdir()
    for name, text in (
        ("ca.crt", made.authority),
        ("tls.crt", made.certificate),
        ("tls.key", made.key),
    ):
        (result / name).write_text(text)
        (result / name).chmod(0o444)
    return result
