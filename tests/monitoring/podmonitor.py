"""What the Prometheus operator makes of a PodMonitor: a scrape configuration of Prometheus.

As much of it as our chart uses; what it does not know is an error, so that nothing of the chart is
left out in silence.
"""

from __future__ import annotations

import re
from typing import Any

Json = dict[str, Any]

SPEC = {"namespaceSelector", "selector", "podMetricsEndpoints"}
ENDPOINT = {"port", "relabelings", "honorLabels"}
SCRAPE_INTERVAL = "5s"


def scrape_configs(pod_monitor: Json) -> list[Json]:
    """One for each endpoint."""
    spec, metadata = pod_monitor["spec"], pod_monitor["metadata"]
    _only(spec, SPEC)
    namespaces = spec.get("namespaceSelector", {"matchNames": [metadata["namespace"]]})
    _only(namespaces, {"any", "matchNames"})
    return [
        {
            "job_name": f"{metadata['namespace']}/{metadata['name']}/{number}",
            "scrape_interval": SCRAPE_INTERVAL,
            "scrape_timeout": SCRAPE_INTERVAL,
            "honor_labels": endpoint.get("honorLabels", False),
            "kubernetes_sd_configs": [
                {"role": "pod", "namespaces": {"names": namespaces.get("matchNames", [])}}
            ],
            "relabel_configs": [
                {
                    "source_labels": ["__meta_kubernetes_pod_phase"],
                    "regex": "(Failed|Succeeded)",
                    "action": "drop",
                },
                *_selected(spec["selector"]),
                _port(endpoint),
                _label("namespace", "__meta_kubernetes_namespace"),
                _label("container", "__meta_kubernetes_pod_container_name"),
                _label("pod", "__meta_kubernetes_pod_name"),
                {
                    "target_label": "job",
                    "replacement": f"{metadata['namespace']}/{metadata['name']}",
                },
                *map(_relabeling, endpoint.get("relabelings", [])),
            ],
        }
        for number, endpoint in enumerate(spec["podMetricsEndpoints"])
    ]


def _selected(selector: Json) -> list[Json]:
    _only(selector, {"matchLabels", "matchExpressions"})
    kept = [_keep(name, re.escape(v)) for name, v in selector.get("matchLabels", {}).items()]
    for expression in selector.get("matchExpressions", []):
        if expression["operator"] == "Exists":
            present = f"__meta_kubernetes_pod_labelpresent_{_meta(expression['key'])}"
            kept.append({"source_labels": [present], "regex": "true", "action": "keep"})
        elif expression["operator"] == "In":
            kept.append(_keep(expression["key"], "|".join(map(re.escape, expression["values"]))))
        else:
            raise NotImplementedError(expression)
    return kept


def _port(endpoint: Json) -> Json:
    _only(endpoint, ENDPOINT)
    source = "__meta_kubernetes_pod_container_port_name"
    return {"source_labels": [source], "regex": endpoint["port"], "action": "keep"}


def _relabeling(rule: Json) -> Json:
    _only(rule, {"sourceLabels", "targetLabel"})
    return {"source_labels": rule["sourceLabels"], "target_label": rule["targetLabel"]}


def _keep(label: str, regex: str) -> Json:
    source = f"__meta_kubernetes_pod_label_{_meta(label)}"
    return {"source_labels": [source], "regex": regex, "action": "keep"}


def _label(target: str, source: str) -> Json:
    return {"source_labels": [source], "target_label": target}


def _meta(label: str) -> str:
    """A label's name as Prometheus' service discovery spells it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


def _only(found: Json, known: set[str]) -> None:
    if unknown := found.keys() - known:
        raise NotImplementedError(f"the tests' Prometheus does not know {sorted(unknown)}")
