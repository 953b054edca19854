"""Manifests of users: YAML or JSON, of one or more objects, of which the LlamaClusters count."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llamacluster.api import API_VERSION, KIND
from llamacluster.api.crd import custom_resource_definition
from llamacluster.api.llamacluster import LlamaCluster

MAX_BYTES = 3 << 20
"""The most that an API server takes in one request."""
MAX_DEPTH = 100
NOT_NAMED = ""
"""The namespace of a manifest that names none: which it is, the command line says."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MANIFEST = dict[str, Any]


class BadManifest(Exception):
    """There is no LlamaCluster in it, or one that the API server would refuse."""


def read_manifest(content: bytes, name: str) -> list[LlamaCluster]:
    """The LlamaClusters in a file called `name`, in their order; other kinds are passed over.

    Raises BadManifest, which names the file, the object and the field.
    """
    objects = objects_of(content, name)
    if not objects:
        raise BadManifest(f"{name} is empty: it should hold a {KIND}")
    found = [_parsed(each, name) for each in objects if _is_ours(each)]
    if not found:
        kinds = ", ".join(sorted({str(each.get("kind", "no kind")) for each in objects}))
        raise BadManifest(
            f"{name} holds no {KIND} of {API_VERSION.partition('/')[0]}, but: {kinds}"
        )
    return found


def objects_of(content: bytes, name: str) -> list[dict[str, Any]]:
    """The objects in a file called `name`, of whatever kind. Raises BadManifest."""
    if len(content) > MAX_BYTES:
        raise BadManifest(f"{name} is larger than {MAX_BYTES >> 20} MiB: it is no manifest")
    try:
        return [each for document in _documents(content) for each in _objects(document)]
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise BadManifest(f"{name} is neither YAML nor JSON: {_in_a_line(error)}") from error


def problems(manifest: dict[str, Any]) -> list[str]:
    """Why the API server would refuse a LlamaCluster, in a line for each field."""
    try:
        _validated(manifest)
    except ValidationError as error:
        return [_problem(each) for each in error.errors(include_url=False)]
    except (ValueError, TypeError) as error:
        return [_in_a_line(error)]
    return []


def _documents(content: bytes) -> Iterator[object]:
    text = content.decode("utf-8-sig")
    if text.lstrip().startswith("{"):
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            pass  # YAML may begin so too
        else:
            return
    _check_expanded(text)
    yield from yaml.load_all(text, _LOADER)


def _check_expanded(text: str) -> None:
    """Raises ValueError for a document that would be far larger than it looks: aliases of aliases
    grow without bound."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, _LOADER):
        anchor: str | None = getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent):
            if len(open_nodes) >= MAX_DEPTH:
                raise ValueError(f"more than {MAX_DEPTH} levels deep")
            open_nodes.append((anchor, 1))
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
        elif isinstance(event, yaml.ScalarEvent):
            size = 1 + len(event.value)
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == each for each, _ in open_nodes):
                raise ValueError(f"*{anchor} holds itself")
            size = sizes.get(str(anchor), 1)
        else:
            continue
        if anchor and not isinstance(event, yaml.AliasEvent):
            sizes[anchor] = size
        if open_nodes:
            outer, inner_size = open_nodes[-1]
            open_nodes[-1] = outer, inner_size + size
        if size > MAX_BYTES:
            raise ValueError(
                f"with its aliases written out it is larger than {MAX_BYTES >> 20} MiB"
            )


def _objects(document: object) -> Iterator[_MANIFEST]:
    """The objects of a document: those of its list if it is one, as of `kubectl get -o yaml`."""
    if document is None:
        return
    if not isinstance(document, dict):
        raise ValueError("a manifest begins with apiVersion and kind")
    items = document.get("items")
    if str(document.get("kind", "")).endswith("List") and isinstance(items, list):
        for item in items:
            yield from _objects(item)
    else:
        yield document


def _is_ours(manifest: _MANIFEST) -> bool:
    group = str(manifest.get("apiVersion", "")).partition("/")[0]
    return manifest.get("kind") == KIND and group == API_VERSION.partition("/")[0]


def _parsed(manifest: _MANIFEST, name: str) -> LlamaCluster:
    if wrong := problems(manifest):
        metadata = manifest.get("metadata")
        named = isinstance(metadata, dict) and metadata.get("name")
        called = f" {named}" if named else ""
        raise BadManifest("\n  ".join([f"{name}: the {KIND}{called} is not valid:", *wrong]))
    return _validated(manifest)


def _validated(manifest: _MANIFEST) -> LlamaCluster:
    wanted = {key: value for key, value in manifest.items() if key != "status"}
    wanted = _without_nulls(wanted, _schema())
    metadata = wanted.get("metadata")
    if isinstance(metadata, dict):
        wanted["metadata"] = {"namespace": NOT_NAMED, **metadata}
    # As strict as the API server: by JSON, where 3 is no "3", and by the API's names alone.
    text = json.dumps(wanted, default=str)
    return LlamaCluster.model_validate_json(text, strict=True, by_alias=True, by_name=False)


@cache
def _schema() -> dict[str, Any]:
    [version] = custom_resource_definition()["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def _without_nulls(value: Any, schema: dict[str, Any]) -> Any:
    """As the API server does it: a field that is null, such as YAML's `leader:` with nothing below,
    is not there."""
    if isinstance(value, list):
        return [_without_nulls(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    fields, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    known = {key: fields.get(key, others) for key in value}
    return {
        key: _without_nulls(inner, known[key])
        for key, inner in value.items()
        if inner is not None or not known[key]
    }


def _problem(error: ErrorDetails) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    return f"{path.lstrip('.') or 'the object'}: {_what_is_wrong(error)}"


def _what_is_wrong(error: ErrorDetails) -> str:
    match error["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            near = difflib.get_close_matches(str(error["loc"][-1]), _fields(error["loc"][:-1]), 1)
            return "there is no such field" + (f"; did you mean {near[0]}?" if near else "")
        case "string_pattern_mismatch" if error["loc"][-1] == "uri":
            return (
                f"{error['input']!r} is none of https://host/path.gguf,"
                " hf://org/repo/path.gguf, pvc://claim/path.gguf and file:///path.gguf"
            )
    return _in_a_line(error["msg"].removeprefix("Value error, "))


def _fields(path: tuple[int | str, ...]) -> list[str]:
    """The fields of the API's type at `path`."""
    model: type[BaseModel] = LlamaCluster
    for part in path:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        kind = fields[part].annotation if isinstance(part, str) and part in fields else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        model = kind
    return [field.alias or name for name, field in model.model_fields.items()]


def _in_a_line(error: Exception | str) -> str:
    return " ".join(str(error).split())[:500]
