from pathlib import Path

import pytest

from tests.kind.command import SetupError
from tests.kind.images import (
    base_images,
    engine_recipe,
    operator_recipe,
    wheel_platforms,
)

FILES = (
    "images/engine/Dockerfile",
    "images/operator/Dockerfile",
    "operator/llamacluster/__init__.py",
    "operator/llamacluster/agent/worker.py",
    "operator/llamacluster/planning/gguf.py",
    "operator/llamacluster/controller/reconcile.py",
    "requirements/operator.txt",
    "pyproject.toml",
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def tags(root: Path) -> tuple[str, str]:
    return engine_recipe(root).tag(root), operator_recipe(root).tag(root)


def test_a_change_in_the_operator_alone_keeps_the_engine_image(repository: Path) -> None:
    engine, operator = tags(repository)
    (repository / "operator/llamacluster/controller/reconcile.py").write_text("changed")
    engine_now, operator_now = tags(repository)
    assert engine_now == engine
    assert operator_now != operator


def test_a_change_in_the_agents_makes_both_images_new(repository: Path) -> None:
    engine, operator = tags(repository)
    (repository / "operator/llamacluster/agent/worker.py").write_text("changed")
    engine_now, operator_now = tags(repository)
    assert engine_now != engine
    assert operator_now != operator


def test_downloaded_wheels_and_compiled_files_change_nothing(repository: Path) -> None:
    before = tags(repository)
    for name in (
        "images/operator/wheels/kopf.whl",
        "operator/llamacluster/__pycache__/x.pyc",
        "operator/llamacluster/agent/__pycache__/x.pyc",
    ):
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert tags(repository) == before


def test_a_missing_input_is_named(repository: Path) -> None:
    (repository / "requirements/operator.txt").unlink()
    with pytest.raises(SetupError, match=r"operator image .* requirements/operator.txt"):
        operator_recipe(repository).tag(repository)


@pytest.mark.parametrize(
    ("dockerfile", "bases"),
    [
        ("FROM debian:forky-slim\n", ["debian:forky-slim"]),
        ("ARG BASE=debian:forky-slim\nFROM ${BASE}\n", ["debian:forky-slim"]),
        ("FROM a AS build\nFROM build\nFROM scratch\n", ["a"]),
        ("from --platform=linux/amd64 a:1 as one\nFROM b\nFROM a:1\n", ["a:1", "b"]),
    ],
)
def test_base_images_of_a_dockerfile(dockerfile: str, bases: list[str]) -> None:
    assert base_images(dockerfile) == bases


def test_wheels_fit_the_glibc_of_the_operator_image() -> None:
    platforms = wheel_platforms()
    assert any(name.startswith("manylinux_2_36_") for name in platforms)
    assert not any(name.startswith("manylinux_2_37_") for name in platforms)
