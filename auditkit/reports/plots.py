"""Small charts as SVG text: deterministic, light, printable, readable by a screen reader.

Every function is pure. Each chart names itself (`<title>`), tells its content in words (`<desc>`)
and distinguishes lines by dash pattern as well as by colour.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np

from auditkit.reports.content import FloatArray
from auditkit.reports.formatting import MINUS

MOST_POINTS = 500  # per line; more cannot be seen at the printed size

INK = "#1c2430"
MUTED = "#515b69"
GRID = "#e3e6eb"
FRAME = "#8a93a0"

LEFT, RIGHT, TOP, BOTTOM = 52.0, 18.0, 10.0, 40.0
LEGEND_ROW = 17.0
FONT_SIZE = "11"
CHARACTER_WIDTH = 6.1  # of the 11-unit sans-serif font, on average; for laying out the legend
MAJOR_TICKS = 5


@dataclass(frozen=True)
class Frame:
    """Name, words and size of a chart; `identifier` must be unique on the page."""

    identifier: str
    title: str
    description: str
    width: float = 420.0
    height: float = 260.0


@dataclass(frozen=True)
class Axis:
    """Label and range of an axis. A logarithmic axis needs 0 < low < high."""

    label: str
    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"
    percent: bool = False

    def position(self, values: FloatArray) -> FloatArray:
        """Map values to [0, 1] along the axis; values outside its range are clipped to it."""
        low, high = self._warp(np.asarray([self.low, self.high]))
        inside = np.clip(np.asarray(values, dtype=np.float64), self.low, self.high)
        return np.asarray((self._warp(inside) - low) / (high - low))

    def ticks(self) -> list[float]:
        """Return round values inside the range: powers of ten, or multiples of 1, 2 or 5."""
        if self.scale == "log":
            exponents = range(
                math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1
            )
            return [10.0**exponent for exponent in exponents]
        step = _round_step((self.high - self.low) / MAJOR_TICKS)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]

    def tick_label(self, value: float) -> str:
        """Return the text beside a tick."""
        if self.percent:
            return f"{100 * value:.6g} %"
        return f"{value:,.6g}".replace("-", MINUS)

    def _warp(self, values: FloatArray) -> FloatArray:
        return np.log10(values) if self.scale == "log" else values


@dataclass(frozen=True, eq=False)
class Line:
    """One line: `x` and `y` of shape `(points,)`. `dash` is an SVG dash pattern, empty: solid."""

    label: str
    x: FloatArray
    y: FloatArray
    colour: str
    dash: str = ""
    width: float = 1.7


def line_chart(frame: Frame, x_axis: Axis, y_axis: Axis, lines: Sequence[Line]) -> str:
    """Draw lines over common axes, with a legend below."""
    rows = _legend_rows(lines, frame.width - LEFT - RIGHT)
    root, area = _canvas(frame, x_axis, y_axis, legend_height=LEGEND_ROW * len(rows))
    for line in lines:
        x, y = _thinned(line.x, line.y)
        if len(x) == 0:
            continue
        points = _points(area.x(x_axis.position(x)), area.y(y_axis.position(y)))
        SubElement(root, "polyline", {"points": points, "fill": "none"} | _stroke(line))
    _legend(root, rows, frame.height + 8.0)
    return _text(root)


def histogram(
    frame: Frame,
    x_axis: Axis,
    y_axis: Axis,
    *,
    edges: FloatArray,
    heights: FloatArray,
    colour: str,
    marker: float | None = None,
) -> str:
    """Draw bars between `edges` `(n + 1,)` of the given `heights` `(n,)`, and a dashed marker."""
    root, area = _canvas(frame, x_axis, y_axis, legend_height=0.0)
    x = area.x(x_axis.position(edges))
    y = area.y(y_axis.position(heights))
    steps = [f"M{_number(x[0])},{_number(area.bottom)}"]
    for index, height in enumerate(y):
        steps.append(f"V{_number(height)}H{_number(x[index + 1])}")
    steps.append(f"V{_number(area.bottom)}Z")
    SubElement(
        root,
        "path",
        {"d": "".join(steps), "fill": colour, "fill-opacity": "0.85", "stroke": "none"},
    )
    if marker is not None and x_axis.low <= marker <= x_axis.high:
        at = _number(float(area.x(x_axis.position(np.asarray([marker])))[0]))
        ends = {"x1": at, "x2": at, "y1": _number(area.top), "y2": _number(area.bottom)}
        style = {"stroke": INK, "stroke-width": "1.2", "stroke-dasharray": "4 3"}
        SubElement(root, "line", ends | style)
    return _text(root)


@dataclass(frozen=True)
class _Area:
    """The plotting rectangle in drawing units."""

    left: float
    right: float
    top: float
    bottom: float

    def x(self, share: FloatArray) -> FloatArray:
        return self.left + share * (self.right - self.left)

    def y(self, share: FloatArray) -> FloatArray:
        return self.bottom - share * (self.bottom - self.top)


def _canvas(
    frame: Frame, x_axis: Axis, y_axis: Axis, *, legend_height: float
) -> tuple[Element, _Area]:
    title_id, text_id = f"{frame.identifier}-title", f"{frame.identifier}-text"
    extra = legend_height + 6.0 if legend_height else 0.0
    root = Element(
        "svg",
        {
            "viewBox": f"0 0 {_number(frame.width)} {_number(frame.height + extra)}",
            "role": "img",
            "aria-labelledby": f"{title_id} {text_id}",
            "font-size": FONT_SIZE,
            "fill": MUTED,
        },
    )
    SubElement(root, "title", id=title_id).text = frame.title
    SubElement(root, "desc", id=text_id).text = frame.description
    area = _Area(LEFT, frame.width - RIGHT, TOP, frame.height - BOTTOM)
    _draw_x_axis(root, area, x_axis)
    _draw_y_axis(root, area, y_axis)
    corner = f"M{_number(area.left)},{_number(area.top)}V{_number(area.bottom)}"
    outline = f"{corner}H{_number(area.right)}"
    SubElement(root, "path", {"d": outline, "fill": "none", "stroke": FRAME})
    return root, area


def _draw_x_axis(root: Element, area: _Area, axis: Axis) -> None:
    for value in axis.ticks():
        at = _number(float(area.x(axis.position(np.asarray([value])))[0]))
        vertical = {"x1": at, "x2": at, "y1": _number(area.top), "y2": _number(area.bottom)}
        SubElement(root, "line", vertical | {"stroke": GRID})
        label = SubElement(root, "text", {"x": at, "y": _number(area.bottom + 15)})
        label.set("text-anchor", "middle")
        label.text = axis.tick_label(value)
    middle = (area.left + area.right) / 2
    name = SubElement(root, "text", {"x": _number(middle), "y": _number(area.bottom + 32)})
    name.set("text-anchor", "middle")
    name.set("fill", INK)
    name.text = axis.label


def _draw_y_axis(root: Element, area: _Area, axis: Axis) -> None:
    for value in axis.ticks():
        at = float(area.y(axis.position(np.asarray([value])))[0])
        level = _number(at)
        horizontal = {"x1": _number(area.left), "x2": _number(area.right), "y1": level, "y2": level}
        SubElement(root, "line", horizontal | {"stroke": GRID})
        label = SubElement(root, "text", {"x": _number(area.left - 6), "y": _number(at + 3.8)})
        label.set("text-anchor", "end")
        label.text = axis.tick_label(value)
    middle = _number((area.top + area.bottom) / 2)
    name = SubElement(root, "text", {"x": "0", "y": "0", "fill": INK, "text-anchor": "middle"})
    name.set("transform", f"translate(11 {middle}) rotate(-90)")
    name.text = axis.label


def _legend_rows(lines: Sequence[Line], width: float) -> list[list[tuple[float, Line]]]:
    """Distribute legend entries over rows; each entry comes with its offset in the row."""
    rows: list[list[tuple[float, Line]]] = []
    offset = 0.0
    for line in lines:
        if not line.label:
            continue
        needed = 34.0 + CHARACTER_WIDTH * len(line.label)
        if not rows or offset + needed > width:
            rows.append([])
            offset = 0.0
        rows[-1].append((offset, line))
        offset += needed
    return rows


def _legend(root: Element, rows: list[list[tuple[float, Line]]], top: float) -> None:
    for index, row in enumerate(rows):
        middle = top + index * LEGEND_ROW
        for offset, line in row:
            start = LEFT + offset
            key = {"x1": _number(start), "x2": _number(start + 22), "y1": _number(middle)}
            SubElement(root, "line", key | {"y2": _number(middle)} | _stroke(line))
            position = {"x": _number(start + 27), "y": _number(middle + 3.8), "fill": INK}
            SubElement(root, "text", position).text = line.label


def _stroke(line: Line) -> dict[str, str]:
    attributes = {"stroke": line.colour, "stroke-width": _number(line.width)}
    if line.dash:
        attributes["stroke-dasharray"] = line.dash
    return attributes | {"stroke-linejoin": "round"}


def _thinned(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) <= MOST_POINTS:
        return x, y
    kept = np.linspace(0, len(x) - 1, MOST_POINTS).astype(np.int64)
    return x[kept], y[kept]


def _points(x: FloatArray, y: FloatArray) -> str:
    return " ".join(f"{_number(a)},{_number(b)}" for a, b in zip(x, y, strict=True))


def _number(value: float) -> str:
    """Return a coordinate with one decimal and without a trailing zero."""
    return f"{value:.1f}".removesuffix(".0")


def _round_step(raw: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(raw))
    for factor in (1.0, 2.0, 5.0):
        if raw <= factor * magnitude * (1 + 1e-9):
            return factor * magnitude
    return 10.0 * magnitude


def _text(root: Element) -> str:
    return tostring(root, encoding="unicode")
