"""The test model is reproducible, small, and shaped as asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamacluster.planning.gguf import read_header
from tests.model import Shape, write


def made(folder: Path, name: str, shape: Shape | None = None, seed: int = 0) -> Path:
    write(folder / name, shape, seed)
    return folder / name


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = made(tmp_path, "a.gguf"), made(tmp_path, "b.gguf")
    assert first.read_bytes() == second.read_bytes()


def test_another_seed_gives_another_model(tmp_path: Path) -> None:
    first, second = made(tmp_path, "a.gguf"), made(tmp_path, "b.gguf", seed=1)
    assert first.read_bytes() != second.read_bytes()


def test_the_default_fits_into_a_configmap(tmp_path: Path) -> None:
    assert made(tmp_path, "a.gguf").stat().st_size < 900_000


def test_the_shape_is_as_asked(tmp_path: Path) -> None:
    shape = Shape(layers=6, width=128, feed_forward=256, context=512, kind="embed")
    with made(tmp_path, "a.gguf", shape).open("rb") as file:
        header = read_header(file)
    assert (header.block_count, header.context_length) == (6, 512)
    assert header.required("embedding_length") == 128
    assert header.required("pooling_type") == 1


def test_an_odd_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="width 100: must be a multiple of 64"):
        made(tmp_path, "a.gguf", Shape(width=100))
