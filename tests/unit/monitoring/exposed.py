"""What is exposed for Prometheus: by a leader, by the operator, and by the engine."""

from __future__ import annotations

import re

from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from llamacluster.agent.metrics import METRICS, EngineTold, KvCache
from llamacluster.controller.metrics import Metrics
from tests.unit.agent.test_metrics import told
from tests.unit.controller.test_metrics import status

ENGINES_OWN = {
    "llamacpp:prompt_tokens_total",
    "llamacpp:prompt_seconds_total",
    "llamacpp:tokens_predicted_total",
    "llamacpp:tokens_predicted_seconds_total",
    "llamacpp:n_decode_total",
    "llamacpp:n_busy_slots_per_decode",
    "llamacpp:prompt_tokens_seconds",
    "llamacpp:predicted_tokens_seconds",
    "llamacpp:requests_processing",
    "llamacpp:requests_deferred",
}
"""Those that we build on; tests/e2e/test_metrics.py asks the engine for them."""


def of_a_leader() -> str:
    """Without the engine's own series, whose names are not such as promtool likes."""
    return told(engine=EngineTold(98.0, "", KvCache(1, 2, 3)))


def of_the_operator() -> str:
    metrics = Metrics()
    metrics.clusters.see("ns", "x", status())
    metrics.asked("list", "pods", 200)
    return generate_latest(metrics.registry).decode()


def operators_own() -> dict[str, tuple[str, str]]:
    """Kind and help of the operator's metrics by their names as in queries."""
    return {
        f.name + ("_total" if f.type == "counter" else ""): (f.type, f.documentation)
        for f in text_string_to_metric_families(of_the_operator())
        if f.name.startswith("llamacluster_")
    }


def series() -> dict[str, set[str]]:
    """Labels of every series, by its name; those that the scrape adds are not among them."""
    found: dict[str, set[str]] = {name: set() for name in ENGINES_OWN}
    for text in (of_a_leader(), of_the_operator()):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    assert {metric.name for metric in METRICS} <= found.keys()
    return found


def names_in(query: str) -> set[str]:
    """The series that a query asks for."""
    return set(re.findall(r"\b(?:llamacluster_\w+|llamacpp:\w+|process_\w+)", query))
