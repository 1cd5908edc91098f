"""Charts draw what they are given, however strange, and stay small."""

from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.reports.plots import MOST_POINTS, Axis, Frame, Line, histogram, line_chart

FRAME = Frame("chart", "A title", "A description")


def points(svg: str) -> list[tuple[float, float]]:
    line = ET.fromstring(svg).find("polyline")
    return [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]


def test_a_line_rises_on_paper_where_its_values_rise():
    x = np.asarray([0.0, 1.0, 2.0])
    svg = line_chart(
        FRAME,
        Axis("x", 0, 2),
        Axis("y", 0, 4),
        [Line("rising", x, x * 2, "#1f4e79")],
    )
    (x0, y0), (x1, y1), (x2, y2) = points(svg)
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 > y1 > y2
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)


def test_a_power_law_is_straight_on_logarithmic_axes():
    x = np.geomspace(0.001, 1, 4)
    axis = Axis("rate", 0.001, 1.0, "log", percent=True)
    svg = line_chart(FRAME, axis, axis, [Line("chance", x, x, "#1f4e79")])
    steps = np.diff(np.asarray(points(svg)), axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=0.2)
    assert axis.ticks() == pytest.approx([0.001, 0.01, 0.1, 1.0])
    assert [axis.tick_label(tick) for tick in axis.ticks()] == ["0.1 %", "1 %", "10 %", "100 %"]


def test_long_curves_are_thinned_and_keep_their_ends():
    x = np.arange(100_000.0)
    svg = line_chart(FRAME, Axis("x", 0, 1e5), Axis("y", 0, 1e5), [Line("l", x, x, "#1f4e79")])
    drawn = points(svg)
    assert len(drawn) <= MOST_POINTS
    left = drawn[0][0]
    assert left == pytest.approx(52)
    assert drawn[-1][0] == pytest.approx(402, abs=0.1)


def test_numbers_that_are_not_finite_are_left_out():
    x = np.asarray([0.0, 1.0, np.nan, 3.0])
    y = np.asarray([0.0, np.inf, 2.0, 3.0])
    svg = line_chart(FRAME, Axis("x", 0, 3), Axis("y", 0, 3), [Line("l", x, y, "#1f4e79")])
    assert len(points(svg)) == 2


def test_labels_are_escaped_and_listed_in_the_legend():
    one = np.asarray([0.0, 1.0])
    lines = [Line(f"<line> & {i}", one, one, "#1f4e79") for i in range(8)]
    svg = line_chart(Frame("c", "<b>", "a & b"), Axis("<x>", 0, 1), Axis("y", 0, 1), lines)
    root = ET.fromstring(svg)
    assert root.findtext("title") == "<b>"
    texts = [element.text for element in root.findall("text")]
    assert {line.label for line in lines} <= set(texts)
    bottom = float(root.get("viewBox").split()[3])
    assert all(float(element.get("y")) < bottom for element in root.findall("text"))


def test_a_histogram_marks_its_threshold_only_inside_its_range():
    edges, heights = np.linspace(0, 1, 5), np.asarray([0.1, 0.4, 0.4, 0.1])

    def dashed(marker: float | None) -> int:
        svg = histogram(
            FRAME,
            Axis("score", 0, 1),
            Axis("share", 0, 0.5, percent=True),
            edges=edges,
            heights=heights,
            colour="#1f4e79",
            marker=marker,
        )
        lines = ET.fromstring(svg).findall("line")
        return sum("stroke-dasharray" in line.attrib for line in lines)

    assert [dashed(marker) for marker in (0.5, 1.5, None)] == [1, 0, 0]


@given(
    low=st.floats(-1e6, 1e6),
    span=st.floats(1e-3, 1e6),
)
def test_ticks_lie_in_the_range_and_are_few(low, span):
    axis = Axis("value", low, low + span)
    ticks = axis.ticks()
    slack = 1e-6 * max(abs(low), span)
    assert 1 <= len(ticks) <= 7
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)
