"""The CustomResourceDefinition, made from the types: `python -m llamacluster.api.crd ROOT` writes
it to crds/ and into the chart, and docs/api.md, all below the repository's root.

pydantic writes JSON Schema; a CRD takes the structural subset of OpenAPI v3 of it, without
references, titles or null types.
"""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from llamacluster.api import GROUP, KIND, PLURAL, VERSION
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.reference import reference
from llamacluster.api.spec import LlamaClusterSpec
from llamacluster.api.status import LlamaClusterStatus

Schema = dict[str, Any]

_KEPT = {
    *("type", "format", "description", "default", "enum", "pattern", "required", "properties"),
    *("items", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"),
    *("additionalProperties", "maxProperties", "minProperties", "anyOf"),
}


def custom_resource_definition() -> dict[str, Any]:
    """The CRD of LlamaCluster as a plain dict."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["llc"],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _root_schema()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        _column("Model", ".status.modelFile", "File name of the model"),
                        _column("Topology", ".spec.topology", "How the model is laid over pods"),
                        _column("Workers", ".status.plan.workers", "Workers of each group"),
                        _column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Ready"),
                        _column(
                            "Reason",
                            '.status.conditions[?(@.type=="Ready")].reason',
                            "Why it is ready or not",
                        ),
                        _column("Age", ".metadata.creationTimestamp", "Age"),
                        _column(
                            "Worker-Memory",
                            ".status.plan.workerMemory",
                            "Memory limit of each worker, as planned",
                            priority=1,
                        ),
                        _column(
                            "Upgrade",
                            ".status.upgrade.image",
                            "Image that `kubectl llamacluster upgrade` would roll out",
                            priority=1,
                        ),
                        _column("Endpoint", ".status.endpoint", "URL of the API", priority=1),
                        _column(
                            "Message",
                            '.status.conditions[?(@.type=="Ready")].message',
                            "What to do",
                            priority=1,
                        ),
                    ],
                }
            ],
        },
    }


def _column(name: str, path: str, description: str, priority: int = 0) -> dict[str, Any]:
    kind = {"Workers": "integer", "Age": "date"}.get(name, "string")
    column: dict[str, Any] = {
        "name": name,
        "type": kind,
        "jsonPath": path,
        "description": description,
    }
    if priority:
        column["priority"] = priority
    return column


def _root_schema() -> Schema:
    root = LlamaCluster.model_json_schema(by_alias=True)
    return {
        "type": "object",
        "description": root["description"],
        "required": ["spec"],
        "x-kubernetes-validations": root["x-kubernetes-validations"],
        "properties": {
            "apiVersion": {
                "type": "string",
                "description": "Version of the API: llamacluster.dev/v1alpha1.",
            },
            "kind": {"type": "string", "description": "LlamaCluster."},
            "metadata": {"type": "object"},
            "spec": structural(LlamaClusterSpec.model_json_schema(by_alias=True)),
            "status": {
                **_without_defaults(
                    structural(LlamaClusterStatus.model_json_schema(by_alias=True))
                ),
                # kstatus (Flux, `cli-utils`) takes an object without conditions for done. Until the
                # operator has seen it, this says that nobody has.
                "default": {"observedGeneration": -1},
            },
        },
    }


def structural(schema: Schema) -> Schema:
    """The structural schema equal to a pydantic JSON Schema with `$defs`."""
    definitions = schema.get("$defs", {})

    def convert(node: Schema) -> Schema:
        node = copy.copy(node)
        if "$ref" in node:
            target = definitions[node.pop("$ref").rsplit("/", 1)[1]]
            node = {**target, **node}
        if not node.get("x-kubernetes-int-or-string"):
            node = _without_null(node)
            if "$ref" in node:
                return convert(node)
        result: Schema = {
            key: value
            for key, value in node.items()
            if key in _KEPT or key.startswith("x-kubernetes-")
        }
        if "const" in node:
            result["enum"] = [node["const"]]
        match result.get("default", ...):
            case None:
                del result["default"]
            case dict():
                del result["default"]
        if "description" in result:
            result["description"] = _prose(result["description"])
        if "properties" in result:
            result["properties"] = {k: convert(v) for k, v in result["properties"].items()}
            has_defaults = any("default" in field for field in result["properties"].values())
            if has_defaults and not result.get("required"):
                # An absent part is filled field by field, like one that is partly given.
                result["default"] = {}
        if "items" in result:
            result["items"] = convert(result["items"])
        match result.get("additionalProperties"):
            case bool():
                # A structural schema says "no other fields" by pruning or by a strict client; the
                # keyword itself may not stand beside properties.
                del result["additionalProperties"]
            case dict() as values:
                result["additionalProperties"] = convert(values)
        return result

    return convert(schema)


def _without_defaults(node: Schema) -> Schema:
    """The status is what the operator wrote, and nothing before it wrote."""
    result = {key: value for key, value in node.items() if key != "default"}
    if "properties" in result:
        result["properties"] = {k: _without_defaults(v) for k, v in result["properties"].items()}
    if "items" in result:
        result["items"] = _without_defaults(result["items"])
    return result


def _without_null(node: Schema) -> Schema:
    """`X | None` is an optional X: absent, never null."""
    variants = [v for v in node.get("anyOf", []) if v.get("type") != "null"]
    if "anyOf" not in node:
        return node
    if len(variants) != 1:
        raise ValueError(f"a field of several types cannot be put into a CRD: {node}")
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    return {**variants[0], **rest}


def _prose(text: str) -> str:
    """A docstring as one flowing paragraph, as `kubectl explain` wraps lines by itself."""
    return re.sub(r"\s+", " ", text).strip()


class _PlainDumper(yaml.SafeDumper):
    """YAML without anchors: people read it."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def to_yaml(crd: dict[str, Any]) -> str:
    """The CRD as YAML text, ending in a newline."""
    note = "# Generated from operator/llamacluster/api by `make generate`. Do not edit.\n"
    body: str = yaml.dump(crd, Dumper=_PlainDumper, sort_keys=False, width=100)
    return note + body


def to_chart_template(crd: dict[str, Any]) -> str:
    """The same as a Helm template, so that the CRD is upgraded with the chart and can be kept when
    the chart goes."""
    keep = (
        "  {{- if .Values.crds.keep }}\n"
        "  annotations:\n"
        "    helm.sh/resource-policy: keep\n"
        "  {{- end }}\n"
    )
    name = f"  name: {crd['metadata']['name']}\n"
    body = to_yaml(crd).replace(name, name + keep, 1)
    return f"{{{{- if .Values.crds.install }}}}\n{body}{{{{- end }}}}\n"


def main(root: Path) -> None:
    """Write the CRD, its chart template and its reference."""
    crd = custom_resource_definition()
    (root / "crds" / f"{GROUP}_{PLURAL}.yaml").write_text(to_yaml(crd))
    chart = root / "charts" / "llamacluster" / "templates" / "crd.yaml"
    chart.write_text(to_chart_template(crd))
    (root / "docs" / "api.md").write_text(reference())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
