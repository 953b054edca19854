"""Bytes per layer, from the tensor tables of real models."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from llamacluster.planning.gguf import GgufError, Header, read_header
from llamacluster.planning.model import Model, guesses_ahead, model_of
from tests.model.headers import MODELS, write_header


@functools.cache
def header_of(name: str, file_type: str = "Q4_K_M") -> Header:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "header.gguf"
        write_header(path, name, file_type)
        with path.open("rb") as file:
            return read_header(file)


@functools.cache
def model(name: str, file_type: str = "Q4_K_M") -> Model:
    return model_of([header_of(name, file_type)])


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_is_in_one_layer_or_in_the_leader(name: str) -> None:
    found = model(name)
    tied = found.input_bytes if "output.weight" not in found.shapes else 0
    assert sum(found.layer_bytes) + found.input_bytes == found.bytes + tied
    assert all(0 < large <= total for large, total in zip(
        found.largest_tensor, found.layer_bytes, strict=True
    ))  # fmt: skip


def test_the_output_layer_is_the_last() -> None:
    found = model("llama-3.1-8b", "F16")
    assert found.layers == 33
    assert found.layer_bytes[-1] == 128256 * 4096 * 2 + 4096 * 4  # matrix, norm


def test_tied_embeddings_are_in_the_leader_and_in_the_last_worker() -> None:
    found = model("gemma-3-27b", "F16")
    embedding = 262144 * 5376 * 2
    assert found.input_bytes == embedding
    assert found.layer_bytes[-1] == embedding + 5376 * 4


def test_layers_that_guess_further_tokens_count_but_weigh_nothing() -> None:
    found = model("glm-4.5-air")
    assert found.layers == 48
    assert found.layer_bytes[45] > 1 << 30
    assert (found.layer_bytes[46], found.tensors[46]) == (0, frozenset())
    assert found.layer_bytes[47] > 1 << 28


def test_what_prepares_a_token_for_all_layers_is_with_the_first() -> None:
    found = model("gemma-3n-e4b", "F16")
    assert found.layer_bytes[0] - found.layer_bytes[1] == 2048 * 256 * 35 * 2 + 256 * 4
    assert found.input_bytes == (2048 + 256 * 35) * 262144 * 2


def test_a_model_that_only_embeds_has_no_output_matrix() -> None:
    assert model("bge-m3").layers == 25
    assert model("bge-m3").layer_bytes[-1] == 0


def test_layers_that_guess_ahead_weigh_something_if_they_are_used() -> None:
    assert model("glm-4.5-air").layer_bytes[46] == 0
    ahead = model_of([header_of("glm-4.5-air")], ahead=True)
    assert ahead.layer_bytes[46] > ahead.layer_bytes[44]
    assert ahead.largest_tensor[46] > 0
    assert ahead.digest == model("glm-4.5-air").digest


@pytest.mark.parametrize(
    ("extra_args", "ahead"),
    [
        (("--spec-type", "draft-mtp"), True),
        (("--spec_type", "ngram-mod,draft-mtp"), True),
        (("--spec-type", "ngram-mod"), False),
        (("--spec-type",), False),
        (("draft-mtp", "--seed"), False),
    ],
)
def test_the_users_arguments_say_whether_it_is_guessed_ahead(
    extra_args: tuple[str, ...], ahead: bool
) -> None:
    assert guesses_ahead(extra_args) == ahead


def test_an_encoder_with_a_decoder_is_refused() -> None:
    with pytest.raises(GgufError, match="llama-server does not serve"):
        model("flan-t5-xl")


def split_in_two(header: Header) -> list[Header]:
    """As gguf-split does it: all parameters in the first file, the tensors in both."""
    middle = len(header.tensors) // 2
    count = {"split.count": 2}
    return [
        replace(header, values={**header.values, **count}, tensors=header.tensors[:middle]),
        replace(header, values=count, arrays={}, tensors=header.tensors[middle:], digest="b"),
    ]


def test_a_model_in_two_files_is_the_same_model() -> None:
    whole = model("qwen3-8b")
    parts = model_of(split_in_two(header_of("qwen3-8b")))
    assert (parts.layer_bytes, parts.input_bytes) == (whole.layer_bytes, whole.input_bytes)
    assert parts.digest != whole.digest


def test_what_makes_no_whole_model_is_refused() -> None:
    first, second = split_in_two(header_of("qwen3-8b"))
    with pytest.raises(GgufError, match="one of 2 files of its model, but 1 were found"):
        model_of([first])
    with pytest.raises(GgufError, match="is in two files"):
        model_of([first, replace(second, tensors=first.tensors)])
    stray = replace(first.tensors[0], name="blk.36.attn_q.weight")
    with pytest.raises(GgufError, match=r"blk\.36\.attn_q\.weight' is beyond the 36 layers"):
        model_of([first, replace(second, tensors=(stray,))])
