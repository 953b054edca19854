"""The headers are those of the models that they are named after."""

from __future__ import annotations

import functools
import itertools
import math
import tempfile
from pathlib import Path

import pytest

from llamacluster.planning.gguf import Header, read_header
from tests.model.headers import (
    ARCHITECTURES,
    FILE_TYPES,
    MODELS,
    write_header,
    write_sparse,
    write_sparse_split,
)
from tests.model.headers.__main__ import main

PUBLISHED_PARAMETERS = {
    "llama-3.1-8b": 8.03e9,
    "llama-3.1-70b": 70.55e9,
    "llama-3.1-405b": 405.85e9,
    "mistral-large-2": 122.61e9,
    "mixtral-8x7b": 46.70e9,
    "qwen2.5-72b": 72.71e9,
    "qwen3-1.7b": 1.72e9,
    "qwen3-8b": 8.19e9,
    "qwen3-32b": 32.76e9,
    "qwen3-30b-a3b": 30.53e9,
    "qwen3-235b-a22b": 235.09e9,
    "gemma-3-27b": 27.01e9,
    "phi-4": 14.66e9,
    "command-r-plus": 103.81e9,
    "deepseek-v3": 671.03e9,
    "gpt-oss-20b": 20.91e9,
    "gpt-oss-120b": 116.83e9,
    "granite-4.0-h-tiny": 6.94e9,
    "granite-4.0-h-small": 32.21e9,
    "nemotron-h-8b": 8.10e9,
    "nemotron-3-nano": 31.58e9,
}
PUBLISHED_BILLIONS = {
    "glm-4.5-air": 110,
    "llama-4-scout": 108,
    "qwen3-next-80b-a3b": 80,
    "gemma-2-9b": 9.24,
    "falcon-h1-7b": 7.6,
    "lfm2-1.2b": 1.17,
    "mamba-2.8b": 2.77,
    "mamba2-2.7b": 2.7,
    "rwkv7-2.9b": 2.95,
    "bge-m3": 0.57,
    "nomic-embed-1.5": 0.137,
    "qwen2-57b-a14b": 57.4,
    "olmo-2-13b": 13.7,
    "exaone-4-32b": 32,
    "kimi-k2": 1026,
    "minimax-m2": 229,
    "ernie-4.5-21b-a3b": 21.8,
    "smollm3-3b": 3.08,
    "seed-oss-36b": 36.2,
    "starcoder2-15b": 16,
    "pythia-6.9b": 6.86,
    "phimoe-3.5": 41.9,
    "hunyuan-a13b": 80.4,
    "grok-1": 314,
    "dbrx": 131.6,
    "jamba-1.5-mini": 51.6,
    "kimi-linear-48b-a3b": 49.1,
    "command-r7b": 8.03,
}
"""Of ARCHITECTURES, whose structure matters more than their last parameter."""
PUBLISHED_BYTES = {
    ("llama-3.1-8b", "F16"): 16.07e9,
    ("llama-3.1-8b", "Q8_0"): 8.54e9,
    ("llama-3.1-8b", "Q4_K_M"): 4.92e9,
    ("llama-3.1-70b", "Q4_K_M"): 42.52e9,
    ("mistral-large-2", "Q4_K_M"): 73.22e9,
    ("qwen2.5-72b", "Q4_K_M"): 47.42e9,
    ("qwen3-8b", "Q4_K_M"): 5.03e9,
    ("qwen3-32b", "Q4_K_M"): 19.76e9,
    ("qwen3-30b-a3b", "Q4_K_M"): 18.56e9,
    ("gemma-3-27b", "Q4_K_M"): 16.55e9,
    ("phi-4", "Q4_K_M"): 9.05e9,
    ("deepseek-v3", "Q4_K_M"): 404.4e9,
    ("gpt-oss-20b", "F16"): 13.79e9,
    ("gpt-oss-120b", "F16"): 65.37e9,
}


def read(path: Path) -> Header:
    with path.open("rb") as file:
        return read_header(file)


@functools.cache
def header_of(model: str, file_type: str = "Q4_K_M") -> Header:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_header(path, model, file_type)
        header = read(path)
        assert path.stat().st_size == header.data_offset, "the file goes on behind its header"
        return header


@pytest.mark.parametrize("model", MODELS)
def test_a_model_has_its_published_number_of_parameters(model: str) -> None:
    tensors = header_of(model).tensors
    parameters = sum(math.prod(tensor.shape) for tensor in tensors)
    assert parameters == pytest.approx(PUBLISHED_PARAMETERS[model], rel=0.001)


@pytest.mark.parametrize("model", PUBLISHED_BILLIONS)
def test_a_model_of_another_architecture_is_about_as_large_as_the_published_one(model: str) -> None:
    tensors = ARCHITECTURES[model].tensors().values()
    parameters = sum(math.prod(shape) for shape in tensors)
    assert parameters == pytest.approx(PUBLISHED_BILLIONS[model] * 1e9, rel=0.012)


def test_files_of_a_split_model_hold_its_tensors_together(tmp_path: Path) -> None:
    first, second = map(read, write_sparse_split(tmp_path, "qwen3-8b", "Q8_0", 2))
    names = [tensor.name for tensor in (*first.tensors, *second.tensors)]
    assert names == [tensor.name for tensor in header_of("qwen3-8b", "Q8_0").tensors]
    assert (first.split_count, second.split_count) == (2, 2)
    assert "general.architecture" not in second.values


@pytest.mark.parametrize(("model", "file_type"), PUBLISHED_BYTES)
def test_a_file_has_its_published_size(model: str, file_type: str) -> None:
    published = PUBLISHED_BYTES[model, file_type]
    assert header_of(model, file_type).file_bytes == pytest.approx(published, rel=0.002)


def test_a_header_has_the_size_of_a_real_one() -> None:
    assert 7e6 < header_of("llama-3.1-70b").data_offset < 8e6


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_experts_that_were_published_in_four_bits_stay_so(file_type: str) -> None:
    tensors = header_of("gpt-oss-20b", file_type).tensors
    experts = [tensor for tensor in tensors if tensor.name.endswith("_exps.weight")]
    assert {tensor.type_name for tensor in experts} == {"MXFP4"}


def test_a_sparse_file_is_as_long_as_the_real_one_but_takes_no_room(tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    write_sparse(path, "qwen3-8b", "Q4_K_M")
    header = read(path)
    assert header.file_bytes <= path.stat().st_size < header.file_bytes + 32
    assert path.stat().st_blocks * 512 < 2 * header.data_offset


def test_tensors_follow_each_other_without_gaps() -> None:
    tensors = header_of("deepseek-v3").tensors
    assert tensors[0].offset == 0
    for tensor, following in itertools.pairwise(tensors):
        assert 0 <= following.offset - (tensor.offset + tensor.bytes) < 32


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_header(tmp_path / name, "granite-4.0-h-tiny", "Q8_0")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_layers_that_differ_say_so_in_arrays() -> None:
    heads = header_of("granite-4.0-h-small").arrays["granitehybrid.attention.head_count_kv"]
    assert heads.values
    assert [layer for layer, count in enumerate(heads.values) if count] == [5, 15, 25, 35]


def test_the_script_writes_the_models_that_it_is_asked_for(tmp_path: Path) -> None:
    main([str(tmp_path / "out"), "--model", "mixtral-8x7b", "--file-type", "F16"])
    (path,) = (tmp_path / "out").iterdir()
    write_header(tmp_path / "expected", "mixtral-8x7b", "F16")
    assert path.name == "mixtral-8x7b-F16.gguf"
    assert path.read_bytes() == (tmp_path / "expected").read_bytes()
