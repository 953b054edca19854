"""The engine image, a model, and groups of both."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.group import Group
from tests.kind import docker, images
from tests.model import write

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def engine_image() -> str:
    given = os.environ.get("LLAMACLUSTER_ENGINE_IMAGE")
    return given or images.build_engine(docker.find_or_start(), ROOT)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write(folder / "tiny.gguf")
    folder.chmod(0o755)
    for parent in folder.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)  # the pods' user has to come through
    return folder


@pytest.fixture(scope="module")
def shared_groups(engine_image: str, models: Path) -> Iterator[Callable[[], Group]]:
    yield from _groups(engine_image, models)


@pytest.fixture
def new_group(engine_image: str, models: Path) -> Iterator[Callable[[], Group]]:
    yield from _groups(engine_image, models)


def _groups(image: str, models: Path) -> Iterator[Callable[[], Group]]:
    made: list[Group] = []

    def make() -> Group:
        made.append(Group(docker.find_or_start(), image, models))
        return made[-1]

    yield make
    for group in made:
        group.remove()
