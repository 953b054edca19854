"""The CRD: current, structural, bounded and documented."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamacluster.api.crd import custom_resource_definition, main, to_chart_template, to_yaml
from tests.build import Manifest

ROOT = Path(__file__).parents[3]
CRD = custom_resource_definition()
VERSION = CRD["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]


def nodes(schema: Manifest, path: str) -> Iterator[tuple[str, Manifest]]:
    """Every schema in a schema, with its place."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}.*")


SPEC = list(nodes(SCHEMA["properties"]["spec"], "spec"))
STATUS = list(nodes(SCHEMA["properties"]["status"], "status"))


def test_the_files_are_those_that_the_types_make(tmp_path: Path) -> None:
    files = [
        "crds/llamacluster.dev_llamaclusters.yaml",
        "charts/llamacluster/templates/crd.yaml",
        "docs/api.md",
    ]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True)
    main(tmp_path)
    for file in files:
        assert (ROOT / file).read_text() == (tmp_path / file).read_text(), "run `make generate`"


def test_the_yaml_is_the_crd() -> None:
    assert yaml.safe_load(to_yaml(CRD)) == CRD


def test_the_chart_can_keep_the_crd() -> None:
    template = to_chart_template(CRD)
    assert template.startswith("{{- if .Values.crds.install }}\n")
    assert "helm.sh/resource-policy: keep" in template
    assert template.count("{{") == 4


def test_every_field_is_documented() -> None:
    unsaid = [
        f"{path}.{name}"
        for path, schema in SPEC + STATUS
        for name, field in schema.get("properties", {}).items()
        if not field.get("description", "").strip()
    ]
    assert unsaid == []


def test_every_text_list_and_map_of_the_spec_is_bounded() -> None:
    """The API server limits the cost of CEL rules by the bounds, and etcd the size of an object."""
    unbounded = [
        path
        for path, schema in SPEC
        if (schema.get("type") == "string" and schema.keys().isdisjoint({"maxLength", "enum"}))
        or (schema.get("type") == "array" and "maxItems" not in schema)
        or ("additionalProperties" in schema and "maxProperties" not in schema)
        or (schema.get("x-kubernetes-int-or-string") and "maxLength" not in schema)
    ]
    # Kubernetes bounds annotations as a whole.
    assert [path for path in unbounded if not path.endswith("annotations.*")] == []


def test_the_schema_is_structural() -> None:
    forbidden = {"$ref", "$defs", "title", "nullable", "const", "oneOf", "allOf", "not"}
    for path, schema in [("", SCHEMA), *SPEC, *STATUS]:
        assert schema.keys().isdisjoint(forbidden), path
        if schema.get("x-kubernetes-int-or-string"):
            assert schema["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
        else:
            assert isinstance(schema.get("type"), str), path
            assert schema["type"] != "null", path
            assert "anyOf" not in schema, path
        if "properties" in schema:
            assert "additionalProperties" not in schema, path


def test_every_default_is_valid_for_its_schema() -> None:
    for path, schema in SPEC:
        match schema.get("default"):
            case str(text) if "enum" in schema:
                assert text in schema["enum"], path
            case bool():
                assert schema["type"] == "boolean", path
            case int(number):
                assert schema["minimum"] <= number <= schema["maximum"], path
            case dict(part):
                assert part == {}, path
                assert not schema.get("required"), path


def test_defaults_are_written_into_the_spec_and_never_into_the_status() -> None:
    # But for the word that nobody has seen the object yet: tests/unit/controller/test_kstatus.py.
    assert [path for path, schema in STATUS if "default" in schema] == ["status"]
    assert {path for path, schema in SPEC if "default" in schema} >= {
        *("spec.topology", "spec.replicas", "spec.inference", "spec.inference.contextSize"),
        *("spec.inference.parallel", "spec.server", "spec.server.port"),
        "spec.server.service.type",
    }


def test_every_rule_says_what_to_do() -> None:
    rules = [
        rule
        for _, schema in [("", SCHEMA), *SPEC]
        for rule in schema.get("x-kubernetes-validations", [])
    ]
    assert len(rules) >= 7
    assert all(rule["message"] and not rule["message"].startswith("failed") for rule in rules)


@pytest.mark.parametrize(
    ("column", "path"),
    [
        ("Model", ".status.modelFile"),
        ("Topology", ".spec.topology"),
        ("Workers", ".status.plan.workers"),
        ("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        ("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        ("Age", ".metadata.creationTimestamp"),
    ],
)
def test_kubectl_get_shows(column: str, path: str) -> None:
    columns: dict[str, Any] = {c["name"]: c for c in VERSION["additionalPrinterColumns"]}
    assert columns[column]["jsonPath"] == path
    assert "priority" not in columns[column]


def test_kubectl_get_shows_the_plan_if_asked_for_more() -> None:
    columns: dict[str, Any] = {c["name"]: c for c in VERSION["additionalPrinterColumns"]}
    memory = columns["Worker-Memory"]
    assert (memory["jsonPath"], memory["type"]) == (".status.plan.workerMemory", "string")
    assert memory["priority"] == 1


def test_kubectl_get_shows_what_there_is() -> None:
    there = {path for path, _ in SPEC + STATUS}
    for column in VERSION["additionalPrinterColumns"]:
        path = column["jsonPath"].removeprefix(".")
        assert path in there or path.startswith(("metadata.", "status.conditions[")), path


def test_status_and_scale_are_subresources_and_their_paths_exist() -> None:
    assert VERSION["subresources"]["status"] == {}
    scale = VERSION["subresources"]["scale"]
    paths = {path for path, _ in SPEC + STATUS}
    assert {path.removeprefix(".") for path in scale.values()} <= paths


def test_short_name_and_category() -> None:
    assert CRD["spec"]["names"]["shortNames"] == ["llc"]
    assert CRD["spec"]["names"]["categories"] == ["all"]


def test_lists_with_a_key_are_maps_for_server_side_apply() -> None:
    keys = {
        path: schema["x-kubernetes-list-map-keys"]
        for path, schema in STATUS
        if schema.get("x-kubernetes-list-type") == "map"
    }
    assert keys == {"status.conditions": ["type"], "status.groups": ["index"]}
