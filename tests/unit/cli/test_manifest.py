"""A manifest is read as the API server would read it, and what is wrong in it is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.cli.manifest import MAX_BYTES, NOT_NAMED, BadManifest, read_manifest
from tests.build import manifest

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}


def read(*objects: object) -> list[LlamaCluster]:
    return read_manifest(yaml.safe_dump_all(objects).encode(), "m.yaml")


def complaint(content: bytes) -> str:
    with pytest.raises(BadManifest) as caught:
        read_manifest(content, "m.yaml")
    return str(caught.value)


def complaint_of(**spec: Any) -> str:
    return complaint(yaml.safe_dump(manifest(**spec)).encode())


def test_other_kinds_are_passed_over() -> None:
    found = read(CONFIG_MAP, None, manifest("a"), CONFIG_MAP, manifest("b"))
    assert [cluster.metadata.name for cluster in found] == ["a", "b"]


def test_a_list_of_kubectl_is_read() -> None:
    [found] = read({"apiVersion": "v1", "kind": "List", "items": [CONFIG_MAP, manifest("a")]})
    assert found.metadata.name == "a"


def test_json_is_read() -> None:
    text = json.dumps(manifest("a"), indent="\t")
    [found] = read_manifest(text.encode(), "m.json")
    assert found.metadata.name == "a"


def test_yaml_in_braces_is_read() -> None:
    text = yaml.safe_dump(manifest("a"), default_flow_style=True)
    [found] = read_manifest(text.encode(), "m.yaml")
    assert found.metadata.name == "a"


def test_the_namespace_may_be_absent_and_the_status_is_let_be() -> None:
    written = manifest("a") | {"status": {"plan": "of another version"}}
    del written["metadata"]["namespace"]
    [found] = read(written)
    assert found.metadata.namespace == NOT_NAMED


def test_a_field_with_nothing_below_is_not_there() -> None:
    nulls = {"workers": {"count": 2, "metadata": None}, "leader": None}
    [found] = read(manifest() | {"spec": {**manifest()["spec"], **nulls}})
    assert found.spec == read(manifest())[0].spec
    nothing = manifest() | {"spec": {**manifest()["spec"], "leadr": None}}
    assert "did you mean leader?" in complaint(yaml.safe_dump(nothing).encode())


def test_anchors_are_read() -> None:
    text = yaml.safe_dump(manifest("a", leader={"threads": 3}))
    text = text.replace("threads: 3", "threads: &n 3").replace("count: 2", "count: *n")
    [found] = read_manifest(text.encode(), "m.yaml")
    assert found.spec.workers.count == 3


def test_a_misspelt_field_is_named_with_the_right_one() -> None:
    assert complaint_of(workers={"cout": 3, "count": 3}).splitlines() == [
        "m.yaml: the LlamaCluster x is not valid:",
        "  spec.workers.cout: there is no such field; did you mean count?",
    ]


def test_all_that_is_wrong_is_told_at_once() -> None:
    told = complaint_of(
        model={"uri": "models/m.gguf"},
        workers={"count": "3", "resources": {"limits": {"memory": "12Gb"}}},
        inference={"context_size": 4096, "cacheTypeK": "q9"},
    )
    assert "spec.model.uri: 'models/m.gguf' is none of https://" in told
    assert "spec.workers.count: Input should be a valid integer" in told
    assert "spec.workers.resources.limits.memory" in told
    assert "'12Gb' is not a quantity" in told
    assert "spec.inference.context_size: there is no such field; did you mean contextSize?" in told
    assert "spec.inference.cacheTypeK: Input should be 'f32', 'f16'" in told


def test_without_count_and_memory_there_is_nothing_to_plan_by() -> None:
    assert "give workers.count, or workers.resources.limits.memory" in complaint_of(workers={})


def test_a_missing_field_is_named() -> None:
    assert "spec.model: is missing" in complaint_of(model=None)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"inference": {"batchSize": 256}}, "spec.inference: ubatchSize must not be greater"),
        (
            {"inference": {"batchSize": 8, "ubatchSize": 8, "parallel": 9}},
            "spec.inference: batchSize must be at least parallel",
        ),
        (
            {"inference": {"contextSize": 16_777_216, "parallel": 128}},
            "spec.inference: contextSize x parallel must be at most 2147483392",
        ),
        (
            {"inference": {"extraArgs": ["--mmproj", "/vision.gguf"]}},
            "extraArgs[0]: --mmproj is refused: the plan does not count",
        ),
        (
            {"inference": {"extraArgs": ["--ctx-size=5"]}},
            "extraArgs[0]: --ctx-size is refused: the op",
        ),
        ({"server": {"port": 50052}}, "spec.server.port: ports 50051, 50052, 18080"),
        ({"server": {"port": 18080}}, "are the group's own"),
        (
            {"model": {"uri": "pvc://c/m.gguf", "storage": {"size": "1Gi"}}},
            "spec.model: storage is for downloaded models",
        ),
    ],
)
def test_what_the_api_server_refuses_by_its_rules_is_told(spec: Any, told: str) -> None:
    assert told in complaint_of(**spec)


@pytest.mark.parametrize(
    ("name", "told"),
    [("a" * 40, "at most 39"), ("x-group", "end with -group"), ("X_1", "lower-case")],
)
def test_a_name_that_the_api_server_refuses_is_told(name: str, told: str) -> None:
    assert told in complaint(yaml.safe_dump(manifest(name)).encode())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "m.yaml is empty"),
        (b"# nothing\n---\n---\n", "m.yaml is empty"),
        (b"\x00\x01GGUF\xff\xfe", "neither YAML nor JSON"),
        ("Ünicode".encode("utf-16"), "neither YAML nor JSON"),
        (b"just words", "neither YAML nor JSON: a manifest begins with apiVersion and kind"),
        (b"a: [1, 2", "neither YAML nor JSON"),
        (b"a: !!python/object/apply:os.system ['true']", "neither YAML nor JSON"),
        (b"a: 2024-99-99", "neither YAML nor JSON"),
        (b"[" * 100_000, "more than 100 levels deep"),
        (b'{"a":' * 100_000, "neither YAML nor JSON"),
        (b"a: &a [*a]", "*a holds itself"),
        (b"x" * (MAX_BYTES + 1), "larger than 3 MiB"),
        (yaml.safe_dump(CONFIG_MAP).encode(), "holds no LlamaCluster of llamacluster.dev"),
        (b"kind: LlamaCluster\napiVersion: llamacluster.dev/v1", "apiVersion: Input should be"),
        (b"kind: LlamaCluster\napiVersion: llamacluster.dev/v1alpha1", "metadata: is missing"),
    ],
)
def test_what_is_no_manifest_is_told_in_words(content: bytes, told: str) -> None:
    assert told in complaint(content)


@pytest.mark.parametrize("use", ["{k: *%s, l: *%s}", "{<<: [*%s, *%s]}"], ids=["alias", "merge"])
def test_aliases_of_aliases_do_not_grow_without_bound(use: str) -> None:
    lines = ["a0: &a0 {some: value}"]
    lines += [f"a{n + 1}: &a{n + 1} " + use.replace("%s", f"a{n}") for n in range(64)]
    assert "written out it is larger than 3 MiB" in complaint("\n".join(lines).encode())
