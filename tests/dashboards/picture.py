"""Draws a dashboard, which it reads as JSON, in the look of Grafana. Run by the Python environment
that has matplotlib: python -m tests.dashboards.picture FILE < board.json"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyBboxPatch
from PIL import Image

from tests.dashboards.content import Board, Line, PanelContent
from tests.dashboards.units import SECONDS, formatted, tick, ticks

DPI = 100
WIDTH = 1400
COLUMNS = 24
CELL = 38
"""Height of a cell of the grid, with the gap below it."""
GAP = 8
HEAD = 56
TITLE = 34
"""Height of a panel's title."""
LEGEND_LINE = 18
LEGEND_LINES = 3
TABLE_LINE = 25

CANVAS, PANEL, EDGE, GRID = "#111217", "#181b1f", "#2a2c33", "#2c2e35"
TEXT, DIM = "#ccccdc", "#9a9aa8"
COLOURS = (
    *("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0"),
    *("#37872d", "#fade2a", "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477"),
)
"""Those of Grafana's series, in its order."""


class Picture:
    """A canvas in pixels, from its upper left corner."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=CANVAS)
        self._renderer = FigureCanvasAgg(self.figure).get_renderer()
        self._widths: dict[tuple[str, float, bool], float] = {}

    def box(self, x: float, y: float, w: float, h: float, colour: str, edge: str) -> None:
        self.figure.add_artist(
            FancyBboxPatch(
                (x, self.height - y - h),
                w,
                h,
                boxstyle="round,pad=0,rounding_size=3",
                facecolor=colour,
                edgecolor=edge,
                linewidth=0.8,
                transform=None,
                zorder=-1,  # below the axes
            )
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12,
        colour: str = TEXT,
        bold: bool = False,
        align: str = "left",
    ) -> None:
        """`y` is the middle, `size` in pixels."""
        self.figure.text(
            x / WIDTH,
            1 - y / self.height,
            text,
            fontsize=size * 72 / DPI,
            color=colour,
            fontweight="bold" if bold else "normal",
            ha=align,
            va="center_baseline",
            parse_math=False,
        )

    def line(self, x: float, y: float, to_x: float, to_y: float, colour: str, width: float) -> None:
        self.figure.add_artist(
            Line2D(
                [x, to_x],
                [self.height - y, self.height - to_y],
                color=colour,
                linewidth=width,
                transform=None,
                solid_capstyle="butt",
            )
        )

    def ring(self, x: float, y: float, radius: float, colour: str) -> None:
        self.figure.add_artist(
            Circle(
                (x, self.height - y), radius, fill=False, edgecolor=colour, lw=0.9, transform=None
            )
        )

    def axes(self, x: float, y: float, w: float, h: float) -> Axes:
        place = (x / WIDTH, 1 - (y + h) / self.height, w / WIDTH, h / self.height)
        axes = self.figure.add_axes(place, facecolor="none")
        for side in axes.spines.values():
            side.set_visible(False)
        return axes

    def width(self, text: str, size: float = 12, *, bold: bool = False) -> float:
        key = (text, size, bold)
        if key not in self._widths:
            drawn = self.figure.text(
                0,
                0,
                text,
                fontsize=size * 72 / DPI,
                fontweight="bold" if bold else "normal",
                parse_math=False,
            )
            self._widths[key] = drawn.get_window_extent(self._renderer).width
            drawn.remove()
        return self._widths[key]

    def cut(self, text: str, room: float, size: float = 12) -> str:
        """Without its middle, where it is longer than its room: names differ at both ends."""
        if self.width(text, size) <= room:
            return text
        for kept in range(len(text) - 1, 2, -1):
            short = f"{text[: math.ceil(kept / 2)]}…{text[-(kept // 2) :]}"
            if self.width(short, size) <= room:
                return short
        return "…"


def draw(board: Board) -> Figure:
    rows = max(panel["y"] + panel["h"] for panel in board["panels"])
    picture = Picture(HEAD + rows * CELL + GAP)
    _head(picture, board)
    cell = (WIDTH - GAP) / COLUMNS
    for panel in board["panels"]:
        x, y = GAP + panel["x"] * cell, HEAD + panel["y"] * CELL
        w, h = panel["w"] * cell - GAP, panel["h"] * CELL - GAP
        if panel["kind"] == "row":
            picture.text(x + 20, y + h / 2, panel["title"], size=14, bold=True)
            picture.line(x + 4, y + h / 2 - 3, x + 8, y + h / 2 + 1, TEXT, 1.2)
            picture.line(x + 8, y + h / 2 + 1, x + 12, y + h / 2 - 3, TEXT, 1.2)
            continue
        picture.box(x, y, w, h, PANEL, EDGE)
        title = picture.cut(panel["title"], w - 50, 13)
        picture.text(x + 10, y + TITLE / 2, title, size=13, bold=True)
        if panel["described"]:
            middle = x + 10 + picture.width(title, 13, bold=True) + 16
            picture.ring(middle, y + TITLE / 2, 6, DIM)
            picture.text(middle, y + TITLE / 2 + 0.5, "i", size=9, colour=DIM, align="center")
        inside = (x + 10, y + TITLE, w - 20, h - TITLE - 8)
        if not panel["lines"] and not panel["rows"]:
            picture.text(
                x + w / 2, y + TITLE / 2 + h / 2, "No data", size=14, colour=DIM, align="center"
            )
        elif panel["kind"] == "stat":
            _stat(picture, panel, board, *inside)
        elif panel["kind"] == "table":
            _table(picture, panel, *inside)
        else:
            _time_series(picture, panel, board, *inside)
    return picture.figure


def _head(picture: Picture, board: Board) -> None:
    middle = HEAD / 2
    x: float = GAP + 4
    picture.text(x, middle, board["title"], size=17, bold=True)
    x += picture.width(board["title"], 17, bold=True) + 28
    for label, value in board["variables"]:
        first, second = picture.width(label) + 18, picture.width(value) + 18
        picture.box(x, middle - 14, first + second, 28, PANEL, EDGE)
        picture.text(x + 9, middle, label, colour=DIM)
        picture.line(x + first, middle - 14, x + first, middle + 14, EDGE, 0.8)
        picture.text(x + first + 9, middle, value)
        x += first + second + 10
    start, end = (datetime.fromtimestamp(board[edge], UTC) for edge in ("start", "end"))
    window = f"{start:%Y-%m-%d %H:%M} to {end:%H:%M} UTC"
    w = picture.width(window) + 18
    picture.box(WIDTH - GAP - w, middle - 14, w, 28, PANEL, EDGE)
    picture.text(WIDTH - GAP - w + 9, middle, window)


def _stat(
    picture: Picture, panel: PanelContent, board: Board, x: float, y: float, w: float, h: float
) -> None:
    series = panel["lines"][0]
    text = formatted(series["points"][-1][1], panel["unit"])
    size = min(64.0, 64 * w * 0.8 / picture.width(text, 64, bold=True))
    picture.text(
        x + w / 2, y + h * 0.36, text, size=size, colour=COLOURS[0], bold=True, align="center"
    )
    axes = picture.axes(x - 9, y + h * 0.7, w + 18, h * 0.3 + 7)
    axes.axis("off")
    axes.set_xlim(board["start"], board["end"])
    times, values = _with_gaps(series, board["step"])
    axes.set_ylim(min(0, *_finite(values)), max(1e-9, *_finite(values)) * 1.1)
    axes.plot(times, values, color=COLOURS[0], linewidth=1.2)
    axes.fill_between(times, values, color=COLOURS[0], alpha=0.15, linewidth=0)


def _table(picture: Picture, panel: PanelContent, x: float, y: float, w: float, h: float) -> None:
    columns, rows = panel["columns"], panel["rows"]
    room = int(h // TABLE_LINE) - 1
    shown = rows if len(rows) <= room else rows[: room - 1]
    wanted = [
        max(picture.width(text) for text in (name, *(row[index] for row in rows))) + 24
        for index, name in enumerate(columns)
    ]
    # Each has what it needs, and what is left over or lacks is shared.
    widths = [one * w / sum(wanted) for one in wanted]
    middle = y + TABLE_LINE / 2
    for number, row in enumerate([columns, *shown]):
        left = x
        for text, width in zip(row, widths, strict=True):
            colour = COLOURS[5] if not number else TEXT
            picture.text(left + 4, middle, picture.cut(text, width - 8), colour=colour)
            left += width
        picture.line(x, middle + TABLE_LINE / 2, x + w, middle + TABLE_LINE / 2, EDGE, 0.8)
        middle += TABLE_LINE
    if len(shown) < len(rows):
        picture.text(x + 4, middle, f"… {len(rows) - len(shown)} more", colour=DIM)


def _time_series(
    picture: Picture, panel: PanelContent, board: Board, x: float, y: float, w: float, h: float
) -> None:
    legend = list(_legend(picture, panel, w))
    height = (legend[-1][1] + 1) * LEGEND_LINE
    for left, line, colour, text in legend:
        middle = y + h - height + (line + 0.5) * LEGEND_LINE + 3
        if colour:
            picture.line(x + left, middle, x + left + 14, middle, colour, 3)
            picture.text(x + left + 20, middle, text, size=11.5)
        else:
            picture.text(x + left, middle, text, size=11.5, colour=DIM)

    values = [value for one in panel["lines"] for _, value in one["points"]]
    least, most = _range(panel, values)
    marks = ticks(
        least,
        most,
        panel["unit"],
        7,
        whole=panel["unit"] == "short" and all(value == int(value) for value in values),
    )
    labels = [tick(mark, panel["unit"]) for mark in marks]
    margin = max((picture.width(label, 11) for label in labels), default=0) + 8
    axes = picture.axes(x + margin, y + 4, w - margin - 4, h - height - 34)
    axes.set_xlim(board["start"], board["end"])
    axes.set_ylim(least, most)
    axes.set_yticks(marks, labels)
    times = _time_ticks(board, int((w - margin) // 90))
    axes.set_xticks(times, [_clock(time, times) for time in times])
    axes.tick_params(colors=DIM, labelsize=11 * 72 / DPI, length=0, pad=6)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for index, series in enumerate(panel["lines"]):
        colour = _colour(series, index)
        when, what = _with_gaps(series, board["step"])
        axes.plot(when, what, color=colour, linewidth=1.4, clip_on=False)
        alone = _alone(when, what)
        axes.plot(*alone, color=colour, marker="o", ms=3, linestyle="none", clip_on=False)


def _legend(
    picture: Picture, panel: PanelContent, w: float
) -> Iterator[tuple[float, int, str | None, str]]:
    """Place from the left, line, colour and text of each entry; the last has no colour where some
    are left out, which are those with the smallest values."""
    entries = []
    for index, series in enumerate(panel["lines"]):
        value = series["points"][-1][1]
        name = picture.cut(series["name"], w * 0.6, 11.5)
        text = f"{name}  {formatted(value, panel['unit'])}"
        entries.append((index, value, text, picture.width(text, 11.5) + 36))
    for count in range(len(entries), 0, -1):
        largest = sorted(entries, key=lambda one: -one[1])[:count]
        more = f"… {len(entries) - count} more" if count < len(entries) else ""
        placed: list[tuple[float, int, str | None, str]] = []
        left, line = 0.0, 0
        for index, _, text, width in sorted(largest):
            if left and left + width - 16 > w:
                left, line = 0.0, line + 1
            placed.append((left, line, _colour(panel["lines"][index], index), text))
            left += width
        if more:
            if left + picture.width(more, 11.5) > w:
                left, line = 0.0, line + 1
            placed.append((left, line, None, more))
        if line < LEGEND_LINES or count == 1:
            yield from placed
            return


def _colour(series: Line, index: int) -> str:
    return series["colour"] or COLOURS[index % len(COLOURS)]


def _range(panel: PanelContent, values: list[float]) -> tuple[float, float]:
    """The panel's bounds, but a line outside them is not hidden, as it would be by Grafana."""
    bounds = [bound for bound in (panel["least"], panel["most"]) if bound is not None]
    least, most = min(values + bounds), max(values + bounds)
    if panel["most"] is None:
        most = most + 0.1 * (most - least) if most > least else least + 1
    return least, most


def _with_gaps(series: Line, step: float) -> tuple[list[float], list[float]]:
    """Times and values, with a value that is no number where points are missing."""
    times: list[float] = []
    values: list[float] = []
    for time, value in series["points"]:
        if times and time - times[-1] > 1.5 * step:
            times.append(time - step)
            values.append(math.nan)
        times.append(time)
        values.append(value)
    return times, values


def _alone(times: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """The points that no line leads to."""
    around = [math.nan, *values, math.nan]
    found = [
        (time, value)
        for index, (time, value) in enumerate(zip(times, values, strict=True))
        if math.isnan(around[index]) and math.isnan(around[index + 2])
    ]
    return [time for time, _ in found], [value for _, value in found]


def _finite(values: list[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _time_ticks(board: Board, number: int) -> list[float]:
    seconds = board["end"] - board["start"]
    minutes = [one for one in SECONDS if one >= 60]
    step = next((one for one in minutes if seconds / one <= number), minutes[-1])
    first = math.ceil(board["start"] / step)
    return [step * index for index in range(first, math.floor(board["end"] / step) + 1)]


def _clock(time: float, times: list[float]) -> str:
    when = datetime.fromtimestamp(time, UTC)
    return f"{when:%m-%d}" if times[-1] - times[0] > 3 * 86400 else f"{when:%H:%M}"


def save(figure: Figure, file: Path) -> None:
    """As a PNG with a palette, which is a third as large as one without."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())
    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette())
    image.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE).save(file)


def _palette() -> bytes:
    """The colours that we draw with, and how their edges shade into the ground: chosen from the
    picture itself, the colour of a thin line might become its neighbour's."""
    exact = [_mixed(colour, colour, 1) for colour in (CANVAS, PANEL, EDGE, GRID, TEXT, DIM)]
    text = [_mixed(CANVAS, TEXT, share / 50) for share in range(1, 50)]
    lines = [_mixed(PANEL, colour, share / 12) for colour in COLOURS for share in range(1, 13)]
    return b"".join([*exact, *text, *lines])


def _mixed(ground: str, colour: str, share: float) -> bytes:
    pairs = zip(bytes.fromhex(ground[1:]), bytes.fromhex(colour[1:]), strict=True)
    return bytes(round(below + share * (above - below)) for below, above in pairs)


if __name__ == "__main__":
    matplotlib.rcParams["font.family"] = "DejaVu Sans"
    save(draw(json.load(sys.stdin)), Path(sys.argv[1]))
