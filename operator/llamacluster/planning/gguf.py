"""Reads the header of a GGUF model file: its parameters and the table of its tensors.

The header is all that planning needs; the weights behind it are never touched. Reading goes forward
only and stops at the end of the header, so the source may be a file or a stream over the network.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Versions 2 and 3 are read, which
differ only in that 3 may be big endian; the engine reads no others.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

MAX_HEADER_BYTES: Final = 256 << 20
"""Largest header that is read. Real ones are a few MiB; what is larger is damaged or hostile."""
MAX_PAIRS: Final = 1 << 16
MAX_TENSORS: Final = 1 << 18
MAX_KEY_BYTES: Final = 65535
MAX_KEPT_BYTES: Final = 16 << 20
"""Names, texts and short arrays together. In Python's memory they take up to 18 times as much."""
MAX_DIMENSIONS: Final = 4
MAX_LAYERS: Final = 512
"""The engine's own limit."""
KEPT_ELEMENTS: Final = 4096
"""Arrays of numbers up to this length are kept (parameters per layer); longer ones, and those of
strings (tokenizers), are skipped."""

_CHUNK: Final = 256 << 10
_DEFAULT_ALIGNMENT: Final = 32

# Value types of the KV pairs, by their number in the file.
_SCALARS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING: Final = 8
_ARRAY: Final = 9
_U32: Final = _SCALARS[4]
_U64: Final = _SCALARS[10]


@dataclass(frozen=True)
class TensorType:
    """How ggml stores the elements of a tensor: in blocks of equal size."""

    name: str
    block_elements: int
    block_bytes: int


TENSOR_TYPES: Final[Mapping[int, TensorType]] = {
    number: TensorType(name, elements, size)
    for number, name, elements, size in (
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (9, "Q8_1", 32, 36),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18),
    )
}
"""By their number in the file, as of ggml 0.27 (ggml.h, ggml-common.h)."""
_REMOVED_TYPES: Final = {
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}
"""Those that ggml had once and no longer reads: it now repacks the plain type as it loads."""


class GgufError(ValueError):
    """The file is not a GGUF file that the engine can read. The message says why."""


class GgufTruncatedError(GgufError):
    """The source ended inside the header."""


class Source(Protocol):
    """Anything that is read forward, such as a file opened in binary mode."""

    def read(self, size: int, /) -> bytes: ...


Scalar = int | float | bool | str


@dataclass(frozen=True)
class Array:
    """An array among the KV pairs. `values` is None where it was skipped."""

    length: int
    values: tuple[int | float | bool, ...] | None = None


@dataclass(frozen=True)
class Tensor:
    """One line of the tensor table."""

    name: str
    shape: tuple[int, ...]
    """Elements along each dimension, the contiguous one first."""
    type_number: int
    offset: int
    """Bytes from the begin of the tensor data."""

    @property
    def type_name(self) -> str:
        known = TENSOR_TYPES.get(self.type_number)
        return known.name if known else f"type {self.type_number}"

    @property
    def bytes(self) -> int:
        """Bytes that it takes in the file, and on the device. Raises GgufError if ggml's type is
        newer than this table, or has been removed."""
        known = TENSOR_TYPES.get(self.type_number)
        if removed := _REMOVED_TYPES.get(self.type_number):
            raise GgufError(
                f"tensor {self.name!r} has the type {removed}, which the engine no longer reads:"
                f" take the model's {removed[:-4]} file"
            )
        if known is None:
            raise GgufError(
                f"tensor {self.name!r} has the unknown type {self.type_number}: its size is unknown"
            )
        return math.prod(self.shape) // known.block_elements * known.block_bytes


@dataclass(frozen=True)
class Header:
    """What a GGUF file says about the model before its weights."""

    version: int
    values: Mapping[str, Scalar] = field(repr=False)
    arrays: Mapping[str, Array] = field(repr=False)
    tensors: tuple[Tensor, ...] = field(repr=False)
    data_offset: int
    """Bytes before the tensor data: the whole header with its padding."""
    digest: str = ""
    """SHA-256 of the header without its padding, 64 hex digits."""

    @property
    def architecture(self) -> str:
        """Raises GgufError if the header does not say, as those of a split model's later files."""
        found = self._text("general.architecture")
        if not found:
            raise GgufError("the header has no general.architecture")
        return found

    @property
    def name(self) -> str | None:
        return self._text("general.name")

    @property
    def block_count(self) -> int:
        """Layers without the output layer. Raises GgufError if the header does not say, or says
        more than MAX_LAYERS."""
        count = self.required("block_count")
        if count > MAX_LAYERS:
            raise GgufError(f"the header claims {count} layers, more than {MAX_LAYERS}")
        return count

    @property
    def context_length(self) -> int:
        """Tokens that the model was trained for. Raises GgufError if the header does not say."""
        return self.required("context_length")

    @property
    def split_count(self) -> int:
        """Files that the model consists of."""
        count = self.values.get("split.count", 1)
        return count if isinstance(count, int) and count > 1 else 1

    @property
    def file_bytes(self) -> int:
        """The least size of a file that holds all tensors of this header's table.

        Raises GgufError for tensors of unknown type.
        """
        return self.data_offset + max((t.offset + t.bytes for t in self.tensors), default=0)

    def required(self, name: str) -> int:
        """The whole number that the architecture calls `name`, for example `head_count`."""
        value = self.number(name)
        if value is None:
            key = f"{self.architecture}.{name}"
            raise GgufError(f"the header has no usable {key} (found: {self.values.get(key)!r})")
        return value

    def number(self, name: str) -> int | None:
        """The same; None if the header has no such whole number that is not negative."""
        value = self.values.get(f"{self.architecture}.{name}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            return None
        return value

    def per_layer(self, name: str, default: int) -> list[int]:
        """The whole number `name` of each layer, whether the header has one for all or an array."""
        count = self.block_count
        array = self.arrays.get(f"{self.architecture}.{name}")
        if array is None or array.values is None or array.length < count:
            one = self.number(name)
            return [default if one is None else one] * count
        return [int(value) for value in array.values[:count]]

    def _text(self, key: str) -> str | None:
        value = self.values.get(key)
        return value if isinstance(value, str) else None


def read_header(source: Source) -> Header:
    """The header that `source`, at its first byte, begins with.

    Reads at most MAX_HEADER_BYTES plus one chunk, whatever the counts in the file say. Raises
    GgufTruncatedError if the source ends too early and GgufError for anything else that is wrong.
    """
    reader = _Reader(source)
    version = _read_version(reader)
    n_tensors, n_pairs = reader.count(_U64, MAX_TENSORS, "tensors"), 0
    n_pairs = reader.count(_U64, MAX_PAIRS, "KV pairs")
    values: dict[str, Scalar] = {}
    arrays: dict[str, Array] = {}
    for _ in range(n_pairs):
        key = reader.string(MAX_KEY_BYTES)
        if not key or key in values or key in arrays:
            raise GgufError(f"KV pair {key!r} is {'twice in the header' if key else 'nameless'}")
        kind = reader.number(_U32)
        if kind == _ARRAY:
            arrays[key] = _read_array(reader, key)
        elif kind == _STRING:
            values[key] = reader.string(MAX_KEPT_BYTES)
        else:
            values[key] = reader.scalar(_scalar(kind, key))
    for key in ("general.type", "general.architecture"):
        if what := _NO_MODELS.get(values.get(key, "")):
            raise GgufError(f"it is {what}: name the model's own file")
    alignment = _alignment(values)
    tensors = _read_tensors(reader, n_tensors, alignment)
    data_offset = -(-reader.position // alignment) * alignment
    return Header(version, values, arrays, tensors, data_offset, reader.digest())


# What people have when they meant a model: by its type or architecture, and by its first bytes.
_NO_MODELS: Final[Mapping[Scalar, str]] = {
    **dict.fromkeys(("mmproj", "clip"), "what lets a model see or hear (mmproj), not a model"),
    "adapter": "an adapter for a model (LoRA), not a model",
    "imatrix": "an importance matrix, of which models are quantised",
}
# See git-lfs's spec.md for the pointer's first word.
_OTHERS = {
    **dict.fromkeys(
        (b"<!do", b"<htm"),
        "a web page: give the address of the file, and credentialsSecret if it is not public",
    ),
    b"vers": "a pointer of Git LFS: take the file that it stands for (`git lfs pull`)",
}


def _read_version(reader: _Reader) -> int:
    magic = reader.take(4)
    if magic != b"GGUF":
        what = _OTHERS.get(magic.lower(), "no GGUF file")
        raise GgufError(f"the file begins with {magic!r}, not with b'GGUF': it is {what}")
    version = reader.number(_U32)
    if version in (2, 3):
        return version
    if version & 0xFFFF == 0:
        raise GgufError("the file is big endian; the engine on this machine reads little endian")
    raise GgufError(f"GGUF version {version} is not readable, only 2 and 3 are: convert it anew")


def _scalar(kind: int, key: str) -> struct.Struct:
    try:
        return _SCALARS[kind]
    except KeyError:
        raise GgufError(f"KV pair {key!r} has the unknown value type {kind}") from None


def _read_array(reader: _Reader, key: str) -> Array:
    kind = reader.number(_U32)
    if kind == _ARRAY:
        raise GgufError(f"KV pair {key!r} is an array of arrays, which the engine does not read")
    length = reader.number(_U64)
    if kind == _STRING:
        reader.skip_strings(length)
        return Array(length)
    element = _scalar(kind, key)
    if length > KEPT_ELEMENTS:
        reader.skip(length * element.size)
        return Array(length)
    data = reader.take(length * element.size)
    return Array(length, tuple(value for (value,) in element.iter_unpack(data)))


def _alignment(values: Mapping[str, Scalar]) -> int:
    alignment = values.get("general.alignment", _DEFAULT_ALIGNMENT)
    if (
        not isinstance(alignment, int)
        or isinstance(alignment, bool)
        or not 0 < alignment <= 1 << 20
        or alignment & (alignment - 1)
    ):
        raise GgufError(f"general.alignment is {alignment!r}, not a power of two up to 1 MiB")
    return alignment


def _read_tensors(reader: _Reader, count: int, alignment: int) -> tuple[Tensor, ...]:
    tensors: dict[str, Tensor] = {}
    for _ in range(count):
        name = reader.string(MAX_KEY_BYTES)
        dimensions = reader.number(_U32)
        if dimensions > MAX_DIMENSIONS:
            raise GgufError(f"tensor {name!r} has {dimensions} dimensions, more than 4")
        shape = tuple(reader.number(_U64) for _ in range(dimensions))
        tensor = Tensor(name, shape, reader.number(_U32), reader.number(_U64))
        known = TENSOR_TYPES.get(tensor.type_number)
        if math.prod(shape) >= 1 << 63:
            raise GgufError(f"tensor {name!r} has the impossible shape {shape}")
        if known and (shape[0] if shape else 1) % known.block_elements:
            raise GgufError(
                f"tensor {name!r} has rows of {shape[0] if shape else 1} elements,"
                f" but {known.name} stores blocks of {known.block_elements}"
            )
        if tensor.offset + (tensor.bytes if known else 0) >= 1 << 62:
            raise GgufError(f"tensor {name!r} at {tensor.offset} is beyond the end of any file")
        if tensor.offset % alignment:
            raise GgufError(f"tensor {name!r} is at {tensor.offset}, not a multiple of {alignment}")
        if name in tensors:
            raise GgufError(f"tensor {name!r} is twice in the header")
        tensors[name] = tensor
    return tuple(tensors.values())


class _Reader:
    """Takes values off the front of a source, in large reads."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = b""
        self._next = 0
        self._before = 0
        self._kept = 0
        self._hash = hashlib.sha256()

    def digest(self) -> str:
        """SHA-256 of what was taken so far, in hex."""
        digest = self._hash.copy()
        digest.update(memoryview(self._buffer)[: self._next])
        return digest.hexdigest()

    @property
    def position(self) -> int:
        """Bytes taken so far."""
        return self._before + self._next

    def number(self, kind: struct.Struct) -> int:
        value = self.scalar(kind)
        assert isinstance(value, int)  # noqa: S101 - kind is _U32 or _U64
        return value

    def scalar(self, kind: struct.Struct) -> int | float | bool:
        self._ensure(kind.size)
        value: int | float | bool = kind.unpack_from(self._buffer, self._next)[0]
        self._next += kind.size
        return value

    def count(self, kind: struct.Struct, most: int, what: str) -> int:
        value = self.number(kind)
        if value > most:
            raise GgufError(f"the header claims {value} {what}, more than {most}: it is damaged")
        return value

    def take(self, length: int) -> bytes:
        self._kept += length
        if self._kept > MAX_KEPT_BYTES:
            raise GgufError(
                f"the header has more than {MAX_KEPT_BYTES >> 20} MiB of names and texts:"
                " it is damaged"
            )
        self._ensure(length)
        data = self._buffer[self._next : self._next + length]
        self._next += length
        return data

    def string(self, longest: int) -> str:
        length = self.number(_U64)
        if length > longest:
            raise GgufError(
                f"a text of {length} bytes at {self.position}, more than {longest}: it is damaged"
            )
        return self.take(length).decode("utf-8", "replace")

    def skip(self, length: int) -> None:
        self._check(length)
        while length:
            step = min(length, _CHUNK)
            self._ensure(step)
            self._next += step
            length -= step

    def skip_strings(self, count: int) -> None:
        self._check(count * _U64.size)  # at least
        unpack = _U64.unpack_from
        for _ in range(count):
            if self._next + 8 > len(self._buffer):
                self._ensure(8)
            length: int = unpack(self._buffer, self._next)[0]
            self._next += 8
            if self._next + length <= len(self._buffer):
                self._next += length
            else:
                self.skip(length)

    def _check(self, length: int) -> None:
        if self.position + length > MAX_HEADER_BYTES:
            raise GgufError(
                f"the header claims to be longer than {MAX_HEADER_BYTES >> 20} MiB: it is damaged"
            )

    def _ensure(self, length: int) -> None:
        """Makes `length` bytes available behind `_next`."""
        if self._next + length <= len(self._buffer):
            return
        self._check(length)
        rest = self._buffer[self._next :]
        self._hash.update(memoryview(self._buffer)[: self._next])
        self._before += self._next
        self._next = 0
        parts = [rest]
        have = len(rest)
        while have < length:
            data = self._source.read(max(length - have, _CHUNK))
            if not data:
                self._buffer = b"".join(parts)
                raise GgufTruncatedError(
                    f"the file ends inside its header, after {self._before + have} bytes"
                )
            parts.append(data)
            have += len(data)
        self._buffer = b"".join(parts)
