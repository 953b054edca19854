"""docs/api.md, made from the types: each with its fields, their types, defaults and bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from llamacluster.api import GROUP, PLURAL, VERSION
from llamacluster.api.llamacluster import LlamaCluster

Schema = dict[str, Any]

MAX_PATTERN = 40
"""A longer pattern tells a person less than the description does."""
_HEAD = f"""\
<!-- Generated from operator/llamacluster/api by `make generate`. Do not edit. -->

# API: LlamaCluster

`apiVersion: {GROUP}/{VERSION}`, `kind: LlamaCluster`; namespaced; `{PLURAL}`, short `llc`.
The API server checks all of it: an unknown field, a value out of its bounds and a broken rule are
errors, which `kubectl apply --dry-run=server -f FILE` shows without a change.
`kubectl explain llc.spec` has the same texts.
"""


def reference() -> str:
    """The page as Markdown, ending in a newline."""
    root = LlamaCluster.model_json_schema(by_alias=True)
    types: dict[str, Schema] = root["$defs"]
    parts = [_HEAD, *_rules(root["x-kubernetes-validations"], "The name")]
    for title, first, written in (
        ("Spec", "LlamaClusterSpec", True),
        ("Status", "LlamaClusterStatus", False),
    ):
        parts.append(f"\n## {title}\n")
        for name, places in _reachable(types, first, title.lower()).items():
            parts += _section(types, name, places, written=written)
    return "".join(parts)


def _reachable(types: dict[str, Schema], first: str, place: str) -> dict[str, list[str]]:
    """The objects below a type, nearest first, each with the places of the manifest where it is."""
    found: dict[str, list[str]] = {}
    todo = [(first, place)]
    while todo:
        name, at = todo.pop(0)
        known = name in found
        found.setdefault(name, []).append(at)
        if known:
            continue
        for field, schema in types[name]["properties"].items():
            todo += [
                (reference, f"{at}.{field}{_suffix(schema)}")
                for reference in _references(schema)
                if "properties" in types[reference]
            ]
    return found


def _section(
    types: dict[str, Schema], name: str, places: list[str], *, written: bool
) -> Iterator[str]:
    schema = types[name]
    yield f"\n### {name}\n\n"
    yield f"{_prose(schema['description'])} In {', '.join(f'`{place}`' for place in places)}.\n\n"
    columns = ["field", "type", "default", "bounds", "what it is"]
    if not written:  # the operator fills it in
        columns = ["field", "type", "what it is"]
    yield _row(columns) + _row(["---"] * len(columns))
    required = schema.get("required", [])
    for field, described in schema["properties"].items():
        one = _variant(described)
        cells = [f"`{field}`", _type(types, one)]
        if written:
            cells += [
                "required" if field in required else _default(described),
                ", ".join(_bounds(one)),
            ]
        yield _row([*cells, _description(types, described)])
    yield from _rules(schema.get("x-kubernetes-validations", []), "It")
    for field, described in schema["properties"].items():
        one = _variant(described)
        of_items = (one.get("items") or {}).get("x-kubernetes-validations", [])
        validations = [*one.get("x-kubernetes-validations", []), *of_items]
        yield from _rules(validations, f"`{field}`")


def _rules(validations: list[dict[str, str]], what: str) -> Iterator[str]:
    """What the API server says when it refuses something."""
    if validations:
        yield f"\n{what} is refused with:\n\n"
        yield from (f"- {rule['message']}\n" for rule in validations)


def _variant(schema: Schema) -> Schema:
    """The schema of a field that is there: `X | None` is an optional X."""
    variants = [one for one in schema.get("anyOf", []) if one.get("type") != "null"]
    return variants[0] if len(variants) == 1 else schema


def _references(schema: Schema) -> Iterator[str]:
    one = _variant(schema)
    for part in chain([one], (one[key] for key in ("items", "additionalProperties") if key in one)):
        if isinstance(part, dict) and "$ref" in part:
            yield part["$ref"].rsplit("/", 1)[1]


def _suffix(schema: Schema) -> str:
    one = _variant(schema)
    return (
        "[]"
        if "items" in one
        else ".*"
        if isinstance(one.get("additionalProperties"), dict)
        else ""
    )


def _type(types: dict[str, Schema], schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        target = types[name]
        if "enum" in target:
            return " or ".join(f"`{value}`" for value in target["enum"])
        return f"[{name}](#{name.lower()})"
    match schema["type"]:
        case "array":
            return f"list of {_type(types, schema['items'])}"
        case "object":
            return f"map to {_type(types, schema['additionalProperties'])}"
        case "string" if schema.get("format"):
            return str(schema["format"])
    return str(schema["type"])


def _default(schema: Schema) -> str:
    match schema.get("default"):
        case None | dict():
            return ""
        case bool(value):
            return f"`{str(value).lower()}`"
        case list(values):
            return f"`[{', '.join(map(str, values))}]`"
        case value:
            return f"`{value}`"


def _bounds(schema: Schema) -> Iterator[str]:
    if schema.get("x-kubernetes-int-or-string"):
        return
    for low, high, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
        ("minProperties", "maxProperties", " entries"),
    ):
        match schema.get(low), schema.get(high):
            case None | 0, int(most) if unit:
                yield f"at most {most:,}{unit}"
            case least, most if least is not None and most is not None:
                yield f"{least:,} to {most:,}{unit}"
            case least, None if least is not None:
                yield f"at least {least:,}{unit}"
    if len(schema.get("pattern", "")) in range(1, MAX_PATTERN):
        yield f"`{schema['pattern']}`"


def _description(types: dict[str, Schema], schema: Schema) -> str:
    if "description" not in schema:  # where it is the type's own
        schema = types[next(_references(schema))]
    return _prose(schema["description"])


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


def _prose(text: str) -> str:
    """A docstring as one flowing paragraph."""
    return re.sub(r"\s+", " ", text).strip()
