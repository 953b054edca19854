"""Kubernetes' own schema of its objects, of any version, as client-go has it for server-side
apply."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

from tests.build import Manifest
from tests.kind.gotools import module_folder

Type = dict[str, Any]
OLDEST = "v0.29.15"
"""Of the oldest Kubernetes that the chart takes."""
NEWEST = "v0.36.3"
"""Of the one that the tests' cluster runs."""
SCALARS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "numeric": (int, float),
    "boolean": bool,
}


def knows(version: str, manifest: Manifest) -> bool:
    """Whether the kind is Kubernetes' own."""
    return _name(manifest) in _types(version)


def errors(version: str, manifest: Manifest) -> list[str]:
    """Fields that Kubernetes does not know, and values of another type."""
    types = _types(version)

    def check(kind: Type, value: Any, path: str) -> Iterator[str]:
        if "namedType" in kind:
            kind = types[kind["namedType"]]
        if value is None or kind.get("scalar") == "untyped":
            return
        if "scalar" in kind:
            if not isinstance(value, SCALARS[kind["scalar"]]) or (
                isinstance(value, bool) and kind["scalar"] != "boolean"
            ):
                yield f"{path}: {value!r} is no {kind['scalar']}"
        elif "list" in kind and isinstance(value, list):
            for index, item in enumerate(value):
                yield from check(kind["list"]["elementType"], item, f"{path}[{index}]")
        elif "map" in kind and isinstance(value, dict):
            fields = {field["name"]: field["type"] for field in kind["map"].get("fields", [])}
            for key, item in value.items():
                if of_key := fields.get(key) or kind["map"].get("elementType"):
                    yield from check(of_key, item, f"{path}.{key}")
                else:
                    yield f"{path}.{key} is unknown"
        else:
            yield f"{path}: {value!r} is of the wrong kind"

    return list(check(types[_name(manifest)], manifest, manifest["kind"]))


@cache
def _types(version: str) -> dict[str, Type]:
    source = module_folder("k8s.io/client-go", version) / "applyconfigurations/internal/internal.go"
    text = re.search(r"YAMLObject\(`(.*?)`\)", source.read_text(), re.DOTALL)
    assert text
    # The C one where there is one: it is ten times as fast.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return {found["name"]: found for found in yaml.load(text[1], loader)["types"]}  # noqa: S506


def _name(manifest: Manifest) -> str:
    group, _, version = manifest["apiVersion"].rpartition("/")
    return f"io.k8s.api.{group.split('.')[0] or 'core'}.{version}.{manifest['kind']}"
