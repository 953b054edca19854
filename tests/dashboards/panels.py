"""Our dashboards as Grafana reads them, with a Prometheus' answers to their queries.

Only what they use is known here: whatever else a dashboard says is an error, so that no picture
silently lacks it.
"""

from __future__ import annotations

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tests.dashboards.content import Board, Kind, Line, PanelContent
from tests.dashboards.units import UNITS

LEAST_STEP = 15.0
"""Seconds between two points: what Grafana takes for the time between two scrapes."""
POINTS = 240
ANSWER_SECONDS = 60
_None = Annotated[list[None], Field(max_length=0)]
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


class CannotDraw(Exception):
    """A dashboard that is not understood, or a Prometheus that does not answer."""


class _Known(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _DataSource(_Known):
    type: Literal["prometheus"]
    uid: Literal["${datasource}"]


class _Defaults(_Known):
    unit: str = "short"
    min: float | None = None
    max: float | None = None


class _Named(_Known):
    id: Literal["byRegexp"]
    options: Annotated[str, Field(pattern="^/.*/$")]


class _Fixed(_Known):
    mode: Literal["fixed"]
    fixedColor: Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]  # noqa: N815


class _Colour(_Known):
    id: Literal["color"]
    value: _Fixed


class _Override(_Known):
    """The colour of the series whose names a regular expression finds."""

    matcher: _Named
    properties: Annotated[list[_Colour], Field(min_length=1, max_length=1)]


class _FieldConfig(_Known):
    defaults: _Defaults
    overrides: list[_Override]

    def colour(self, name: str) -> str:
        """Of the series of this name; empty: the next one of the panel's."""
        for override in self.overrides:
            if re.search(override.matcher.options.strip("/"), name):
                return override.properties[0].value.fixedColor
        return ""


class Query(_Known):
    refId: str  # noqa: N815
    expr: str
    legendFormat: str  # noqa: N815
    instant: bool = False
    format: Literal["time_series", "table"] = "time_series"


class _LabelsToFields(_Known):
    """Each label a column, as they are anyway in a table."""

    id: Literal["labelsToFields"]
    options: dict[str, None] = Field(max_length=0)


class _Columns(_Known):
    excludeByName: dict[str, Literal[True]]  # noqa: N815


class _Organize(_Known):
    id: Literal["organize"]
    options: _Columns


class _Cells(_Known):
    x: int
    y: int
    w: int
    h: int


class Panel(_Known):
    id: int
    title: str
    type: Kind
    description: str = ""
    gridPos: _Cells  # noqa: N815
    datasource: _DataSource | None = None
    fieldConfig: _FieldConfig | None = None  # noqa: N815
    targets: list[Query] = []
    transformations: list[_LabelsToFields | _Organize] = []
    collapsed: Literal[False] = False
    panels: _None = []


class _Chosen(_Known):
    selected: bool
    text: Literal["All"]
    value: Literal["$__all"]


class Variable(_Known):
    name: str
    label: str
    type: Literal["datasource", "query"]
    query: str
    datasource: _DataSource | None = None
    refresh: int = 0
    includeAll: bool = False  # noqa: N815
    multi: bool = False
    allValue: str = ""  # noqa: N815
    sort: int = 0
    current: _Chosen | None = None


class _Variables(_Known):
    variables: list[Variable] = Field(alias="list")


class _Annotations(_Known):
    annotations: _None = Field(alias="list")


class _Time(_Known):
    from_: str = Field(alias="from")
    to: str


class Dashboard(_Known):
    uid: str
    title: str
    description: str
    tags: list[str]
    schemaVersion: int  # noqa: N815
    editable: bool
    time: _Time
    refresh: str
    templating: _Variables
    annotations: _Annotations
    panels: list[Panel]


def read(file: Path) -> Dashboard:
    """Raises CannotDraw for what is not known here."""
    try:
        dashboard = Dashboard.model_validate_json(file.read_text())
    except ValidationError as error:
        raise CannotDraw(
            f"{file} has what tests/dashboards/panels.py does not know; teach it, and "
            f"tests/dashboards/picture.py to draw it: {error}"
        ) from error
    for panel in dashboard.panels:
        unit = panel.fieldConfig.defaults.unit if panel.fieldConfig else "short"
        if unit not in UNITS:
            raise CannotDraw(
                f"{file}: {panel.title!r} has the unit {unit!r}; teach tests/dashboards/units.py"
            )
        if any((one.format == "table") != (panel.type == "table") for one in panel.targets):
            raise CannotDraw(f"{file}: {panel.title!r} mixes a table with a {panel.type}")
        if panel.type in ("table", "stat") and len(panel.targets) != 1:
            raise CannotDraw(f"{file}: {panel.title!r} is a {panel.type} of more than one query")
    return dashboard


@dataclass(frozen=True)
class Series:
    """Labels, and pairs of a Unix time and a value."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Prometheus:
    """Its HTTP API. Raises CannotDraw, with its words for a query that it refuses."""

    url: str

    def range(self, query: str, start: float, end: float, step: float) -> list[Series]:
        found = self._ask("query_range", query=query, start=start, end=end, step=step)
        return [Series(one["metric"], _numbers(one["values"])) for one in found]

    def instant(self, query: str, time: float) -> list[Series]:
        found = self._ask("query", query=query, time=time)
        return [Series(one["metric"], _numbers([one["value"]])) for one in found]

    def _ask(self, what: str, **parameters: object) -> Any:
        url = f"{self.url.rstrip('/')}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise CannotDraw(
                f"Prometheus refuses {parameters['query']}: {_reason(error.read())}"
            ) from error
        except OSError as error:
            raise CannotDraw(f"no Prometheus answers at {self.url}: {error}") from error


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()


def _numbers(values: Iterable[tuple[float, str]]) -> list[tuple[float, float]]:
    return [(time, float(value)) for time, value in values]


@dataclass
class Drawn:
    """A dashboard with its answers; `empty` are title and query of what had none."""

    board: Board
    empty: list[tuple[str, str]] = field(default_factory=list)


def answered(
    dashboard: Dashboard, prometheus: Prometheus, chosen: dict[str, str], end: float, seconds: float
) -> Drawn:
    """The dashboard over so many seconds up to `end`, a Unix time. `chosen` has values for its
    variables; of one that it leaves out, all are shown."""
    step = max(LEAST_STEP, math.ceil(seconds / POINTS))
    end = math.floor(end / step) * step
    start = end - seconds
    values = {one.name: chosen.get(one.name) for one in dashboard.templating.variables}
    drawn = Drawn(
        Board(
            title=dashboard.title,
            variables=[
                (
                    one.label,
                    "default" if one.type == "datasource" else values[one.name] or "All",
                )
                for one in dashboard.templating.variables
            ],
            start=start,
            end=end,
            step=step,
            panels=[],
        )
    )
    for panel in dashboard.panels:
        content = _without_answers(panel)
        drawn.board["panels"].append(content)
        for query in panel.targets:
            asked = with_variables(query.expr, dashboard.templating.variables, values)
            if query.instant:
                found = prometheus.instant(asked, end)
            else:
                found = prometheus.range(asked, start, end, step)
            if panel.type == "table":
                content["columns"], content["rows"] = table(found, hidden(panel))
                there = bool(content["rows"])
            else:
                lines = [line(one, query.legendFormat, panel.fieldConfig) for one in found]
                lines = [one for one in lines if one["points"]]
                content["lines"] += sorted(lines, key=lambda one: one["name"])
                there = bool(lines)
                if panel.type == "stat" and len(lines) > 1:
                    raise CannotDraw(f"{panel.title!r} is one number, but {asked} has {len(lines)}")
            if not there:
                drawn.empty.append((panel.title, asked))
    return drawn


def _without_answers(panel: Panel) -> PanelContent:
    defaults = panel.fieldConfig.defaults if panel.fieldConfig else _Defaults()
    return PanelContent(
        title=panel.title,
        kind=panel.type,
        described=bool(panel.description),
        x=panel.gridPos.x,
        y=panel.gridPos.y,
        w=panel.gridPos.w,
        h=panel.gridPos.h,
        unit=defaults.unit,
        least=defaults.min,
        most=defaults.max,
        lines=[],
        columns=[],
        rows=[],
    )


def with_variables(query: str, variables: list[Variable], values: dict[str, str | None]) -> str:
    """Raises CannotDraw for a variable that the dashboard has not."""
    known = {one.name: one for one in variables}

    def value(found: re.Match[str]) -> str:
        if found[1] not in known:
            raise CannotDraw(f"{found[0]} in {query} is no variable of the dashboard")
        chosen = values[found[1]]
        # Of several values at once Grafana makes a regular expression.
        return known[found[1]].allValue if chosen is None else chosen.replace(".", r"\\.")

    return _VARIABLE.sub(value, query)


def line(series: Series, legend: str, fields: _FieldConfig | None = None) -> Line:
    """With the labels that the legend names; what is not finite is no point."""
    name = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: series.labels.get(found[1], ""), legend)
    return Line(
        name=name,
        colour=fields.colour(name) if fields else "",
        points=[point for point in series.points if math.isfinite(point[1])],
    )


def hidden(panel: Panel) -> set[str]:
    return {
        name
        for one in panel.transformations
        if isinstance(one, _Organize)
        for name in one.options.excludeByName
    }


def table(found: list[Series], without: set[str]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the labels."""
    columns = sorted({label for one in found for label in one.labels} - without)
    return columns, sorted([one.labels.get(column, "") for column in columns] for one in found)
