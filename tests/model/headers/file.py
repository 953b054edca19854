"""Files: types of tensors, bytes, tokenizers."""

from __future__ import annotations

import functools
import itertools
import math
import string
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import gguf
from gguf import GGMLQuantizationType as Type

from tests.model.headers.architectures import ARCHITECTURES
from tests.model.headers.model import Model, Shape, Tensors, Value, Vocabulary
from tests.model.headers.models import MODELS

ALIGNMENT: Final = 32
FILE_TYPES: Final = {"F16": 1, "Q8_0": 7, "Q4_K_M": 15}
"""By llama.cpp's number for them."""


def write_header(path: Path, model: str, file_type: str) -> None:
    """Writes the header of a model of MODELS or ARCHITECTURES in one of FILE_TYPES. Always the
    same bytes."""
    path.write_bytes(_header(model, file_type)[0])


def write_sparse(path: Path, model: str, file_type: str) -> None:
    """Writes the header and makes the file as long as the real one, with a hole for the weights."""
    _write_sparse(path, *_header(model, file_type))


def write_sparse_split(folder: Path, model: str, file_type: str, files: int) -> list[Path]:
    """The same in several files, as gguf-split makes them: all parameters in the first, tensors in
    each."""
    paths = []
    for file in range(files):
        paths.append(folder / f"{model}-{file + 1:05}-of-{files:05}.gguf")
        _write_sparse(paths[-1], *_header(model, file_type, files, file))
    return paths


def _write_sparse(path: Path, header: bytes, data_bytes: int) -> None:
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + data_bytes)


# Types of tensors: what llama.cpp's converter and quantizer give them.


def _types(model: Model, tensors: Tensors, file_type: str) -> Iterator[Type]:
    better = _better(model, tensors)
    for name, shape in tensors.items():
        if _stays_f32(name, shape):
            yield Type.F32
        elif model.architecture == "gpt-oss" and "_exps" in name:
            yield Type.MXFP4  # as published, in files of any type
        elif file_type == "Q4_K_M":
            yield _fitting(_q4_k_m(model, name, name in better), shape[0])
        else:
            yield Type[file_type]


def _stays_f32(name: str, shape: Shape) -> bool:
    return (
        len(shape) < 2
        or not name.endswith(".weight")
        or name.endswith(("_norm.weight", "ffn_gate_inp.weight", ".conv.weight"))
        or any(
            part in name
            for part in ("conv1d", "altup", "laurel", "time_mix_lerp", "channel_mix_lerp")
        )
    )


def _q4_k_m(model: Model, name: str, better: bool) -> Type:
    """The type for a tensor. Models of 8 experts share so much else that they spend more on it."""
    part = name.split(".")[-2]
    if part == ("token_embd" if model.tied else "output"):
        return Type.Q6_K
    if model.experts == 8 and part in ("attn_k", "attn_v"):
        return Type.Q8_0
    if model.experts == 8 and part == "attn_output":
        return Type.Q5_K
    if better:
        return Type.Q6_K
    if part == "attn_v" and model.architecture in ("llama", "qwen2") and model.blocks == 80:
        return Type.Q5_K
    return Type.Q4_K


def _better(model: Model, tensors: Tensors) -> set[str]:
    """The tensors that get more bits: those that matter most, in the layers that matter most."""
    values = [name for name in tensors if name.endswith(("attn_v.weight", "attn_qkv.weight"))]
    downs = [name for name in tensors if ".ffn_down" in name and name.endswith(".weight")]
    return {name for i, name in enumerate(values) if _more_bits(i, len(values))} | {
        name
        for i, name in enumerate(downs)
        if _more_bits(int(name.split(".")[1]) if model.experts else i, model.blocks)
    }


def _more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _fitting(wanted: Type, row: int) -> Type:
    """`wanted`, or what stands in for it where it cannot store rows of that length."""
    if row % gguf.GGML_QUANT_SIZES[wanted][0] == 0:
        return wanted
    if row % gguf.GGML_QUANT_SIZES[Type.Q8_0][0]:
        return Type.F16
    return {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}[wanted]


# Bytes.


def _header(name: str, file_type: str, files: int = 1, file: int = 0) -> tuple[bytes, int]:
    """The header of one of so many files, and the length of what follows it in the real one."""
    model = MODELS.get(name) or ARCHITECTURES[name]
    tensors = model.tensors()
    each = -(-len(tensors) // files)
    mine = slice(file * each, (file + 1) * each)
    kinds = list(_types(model, tensors, file_type))[mine]
    infos, data_bytes = [], 0
    for (tensor, shape), kind in zip(list(tensors.items())[mine], kinds, strict=True):
        infos.append(
            _text(tensor) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, data_bytes)
        )
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        data_bytes += _padded(math.prod(shape) // elements * size)
    pairs = [] if file else list(_parameters(model, name, file_type))
    if files > 1:
        pairs += [
            _typed("split.no", gguf.GGUFValueType.UINT16, struct.pack("<H", file)),
            _typed("split.count", gguf.GGUFValueType.UINT16, struct.pack("<H", files)),
            _typed(
                "split.tensors.count", gguf.GGUFValueType.INT32, struct.pack("<i", len(tensors))
            ),
        ]
    header = b"".join((b"GGUF", struct.pack("<IQQ", 3, len(infos), len(pairs)), *pairs, *infos))
    return header.ljust(_padded(len(header)), b"\0"), data_bytes


def _parameters(model: Model, name: str, file_type: str) -> Iterator[bytes]:
    yield _pair("general.architecture", model.architecture)
    yield _pair("general.type", "model")
    yield _pair("general.name", name)
    yield _pair("general.file_type", FILE_TYPES[file_type])
    yield _pair("general.quantization_version", 2)
    for key, value in model.values.items():
        yield _pair(f"{model.architecture}.{key}", value)
    yield from _tokenizer(model.vocabulary)


def _padded(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _pair(key: str, value: Value) -> bytes:
    if isinstance(value, (list, tuple)):
        code = "f" if isinstance(value[0], float) else "i"
        kind = gguf.GGUFValueType.FLOAT32 if code == "f" else gguf.GGUFValueType.INT32
        return _array(key, kind, len(value), struct.pack(f"<{len(value)}{code}", *value))
    if isinstance(value, str):
        return _typed(key, gguf.GGUFValueType.STRING, _text(value))
    if isinstance(value, bool):
        return _typed(key, gguf.GGUFValueType.BOOL, struct.pack("<?", value))
    if isinstance(value, float):
        return _typed(key, gguf.GGUFValueType.FLOAT32, struct.pack("<f", value))
    return _typed(key, gguf.GGUFValueType.UINT32, struct.pack("<I", value))


def _array(key: str, kind: gguf.GGUFValueType, length: int, data: bytes) -> bytes:
    return _typed(key, gguf.GGUFValueType.ARRAY, struct.pack("<IQ", kind, length) + data)


def _typed(key: str, kind: gguf.GGUFValueType, data: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + data


# Tokenizers.


@functools.cache
def _tokenizer(vocabulary: Vocabulary) -> tuple[bytes, ...]:
    byte_pairs = vocabulary.kind == "gpt2"
    kinds = gguf.TokenType
    special = {vocabulary.begin: "<|begin|>", vocabulary.end: "<|end|>"}
    types = dict.fromkeys(special, kinds.CONTROL)
    free = [token for token in range(258) if token not in special]
    for byte, (token, character) in enumerate(zip(free, _byte_characters(), strict=False)):
        special[token] = character if byte_pairs else f"<0x{byte:02X}>"
        types[token] = kinds.NORMAL if byte_pairs else kinds.BYTE
    words = _words(vocabulary.size, "Ġ" if byte_pairs else "▁")
    if vocabulary.kind not in ("llama", "gpt2"):
        types = {}
    numbers = [types.get(token, kinds.NORMAL) for token in range(vocabulary.size)]
    pairs = [
        _pair("tokenizer.ggml.model", vocabulary.kind),
        _pair("tokenizer.ggml.pre", vocabulary.pre),
        _texts("tokenizer.ggml.tokens", (special.get(i, word) for i, word in enumerate(words))),
        _pair("tokenizer.ggml.token_type", numbers),
        _pair("tokenizer.ggml.bos_token_id", vocabulary.begin),
        _pair("tokenizer.ggml.eos_token_id", vocabulary.end),
    ]
    if vocabulary.sentences:
        pairs.append(_pair("tokenizer.ggml.token_type_count", vocabulary.sentences))
    if byte_pairs:
        pairs.append(_texts("tokenizer.ggml.merges", _merges(vocabulary.merges)))
    else:
        scores = [float(-token) for token in range(vocabulary.size)]
        pairs.append(_pair("tokenizer.ggml.scores", scores))
    return tuple(pairs)


def _byte_characters() -> list[str]:
    """The printable characters that stand for the 256 bytes in vocabularies of byte pairs."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = itertools.count(256)
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _words(count: int, space: str) -> Iterator[str]:
    """Words that all differ: in their last four letters, wherever they are of equal length."""
    for i, ending in enumerate(_endings(count)):
        yield space * (i % 2) + "synthetic"[: i % 10] + ending


def _merges(count: int) -> Iterator[str]:
    for i, ending in enumerate(_endings(count)):
        yield f"{ending} {'synthetic'[: 1 + i % 9]}"


def _endings(count: int) -> Iterator[str]:
    return map(
        "".join, itertools.islice(itertools.product(string.ascii_lowercase, repeat=4), count)
    )


def _texts(key: str, texts: Iterable[str]) -> bytes:
    packed = [_text(text) for text in texts]
    return _array(key, gguf.GGUFValueType.STRING, len(packed), b"".join(packed))
