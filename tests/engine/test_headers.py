"""The engine takes the headers of real models for the models themselves."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamacluster.planning.gguf import Header, read_header
from tests.kind import docker
from tests.kind.docker import Engine
from tests.model.headers import MODELS, write_sparse

pytestmark = [pytest.mark.engine, pytest.mark.beside]

MIB = 1 << 20
SPARSE = Path("/models")


class Box:
    """A container of the engine image that sees `folder`."""

    def __init__(self, engine: Engine, image: str, folder: Path) -> None:
        self.folder = folder
        self._engine = engine
        self._id = engine.docker(
            "run", "--detach", "--init", "--network=none", "--user=0:0",
            "--volume", f"{folder}:{SPARSE}:ro", "--entrypoint=sleep", image, "infinity",
        ).strip()  # fmt: skip

    def run(self, *command: str) -> str:
        """What a command prints, on both streams."""
        return self._engine.docker("exec", self._id, "sh", "-c", f"{shlex.join(command)} 2>&1")

    def remove(self) -> None:
        self._engine.docker("rm", "--force", self._id)

    def file(self, model: str, file_type: str) -> tuple[str, Header]:
        """A sparse file, by its name in the container, and its header."""
        path = self.folder / f"{model}-{file_type}.gguf"
        write_sparse(path, model, file_type)
        with path.open("rb") as file:
            return str(SPARSE / path.name), read_header(file)


@pytest.fixture(scope="module")
def box(engine_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = Box(docker.find_or_start(), engine_image, tmp_path_factory.mktemp("headers"))
    yield box
    box.remove()


@pytest.mark.parametrize("model", MODELS)
def test_the_engine_measures_a_model_by_its_header(box: Box, model: str) -> None:
    name, header = box.file(model, "Q4_K_M")
    printed = box.run("llama-fit-params", "-m", name, "-fitp", "on", "-c", "4096", "-nr")
    (weights, context, compute) = map(int, re.findall(r"^Host (\d+) (\d+) (\d+)", printed, re.M)[0])
    assert weights * MIB == pytest.approx(sum(t.bytes for t in header.tensors), abs=MIB)
    assert context > 0
    assert compute > 0


@pytest.mark.parametrize("model", MODELS)
def test_the_engine_would_quantize_a_model_to_the_same_types(box: Box, model: str) -> None:
    source, before = box.file(model, "F16")
    _, after = box.file(model, "Q4_K_M")
    printed = box.run("llama-quantize", "--dry-run", "--allow-requantize", source, "Q4_K_M")
    changed = dict(re.findall(r"\] (\S+) .* MiB \((\w+)\)$", printed, re.M))
    published = {tensor.name for tensor in before.tensors if tensor.type_name == "MXFP4"}
    assert {tensor.name: tensor.type_name for tensor in after.tensors} == {
        tensor.name: tensor.type_name
        if tensor.name in published
        else changed.get(tensor.name, tensor.type_name).upper()
        for tensor in before.tensors
    }
