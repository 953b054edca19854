"""Reading GGUF headers: real ones exactly, damaged and hostile ones with a clear error."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import gguf as writer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacluster.planning import gguf
from llamacluster.planning.gguf import GgufError, GgufTruncatedError, Header, read_header
from tests.model import Shape, write

U8, U32, F32, STRING, ARRAY, U64 = 0, 4, 6, 8, 9, 10


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, length: int, values: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, length) + values


def tensor(name: str, shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return (
        text(name)
        + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        + struct.pack("<IQ", kind, offset)
    )


ARCHITECTURE = pair("general.architecture", STRING, text("llama"))


def header(
    *pairs: bytes,
    tensors: tuple[bytes, ...] = (),
    version: int = 3,
    n_tensors: int | None = None,
    n_pairs: int | None = None,
    magic: bytes = b"GGUF",
) -> bytes:
    counts = (
        len(tensors) if n_tensors is None else n_tensors,
        len(pairs) if n_pairs is None else n_pairs,
    )
    return magic + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(tensors)


def read(data: bytes) -> Header:
    return read_header(io.BytesIO(data))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.gguf"
    write(path, Shape(layers=3))
    return path


def test_a_real_header_says_what_the_model_is(model: Path) -> None:
    with model.open("rb") as file:
        found = read_header(file)
    assert (found.architecture, found.block_count, found.context_length) == ("llama", 3, 4096)
    assert found.name == "LlamaCluster test model"
    assert found.version == 3
    assert found.split_count == 1
    assert found.file_bytes == model.stat().st_size
    assert found.arrays["tokenizer.ggml.tokens"] == gguf.Array(285)
    assert found.required("attention.head_count") == 2


def test_the_tensor_table_is_that_of_the_reference_reader(model: Path) -> None:
    with model.open("rb") as file:
        found = read_header(file)
    reference = writer.GGUFReader(model)
    assert found.data_offset == reference.data_offset
    assert [(t.name, t.shape, t.type_name, t.bytes) for t in found.tensors] == [
        (t.name, tuple(int(n) for n in t.shape), t.tensor_type.name, int(t.n_bytes))
        for t in reference.tensors
    ]


def test_tensor_sizes_agree_with_the_reference_table() -> None:
    for kind, (elements, size) in writer.GGML_QUANT_SIZES.items():
        if kind == writer.GGMLQuantizationType.Q8_1:
            continue  # 40 there is from before ggml made its scales halves; never in a file
        ours = gguf.TENSOR_TYPES[int(kind)]
        assert (ours.name, ours.block_elements, ours.block_bytes) == (kind.name, elements, size)


def test_no_more_is_read_than_the_header_and_a_chunk(model: Path) -> None:
    data = model.read_bytes()[: read(model.read_bytes()).data_offset] + bytes(1 << 20)
    source = io.BytesIO(data)
    read_header(source)
    assert source.tell() <= 512 << 10


def test_a_source_that_gives_single_bytes_reads_the_same(model: Path) -> None:
    class Dripping(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(1, size or 0))

    assert read_header(Dripping(model.read_bytes())) == read(model.read_bytes())


def test_version_2_is_read() -> None:
    assert read(header(ARCHITECTURE, version=2)).version == 2


def test_arrays_per_layer_are_kept_and_long_ones_skipped() -> None:
    found = read(
        header(
            ARCHITECTURE,
            pair("heads", ARRAY, array(U32, 3, struct.pack("<3I", 8, 4, 8))),
            pair("scores", ARRAY, array(F32, 5000, bytes(20000))),
            pair("words", ARRAY, array(STRING, 2, text("a") + text("b" * 1000))),
        )
    )
    assert found.arrays["heads"].values == (8, 4, 8)
    assert found.arrays["scores"] == gguf.Array(5000)
    assert found.arrays["words"] == gguf.Array(2)


def test_an_unknown_tensor_type_is_told_only_when_its_size_is_asked() -> None:
    found = read(header(ARCHITECTURE, tensors=(tensor("new", kind=99),)))
    with pytest.raises(GgufError, match="'new' has the unknown type 99"):
        found.file_bytes  # noqa: B018


def test_a_tensor_type_that_ggml_has_removed_is_told_with_the_one_to_take() -> None:
    found = read(header(ARCHITECTURE, tensors=(tensor("old", kind=36),)))
    with pytest.raises(GgufError, match=r"has the type IQ4_NL_4_4, .*: take the model's IQ4_NL f"):
        found.file_bytes  # noqa: B018


@pytest.mark.parametrize(
    ("pairs", "what"),
    [
        ((ARCHITECTURE, pair("general.type", STRING, text("adapter"))), "an adapter for a model"),
        ((pair("general.type", STRING, text("imatrix")),), "an importance matrix"),
        ((pair("general.architecture", STRING, text("clip")),), r"what .* see or hear \(mmproj\)"),
    ],
)
def test_a_file_beside_a_model_is_told_for_what_it_is(pairs: tuple[bytes, ...], what: str) -> None:
    with pytest.raises(GgufError, match=f"^it is {what}.*: name the model's own file$"):
        read(header(*pairs))
    assert read(header(ARCHITECTURE, pair("general.type", STRING, text("model")))).tensors == ()


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(GgufError, match=r"llama\.block_count \(found: None\)"):
        read(header(ARCHITECTURE)).block_count  # noqa: B018


HOSTILE = {
    "no GGUF file": (header(magic=b"PK\3\4"), "begins with b'PK"),
    "a web page": (header(magic=b"<!DO"), "it is a web page: give the address of the file"),
    "a pointer": (header(magic=b"vers"), "it is a pointer of Git LFS"),
    "version 1": (header(version=1), "GGUF version 1 is not readable"),
    "a later version": (header(version=4), "GGUF version 4 is not readable"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big endian"),
    "too many tensors": (header(n_tensors=1 << 60), "1152921504606846976 tensors"),
    "too many pairs": (header(n_pairs=1 << 40), "KV pairs"),
    "a huge key": (header(struct.pack("<Q", 1 << 63), n_pairs=1), "text of 9223372036854775808"),
    "a huge text": (
        header(pair("a", STRING, struct.pack("<Q", 1 << 33))),
        "text of 8589934592 bytes",
    ),
    "a huge array": (header(pair("a", ARRAY, array(U64, 1 << 61))), "longer than 256 MiB"),
    "endless texts": (header(pair("a", ARRAY, array(STRING, 1 << 50))), "longer than 256 MiB"),
    "nested arrays": (header(pair("a", ARRAY, array(ARRAY, 1))), "array of arrays"),
    "an unknown value type": (header(pair("a", 77, b"")), "'a' has the unknown value type 77"),
    "an unknown element type": (header(pair("a", ARRAY, array(13, 1))), "unknown value type 13"),
    "a key twice": (header(ARCHITECTURE, ARCHITECTURE), "is twice"),
    "a key without name": (header(pair("", U8, b"\0")), "nameless"),
    "no architecture": (header(), "no general.architecture"),
    "architecture no text": (header(pair("general.architecture", U8, b"\1")), "no general.arch"),
    "alignment zero": (
        header(ARCHITECTURE, pair("general.alignment", U32, bytes(4))),
        "general.alignment is 0",
    ),
    "five dimensions": (
        header(ARCHITECTURE, tensors=(tensor("t", (1, 1, 1, 1, 1)),)),
        "5 dimensions",
    ),
    "an overflowing shape": (
        header(ARCHITECTURE, tensors=(tensor("t", (1 << 40, 1 << 40)),)),
        "impossible shape",
    ),
    "an impossible offset": (
        header(ARCHITECTURE, tensors=(tensor("t", offset=(1 << 64) - 32),)),
        "'t' at 18446744073709551584 is beyond the end of any file",
    ),
    "an impossible size": (
        header(ARCHITECTURE, tensors=(tensor("t", (1 << 61,)),)),
        "'t' at 0 is beyond the end of any file",
    ),
    "a row of half a block": (
        header(ARCHITECTURE, tensors=(tensor("t", (48,), kind=8),)),
        "rows of 48 elements, but Q8_0 stores blocks of 32",
    ),
    "an odd offset": (header(ARCHITECTURE, tensors=(tensor("t", offset=7),)), "at 7, not a"),
    "a tensor twice": (header(ARCHITECTURE, tensors=(tensor("t"), tensor("t"))), "'t' is twice"),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_bad_header_is_refused_with_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(GgufError, match=message.replace("(", r"\(")) as caught:
        _ = read(data).architecture
    assert not isinstance(caught.value, GgufTruncatedError)


@given(st.integers(0, 10_000))
def test_a_header_that_is_cut_anywhere_is_truncated(length: int) -> None:
    whole = _small_model()
    cut = length % len(whole)
    with pytest.raises(GgufTruncatedError, match=f"after {cut} bytes"):
        read(whole[:cut])


@given(st.data())
def test_damage_gives_a_header_or_a_clear_error_and_nothing_else(data: st.DataObject) -> None:
    damaged = bytearray(_small_model())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(damaged) + bytes(4096))
    except GgufError:
        return
    assert found.data_offset <= len(damaged) + 4096 + (1 << 20)


@given(st.binary(max_size=400))
def test_noise_after_a_good_start_gives_a_header_or_a_clear_error(noise: bytes) -> None:
    for start in (b"", b"GGUF", header(n_tensors=3, n_pairs=3)):
        try:
            read(start + noise)
        except GgufError:
            continue


def test_a_tokenizer_of_a_large_model_takes_no_noticeable_memory() -> None:
    import tracemalloc

    tokens = b"".join(text(f"token{i}") for i in range(150_000))
    data = header(
        ARCHITECTURE, pair("tokenizer.ggml.tokens", ARRAY, array(STRING, 150_000, tokens))
    )
    tracemalloc.start()
    read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("kind", "value", "count"),
    [(STRING, text("x" * (1 << 20)), 16), (ARRAY, array(U8, 4096, bytes(4096)), 4096)],
)
def test_no_more_is_kept_than_there_is_memory_for(kind: int, value: bytes, count: int) -> None:
    few, many = (
        header(*(pair(f"key{i}", kind, value) for i in range(n))) for n in (count // 2, count)
    )
    assert len(read(few).values) + len(read(few).arrays) == count // 2
    with pytest.raises(GgufError, match="more than 16 MiB of names and texts"):
        read(many)


def _small_model() -> bytes:
    return header(
        ARCHITECTURE,
        pair("llama.block_count", U32, struct.pack("<I", 2)),
        pair("general.alignment", U32, struct.pack("<I", 64)),
        pair("llama.heads", ARRAY, array(U32, 2, bytes(8))),
        pair("tokenizer.ggml.tokens", ARRAY, array(STRING, 3, text("a") + text("b") + text(""))),
        tensors=(tensor("token_embd.weight", (64, 4), kind=8), tensor("output.weight", (64, 2))),
    )


def test_the_builder_of_these_tests_agrees_with_the_reference_writer(tmp_path: Path) -> None:
    made = writer.GGUFWriter(tmp_path / "reference.gguf", "llama")
    made.add_block_count(2)
    made.add_tensor("t", np.zeros(32, np.float32))
    made.write_header_to_file()
    made.write_kv_data_to_file()
    made.write_ti_data_to_file()
    made.close()
    ours = header(
        ARCHITECTURE,
        pair("llama.block_count", U32, struct.pack("<I", 2)),
        tensors=(tensor("t"),),
    )
    assert (tmp_path / "reference.gguf").read_bytes() == ours
