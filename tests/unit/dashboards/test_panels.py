"""Dashboards are read whole, and what Prometheus answers comes to where it belongs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from llamacluster.agent.contract.messages import Phase
from llamacluster.api.status import GroupPhase
from tests.dashboards.__main__ import lacking
from tests.dashboards.panels import (
    CannotDraw,
    Drawn,
    Prometheus,
    Series,
    answered,
    line,
    read,
    table,
)
from tests.kind.product import CHART

DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
OURS = CHART / "dashboards" / "llamacluster.json"
Answer = tuple[int, Any]
EMPTY: Answer = (200, {"data": {"result": []}})


@contextmanager
def prometheus(answer: Callable[[str, dict[str, str]], Answer]) -> Iterator[Prometheus]:
    """One that answers to the last part of a path and its parameters."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlparse(self.path)
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            status, body = answer(url.path.removeprefix("/api/v1/"), asked)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Prometheus(f"http://127.0.0.1:{server.server_port}/")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def drawn(
    answer: Callable[[str, dict[str, str]], Answer], chosen: dict[str, str] | None = None
) -> Drawn:
    with prometheus(answer) as there:
        return answered(read(OURS), there, chosen or {}, end=10_007, seconds=600)


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[Callable[[Any], None]], Path]:
    """Our dashboard with a change."""

    def change(how: Callable[[Any], None]) -> Path:
        dashboard = json.loads(OURS.read_text())
        how(dashboard)
        file = tmp_path / "changed.json"
        file.write_text(json.dumps(dashboard))
        return file

    return change


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_of_ours_has_nothing_that_the_reader_does_not_know(file: Path) -> None:
    assert [panel.title for panel in read(file).panels] == [
        panel["title"] for panel in json.loads(file.read_text())["panels"]
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it["panels"][1].update(type="gauge"),
        lambda it: it["panels"][1].update(options={"colorMode": "background"}),
        lambda it: it["panels"][1].update(interval="1m"),
        lambda it: it["panels"][1]["fieldConfig"]["defaults"].update(unit="decbytes"),
        lambda it: it["panels"][1]["fieldConfig"]["defaults"].update(decimals=1),
        lambda it: it["panels"][1]["fieldConfig"]["overrides"].append({}),
        lambda it: it["panels"][4]["fieldConfig"]["overrides"][0].update(properties=[]),
        lambda it: it["panels"][1]["targets"][0].update(format="heatmap"),
        lambda it: it["panels"][1]["targets"][0].update(format="table"),
        lambda it: it["panels"][1]["targets"].append(it["panels"][1]["targets"][0]),
        lambda it: it["panels"][3]["transformations"].append({"id": "sortBy", "options": {}}),
        lambda it: it["panels"][0].update(collapsed=True),
        lambda it: it["templating"]["list"][1].update(regex="x"),
        lambda it: it["annotations"]["list"].append({}),
        lambda it: it.update(timezone="utc"),
    ],
)
def test_what_the_reader_does_not_know_is_an_error(
    change: Callable[[Any], None], changed: Callable[[Callable[[Any], None]], Path]
) -> None:
    with pytest.raises(CannotDraw, match=r"changed\.json"):
        read(changed(change))


def test_a_variable_that_the_dashboard_has_not_is_an_error(
    changed: Callable[[Callable[[Any], None]], Path],
) -> None:
    file = changed(lambda it: it["panels"][1]["targets"][0].update(expr="rate(x[$__range])"))
    with pytest.raises(CannotDraw, match=r"\$__range"):
        answered(read(file), Prometheus("http://127.0.0.1:9"), {}, end=0, seconds=600)


@pytest.mark.parametrize(
    ("chosen", "namespace", "shown"),
    [
        ({}, '".*"', [("Prometheus", "default"), ("Namespace", "All"), ("LlamaCluster", "All")]),
        (
            {"namespace": "a.b", "llamacluster": "x"},
            '"a\\\\.b"',
            [("Prometheus", "default"), ("Namespace", "a.b"), ("LlamaCluster", "x")],
        ),
    ],
)
def test_variables_have_their_values(
    chosen: dict[str, str], namespace: str, shown: list[tuple[str, str]]
) -> None:
    asked = []

    def answer(what: str, parameters: dict[str, str]) -> Answer:
        asked.append(parameters["query"])
        return EMPTY

    assert drawn(answer, chosen).board["variables"] == shown
    assert all(f"namespace=~{namespace}" in query for query in asked)
    assert not any("$" in query for query in asked)


def test_a_table_is_asked_for_now_and_all_else_over_time() -> None:
    asked: dict[str, set[tuple[str, ...]]] = {}

    def answer(what: str, parameters: dict[str, str]) -> Answer:
        times = tuple(parameters[name] for name in sorted(parameters) if name != "query")
        asked.setdefault(what, set()).add(times)
        return EMPTY

    drawn(answer)
    assert asked == {"query": {("10005.0",)}, "query_range": {("10005.0", "9405.0", "15.0")}}


def test_answers_come_to_their_panels() -> None:
    def answer(what: str, parameters: dict[str, str]) -> Answer:
        labels = {"namespace": "ns", "llamacluster": "x", "__name__": "name", "pod": "p"}
        if what == "query":
            return 200, {"data": {"result": [{"metric": labels, "value": [10, "1"]}]}}
        values = [[9, "1.5"], [10, "NaN"], [11, "+Inf"], [12, "2"]]
        return 200, {"data": {"result": [{"metric": labels, "values": values}]}}

    result = drawn(answer)
    assert result.empty == []
    panels = {panel["title"]: panel for panel in result.board["panels"]}
    assert panels["Conditions"]["columns"] == ["llamacluster", "namespace"]
    assert panels["Conditions"]["rows"] == [["x", "ns"]]
    generated = panels["Generated"]
    [shown] = generated["lines"]
    assert shown == {"name": "ns/x", "colour": "", "points": [(9, 1.5), (12, 2)]}
    assert (generated["unit"], generated["least"], generated["most"]) == ("tokens/s", 0, None)
    assert [one["name"] for one in panels["Requests"]["lines"]] == ["ns/x ", "ns/x slots"]
    json.dumps(result.board, allow_nan=False)


def test_what_has_no_data_is_told_with_its_query() -> None:
    def answer(what: str, parameters: dict[str, str]) -> Answer:
        if "group_slots" in parameters["query"]:
            return EMPTY
        one: dict[str, Any] = {"metric": {"a": "b"}, "value": [1, "1"], "values": [[1, "1"]]}
        if "load_seconds" in parameters["query"]:
            one["values"] = [[1, "NaN"]]
        return 200, {"data": {"result": [one]}}

    (requests, slots), (load, _) = drawn(answer).empty
    assert (requests, load) == ("Requests", "Time to load")
    assert slots.startswith("sum by (namespace, llamacluster) (llamacluster_group_slots{")


def test_a_number_is_one() -> None:
    def answer(what: str, parameters: dict[str, str]) -> Answer:
        return 200, {"data": {"result": [{"metric": {}, "values": [[1, "1"]]}] * 2}}

    with pytest.raises(CannotDraw, match=r"'Groups that answer' is one number, but .* has 2"):
        drawn(answer)


def test_a_query_that_is_refused_is_an_error_with_prometheus_words() -> None:
    def answer(what: str, parameters: dict[str, str]) -> Answer:
        return 400, {"status": "error", "error": "parse error: unexpected end of input"}

    with pytest.raises(CannotDraw, match=r"group_ready.*: parse error: unexpected end of input"):
        drawn(answer)


def test_a_prometheus_that_is_not_there_is_an_error() -> None:
    with prometheus(lambda *_: EMPTY) as gone:
        pass
    with pytest.raises(CannotDraw, match="no Prometheus answers at http://127"):
        gone.instant("up", 0)


def test_a_legend_names_labels() -> None:
    series = Series({"a": "1", "b": "2"}, [(0, 0)])
    assert line(series, "{{a}}/{{ b }} {{c}}x")["name"] == "1/2 x"


@pytest.mark.parametrize(
    ("dashboard", "title", "phases", "broken"),
    [
        ("llamacluster", "Phase of each group", Phase, "Failed"),
        ("llamacluster-operator", "Groups by phase", GroupPhase, "Recovering"),
    ],
)
def test_a_phase_is_seen_by_its_colour(
    dashboard: str, title: str, phases: Iterable[str], broken: str
) -> None:
    board = read(CHART / "dashboards" / f"{dashboard}.json")
    [panel] = [panel for panel in board.panels if panel.title == title]
    legend = panel.targets[0].legendFormat
    colours = {
        phase: line(Series({"phase": phase}, []), legend, panel.fieldConfig)["colour"]
        for phase in phases
    }
    assert (colours["Serving"], colours[broken]) == ("#73bf69", "#f2495c")
    assert "" not in colours.values()
    assert len({*colours.values()}) == len(colours)


def test_a_row_lacks_what_its_series_lacks() -> None:
    found = [Series({"b": "2", "job": "j"}, []), Series({"a": "1"}, [])]
    assert table(found, {"job"}) == (["a", "b"], [["", "2"], ["1", ""]])


def test_a_panel_without_data_is_a_failure_unless_it_may_be_empty() -> None:
    empty = [("llamacluster", "Recoveries", "x"), ("llamacluster", "Generated", "y")]
    assert lacking(empty, ["Recoveries"]) == ["llamacluster: Generated: no data for y"]
