"""Metrics, alerts, dashboards and their pages fit each other, and Prometheus reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamacluster.agent.metrics import METRICS
from llamacluster.controller.drift import PROGRAM_BYTES
from llamacluster.planning.account import Settings
from llamacluster.planning.formula import Formula
from llamacluster.planning.plan import Planner, kept_graphs_bytes
from tests.kind.command import run
from tests.kind.gotools import PROMETHEUS, programs
from tests.kind.host import REPOSITORY
from tests.kind.product import CHART, EXAMPLES
from tests.model.headers import MODELS
from tests.unit.monitoring.exposed import (
    ENGINES_OWN,
    names_in,
    of_a_leader,
    of_the_operator,
    operators_own,
    series,
)
from tests.unit.planning.test_model import model

ALERTS = CHART / "alerts" / "llamacluster.yaml"
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
PAGE = (REPOSITORY / "docs" / "observe.md").read_text()
RUNBOOKS = REPOSITORY / "docs" / "runbooks"


def queries(dashboard: Path) -> list[str]:
    panels = json.loads(dashboard.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def promtool(*args: str, stdin: str | None = None) -> str:
    return run([str(programs(PROMETHEUS, ["promtool"])["promtool"]), *args], stdin=stdin)


@pytest.mark.parametrize("text", [of_a_leader, of_the_operator])
def test_promtool_has_nothing_to_complain_of(text: Callable[[], str]) -> None:
    assert promtool("check", "metrics", stdin=text()).strip() == ""


def test_the_alerts_are_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(ALERTS))


def test_the_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", str(Path(__file__).parent / "alerts.yaml"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is_and_has_its_page(rule: dict[str, Any]) -> None:
    assert names_in(rule["expr"])
    assert names_in(rule["expr"]) <= series().keys()
    page = REPOSITORY / rule["annotations"]["runbook_url"]
    assert page == RUNBOOKS / f"{rule['alert']}.md"
    assert rule["expr"] in page.read_text()
    assert rule["labels"]["severity"] in ("critical", "warning")


@pytest.mark.parametrize("name", MODELS)
def test_a_worker_that_holds_all_that_was_planned_is_not_short_of_memory(name: str) -> None:
    [rule] = [rule for rule in RULES if rule["alert"] == "LlamaClusterMemoryShort"]
    threshold = float(re.findall(r"> (0\.\d+) \*", rule["expr"])[0])
    planner = Planner(model(name), Formula(model(name)))
    for workers in (1, 2, 4):
        split = planner.split(workers, Settings(context_size=8192, parallel=2))
        for memory, layers, need in zip(
            split.account.workers, split.layers, split.needs, strict=True
        ):
            graphs = kept_graphs_bytes(split.account.graph_nodes, layers, sum(split.layers))
            assert memory.total + graphs + PROGRAM_BYTES < threshold * need


def test_there_is_no_page_without_its_alert() -> None:
    names = {rule["alert"] for rule in RULES}
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == names
    assert set(re.findall(r"\(runbooks/(\w+)\.md\)", PAGE)) == names


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_each_query_of_a_dashboard_asks_for_what_there_is(dashboard: Path) -> None:
    found = queries(dashboard)
    assert found
    there = series()
    added = {"namespace", "llamacluster", "group", "instance", "pod", "le"}
    for query in found:
        names = names_in(query)
        assert names
        assert names <= there.keys(), query
        labels = {label for name in names for label in there[name]} | added
        asked = re.findall(r"(\w+)(?:=~|!=|!~|=)\"", query)
        asked += re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query)))
        assert set(asked) <= labels, query


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_each_query_of_a_dashboard_is_one(dashboard: Path, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{index}", "expr": re.sub(r"\$\w+", ".*", query)}
        for index, query in enumerate(queries(dashboard))
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(file))


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboards_panels_do_not_overlap(dashboard: Path) -> None:
    cells = [
        (x, y)
        for panel in json.loads(dashboard.read_text())["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_the_page_has_a_row_for_each_metric() -> None:
    rows = re.findall(r"^\| `(llamacluster_\w+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", PAGE, re.M)
    told = {name: (kind, meaning) for name, kind, _, meaning in rows}
    leaders = {metric.name: (metric.kind, metric.help) for metric in METRICS}
    assert told == leaders | operators_own()
    there = series()
    for name, kind, labels, _ in rows:
        known = there[f"{name}_bucket" if kind == "histogram" else name] - {"le"}
        assert set(re.findall(r"`(\w+)`", labels)) == known, name


def test_the_page_names_the_engines_series_that_we_build_on() -> None:
    assert set(re.findall(r"`(llamacpp:\w+)`", PAGE)) <= ENGINES_OWN


@pytest.mark.parametrize("name", ["hpa.yaml", "keda.yaml", "prometheus-adapter.yaml"])
def test_the_autoscalers_examples_ask_for_what_there_is(name: str) -> None:
    text = (EXAMPLES / "autoscale" / name).read_text()
    assert list(yaml.safe_load_all(text))
    assert names_in(text)
    assert names_in(text) <= series().keys()


def test_the_autoscalers_examples_want_four_fifths_of_the_examples_slots() -> None:
    cluster, hpa, keda = (
        yaml.safe_load((EXAMPLES / name).read_text())
        for name in ("llama-70b.yaml", "autoscale/hpa.yaml", "autoscale/keda.yaml")
    )
    assert {each["spec"]["scaleTargetRef"]["name"] for each in (hpa, keda)} == {
        cluster["metadata"]["name"]
    }
    wanted = cluster["spec"]["inference"]["parallel"] * 4 / 5
    assert hpa["spec"]["metrics"][0]["pods"]["target"]["averageValue"] == f"{wanted * 1000:.0f}m"
    assert keda["spec"]["triggers"][0]["metadata"]["threshold"] == f"{wanted}"
