"""Manifests that the CRD's schema allows, made from the schema itself by Hypothesis. What the CRD's
rules, or Kubernetes, say of them is another matter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from llamacluster.api.crd import custom_resource_definition
from tests.build import Manifest, manifest

Schema = dict[str, Any]
Values = st.SearchStrategy[Any]

SPEC: Schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"][
    "properties"
]["spec"]
FEW = 2
"""Optional fields of an object, entries of a list, entries of a map: with more of each, nearly
every manifest would break some rule."""


def values(schema: Schema) -> Values:
    """Values that a schema allows."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(schema["minimum"], 2**63 - 1) | _texts(schema)
    match schema["type"]:
        case "object" if "properties" in schema:
            return _objects(schema)
        case "object":
            keys = st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True)
            return st.dictionaries(keys, values(schema["additionalProperties"]), max_size=FEW)
        case "array":
            fewest = schema.get("minItems", 0)
            return st.lists(values(schema["items"]), min_size=fewest, max_size=fewest + FEW)
        case "integer":
            return st.integers(schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1))
        case "boolean":
            return st.booleans()
    return _texts(schema)


def _objects(schema: Schema) -> Values:
    fields = {name: values(field) for name, field in schema["properties"].items()}
    required = schema.get("required", [])
    optional = sorted(fields.keys() - set(required))
    chosen = (
        st.lists(st.sampled_from(optional), unique=True, max_size=FEW) if optional else st.just([])
    )
    return chosen.flatmap(
        lambda some: st.fixed_dictionaries({name: fields[name] for name in [*required, *some]})
    )


def _texts(schema: Schema) -> Values:
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 100)
    if "pattern" not in schema:
        return st.text(min_size=shortest, max_size=longest)
    pattern = re.compile(schema["pattern"], re.ASCII)  # as Go reads it: \d is 0 to 9
    texts = st.from_regex(pattern, fullmatch=True)
    return texts.filter(lambda text: shortest <= len(text) <= longest)


def manifests() -> st.SearchStrategy[Manifest]:
    """LlamaClusters of which the schema allows the spec, with workers."""
    return values(SPEC).map(
        lambda spec: manifest(**{**spec, "workers": {"count": 2, **spec.get("workers", {})}})
    )


ANYTHING: Values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=9), inner, max_size=2)
    ),
    max_leaves=4,
)


@st.composite
def spoilt(draw: st.DrawFn) -> Manifest:
    """The same with something else in the place of one of its parts."""
    made = draw(manifests())
    where, step = draw(st.sampled_from(list(_places(made["spec"]))))
    where[step] = draw(ANYTHING)
    return made


def _places(part: Any) -> Iterator[tuple[Any, Any]]:
    """Each object or list in it, with each key or index of it."""
    steps = part.items() if isinstance(part, dict) else enumerate(part)
    for step, inner in steps:
        yield part, step
        if isinstance(inner, dict | list):
            yield from _places(inner)


def some(strategy: st.SearchStrategy[Manifest], count: int) -> list[Manifest]:
    """The same ones at each run, for where asking about each by itself would take too long."""
    found: list[Manifest] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(made: Manifest) -> None:
        found.append(made)

    collect()
    return found
