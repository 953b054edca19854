"""What is in a picture: a dashboard with the answers to its queries. Plain values, which go from
one Python environment to another as JSON."""

from __future__ import annotations

from typing import Literal, TypedDict

Kind = Literal["row", "stat", "table", "timeseries"]


class Line(TypedDict):
    """A series: its name, its colour (empty: by its place), and pairs of a Unix time and a finite
    value."""

    name: str
    colour: str
    points: list[tuple[float, float]]


class PanelContent(TypedDict):
    """`x`, `y`, `w` and `h` count cells of a grid that is 24 wide."""

    title: str
    kind: Kind
    described: bool
    x: int
    y: int
    w: int
    h: int
    unit: str
    least: float | None
    most: float | None
    lines: list[Line]
    columns: list[str]
    rows: list[list[str]]


class Board(TypedDict):
    """`variables` are labels and what is chosen of each; `start` and `end` Unix times; `step`
    seconds between two points."""

    title: str
    variables: list[tuple[str, str]]
    start: float
    end: float
    step: float
    panels: list[PanelContent]
