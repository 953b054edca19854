"""Manifests that nobody means well with, made by code from the CRD's schema.

Each has a name that says what it tries. What the API server says of them is not written down here:
the tests hold it to naming the field, and what it takes leads to a condition.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from llamacluster.api.crd import custom_resource_definition
from llamacluster.api.engineflags import refusal
from tests.build import Manifest, manifest

Schema = dict[str, Any]
Path = tuple[str | int, ...]

SPEC: Schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"][
    "properties"
]["spec"]

EXAMPLES: dict[str, Any] = {
    "uri": "http://models/m.gguf",
    "sha256": "0" * 64,
    "size": "1Gi",
    "batchSize": 1_048_576,
    "count": 2,
}
"""Good values of fields whose schema alone does not give one."""

TEXTS = {
    "empty": "",
    "space": " a",
    "accents": "é",
    "emoji": "💥" * 20,
    "right to left": "a\u202eb",
    "full width": "--\uff48\uff4f\uff53\uff54",
    "no-break space": "a\u00a0b",
    "NUL": "a\0b",
    "lines": "a\nb: c\n---\n",
    "escape": "\x1b[2J",
    "quotes": "'\"\\",
    "environment": "$(PATH)$$(HOME)",
    "shell": "`id`;$(id)|id&",
    "a flag": "--rpc=10.0.0.1:50052",
    "end of flags": "--",
    "path": "../../etc/passwd",
    "template": "{{ .Values.x }}{% x %}${jndi:ldap://x}",
    "haproxy": "\n  http-request allow\n",
    "CEL": "') || true || ('",
    "format": "%s%n%(x)s{0.__class__}",
    "long": "a" * 400,
    "very long": "a" * 3000,
    "own label": "llamacluster.dev/cluster",
}
NUMBERS = (-1, 0, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 1e308, 0.5)
SAME_TYPES = ("leader", "podAntiAffinity")
"""Fields of types that another field has too: workers, podAffinity."""
WRONG_TYPES: tuple[Any, ...] = ("text", 7, True, ["a"], {"a": "b"})


def fields(schema: Schema = SPEC, path: Path = ("spec",)) -> Iterator[tuple[Path, Schema]]:
    """Each field of the spec with its schema, each type once; 0 is for entries of lists, `a` of
    maps."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        if name in SAME_TYPES:
            continue
        yield from fields(field, (*path, name))
    if "items" in schema:
        yield from fields(schema["items"], (*path, 0))
    if "additionalProperties" in schema:
        yield from fields(schema["additionalProperties"], (*path, "a"))


FIELDS = dict(fields())


def least(path: Path) -> Any:
    """The least good value of a field."""
    schema = FIELDS.get(path, {})
    if path[-1] in EXAMPLES:
        return EXAMPLES[path[-1]]
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: least((*path, name)) for name in schema.get("required", ())}
        case "array":
            return [least((*path, 0))] if schema.get("minItems") else []
        case "integer":
            return schema.get("minimum", 1)
        case "boolean":
            return False
        case "string":
            return "a"
    return "1Gi"


def put(wanted: Manifest, path: Path, value: Any) -> Manifest:
    """A copy of the manifest with `value` in its place, and what has to be around it."""
    result = copy.deepcopy(wanted)
    node: Any = result
    for depth, step in enumerate(path, start=1):
        inner = value if depth == len(path) else least(path[:depth])
        if isinstance(node, list):
            node[:1] = [inner] if depth == len(path) or not node else node[:1]
        elif depth == len(path):
            node[step] = inner
        else:
            node.setdefault(step, inner)
        node = node[step]
    return result


def name_of(path: Path) -> str:
    """The field as messages name it: its last name in words."""
    return str([step for step in path if isinstance(step, str) and step != "a"][-1])


def shown(path: Path) -> str:
    return ".".join(map(str, path))


def wrong_types() -> Iterator[tuple[str, Path, Manifest]]:
    """A value of another type in each field."""
    for path, schema in FIELDS.items():
        if schema.get("x-kubernetes-int-or-string"):
            fits: tuple[type, ...] = (str, int)
        else:
            kinds = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}
            fits = (kinds[schema["type"]],)
        for value in WRONG_TYPES:
            if type(value) not in fits:
                yield f"{shown(path)} = {value!r}", path, put(manifest("x"), path, value)


def numbers() -> Iterator[tuple[str, Path, Manifest]]:
    """Numbers beyond what a field means."""
    for path, schema in FIELDS.items():
        if schema.get("type") == "integer" or schema.get("x-kubernetes-int-or-string"):
            for value in NUMBERS:
                yield f"{shown(path)} = {value!r}", path, put(manifest("x"), path, value)


def injections() -> Iterator[tuple[str, Path, Manifest]]:
    """Each hostile text in each field that takes text, and as a key of each map."""
    for path, schema in FIELDS.items():
        for what, text in TEXTS.items():
            if schema.get("type") == "string" or schema.get("x-kubernetes-int-or-string"):
                yield f"{shown(path)} = {what}", path, put(manifest("x"), path, text)
            if "additionalProperties" in schema:
                wanted = put(manifest("x"), path, {text: least((*path, "a"))})
                yield f"{shown(path)} has the key {what}", path, wanted


_SUFFIXES = ("", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
GOOD_QUANTITIES = (
    *(f"1{suffix}" for suffix in _SUFFIXES),
    *("1e3", "1E3", "1e-3", "1e+3", "+1", "1.", ".5", "1.5Gi", "00001", "0.1m", "1e40"),
    *("9223372036854775807", "9223372036854775808", "99999999999999999999"),
)
BAD_QUANTITIES = (
    *("", " ", "1 ", " 1", "1 Gi", "-1", "-0.5Gi", "Gi", "1GB", "1gb", "1gi", "1K", "1KI", "0x10"),
    *("1e", "1e3Gi", "1e400", "1,5Gi", "1_000", "\u0661Gi", "1Gi\n", "NaN", "inf", "--1", "1.2.3"),
    *("1" * 33, "$(X)", "1mm", "1iK"),
)
_QUANTITY_FIELDS: tuple[Path, ...] = (
    ("spec", "workers", "resources", "limits", "memory"),
    ("spec", "workers", "resources", "limits", "cpu"),
    ("spec", "workers", "resources", "requests", "memory"),
    ("spec", "model", "storage", "size"),
)


def quantities(texts: tuple[str, ...]) -> Iterator[tuple[str, Path, Manifest]]:
    """Quantities of every form, where they mean something."""
    for path in _QUANTITY_FIELDS:
        for text in texts:
            yield f"{shown(path)} = {text!r}", path, put(manifest("x"), path, text)


GOOD_NAMES = (*("a" * length for length in range(1, 40)), "a-1", "a--b", "x0", "xn--nxasmq6b")
BAD_NAMES = (
    *("a" * length for length in (40, 41, 52, 53, 63, 64, 253, 254)),
    *("", "-", "a-", "-a", "1", "1a", "A", "aA", "a.b", "a_b", "a b", "a/b", "a%2fb", "..", "a\0"),
    *("é", "x-group", "a\n", "$(X)", "--rpc", "💥", "x.", "*"),
)


def admitted() -> Iterator[Manifest]:
    """Manifests that the API server takes, however odd: the operator and its pods have to cope.

    Their planners find no node, so that nothing runs.
    """
    leader = {"nodeSelector": {"no": "node"}}
    for text in TEXTS.values():
        if "\0" not in text and 0 < len(text) <= 1024 and not refusal(text):
            metadata = {"annotations": {"a": text}}
            yield {
                "inference": {"extraArgs": ["--grammar", text, text]},
                "workers": {"count": 2, "metadata": metadata},
                "leader": {**leader, "metadata": metadata},
                "server": {"service": {"annotations": metadata["annotations"]}},
                "replicas": 0,
            }
    for quantity in GOOD_QUANTITIES:
        resources = {"limits": {"cpu": quantity, "memory": quantity, "example.com/npu": quantity}}
        yield {
            "workers": {"count": 2, "resources": resources},
            "leader": {**leader, "resources": resources},
            "replicas": 0,
        }
    for bound in ("minimum", "maximum"):
        for path, schema in FIELDS.items():
            if schema.get("type") == "integer" and bound in schema:
                wanted = put({"spec": {"replicas": 0, "leader": leader}}, path, schema[bound])
                yield {"workers": {"count": 2}, **wanted["spec"]}
    for uri in (
        *("http://[::::]/m.gguf", "https://h:99999/m.gguf", "http://a/%00.gguf", "http://h/%zz"),
        *("pvc://c/../../m.gguf", "pvc://c/é/m.gguf", "pvc://c./m.gguf", "file:///$(HOME)/m.gguf"),
        *(f"http://h/{'a' * 2000}", "file:////m", "http://h/?x", "pvc://c/;id", "http://1/m"),
    ):
        yield {"model": {"uri": uri}, "leader": leader, "replicas": 0}
    # What the API server takes of us and refuses of the pods that are made from it.
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    terms = [{"matchExpressions": [{"key": "a", "operator": "In"}]}]
    for settings in (
        {"topologySpreadConstraints": [spread, spread]},
        {"topologySpreadConstraints": [{**spread, "minDomains": 2}]},
        {"resources": {"limits": {"cpu": 1}, "requests": {"cpu": 2}}},
        {"resources": {"limits": {"hugepages-2Mi": "1Gi"}}},
        {"resources": {"limits": {"unknown": "1"}}},
        {"priorityClassName": "no-such-class"},
        {"metadata": {"annotations": {"a": "x" * 300_000}}},
        {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}
                }
            }
        },
    ):
        yield {"workers": {"count": 1, **settings}, "leader": leader}
        yield {"leader": {**leader, **settings}}
    yield {"server": {"service": {"annotations": {"a": "x" * 300_000}}}, "leader": leader}
    yield {"image": "--rpc", "leader": leader}
    yield {"model": {"uri": EXAMPLES["uri"], "storage": {"size": "1P"}}, "leader": leader}
    yield {"model": {"uri": EXAMPLES["uri"], "storage": {"size": 0}}, "leader": leader}
