"""Charts: axes that show the curve, gaps where values are missing, points that a screen resolves."""

import math

import pytest

from panfpn.report.curves import Chart, Curve, chart, smooth, thin


def drawn(curve: Curve, *, log: bool = False) -> Chart:
    result = chart([curve], 4, label="x", log=log)
    assert result is not None
    return result


def test_loss_that_falls_far_gets_a_logarithmic_axis_but_shares_do_not() -> None:
    curve = Curve(name="a", points=[(1.0, 500.0), (2.0, 5.0), (3.0, 0.5)], style="a")
    heights = {tick.text: tick.at for tick in drawn(curve, log=True).left}
    assert heights["10"] - heights["1"] == pytest.approx(heights["100"] - heights["10"], abs=0.02)
    assert drawn(curve).left[0].text == "0"


def test_curve_breaks_where_a_value_is_missing() -> None:
    points = [(1.0, 1.0), (2.0, 1.0), (3.0, math.nan), (4.0, 1.0)]
    (line,) = drawn(Curve(name="a", points=points, style="a", dots=True)).lines
    assert line.path == "M25.00 0.00h0L50.00 0.00M100.00 0.00h0"
    assert [dot.title for dot in line.dots] == ["step 1: 1", "step 2: 1", "step 4: 1"]


def test_what_has_no_finite_value_is_no_chart() -> None:
    assert chart([Curve(name="a", points=[(1.0, math.nan)], style="a")], 4, label="x") is None
    assert chart([], math.nan, label="x") is None


def test_axes_hold_every_value() -> None:
    curves = [Curve(name="loss", points=[(0.0, 3.2), (1000.0, 0.0)], style="a"),
              Curve(name="lr", points=[(0.0, 0.013)], style="lr", right=True)]  # fmt: skip
    result = chart(curves, 1000, label="x", unit=" %")
    assert result is not None
    assert [tick.text for tick in result.left] == ["0 %", "1 %", "2 %", "3 %", "4 %"]
    assert result.right[-1].text == "0.015" and result.right[-1].at == pytest.approx(100)
    assert [tick.text for tick in result.below] == ["0", "500", "1k"]
    assert result.grid.count("M") == 5


def test_thin_and_smooth_keep_ends_and_means() -> None:
    points = [(float(k), float(k)) for k in range(1000)]
    short = thin(points)
    assert len(short) <= 300 and short[-1][0] == 999
    assert all(abs(x - y) <= 4 for x, y in short)
    assert [y for _, y in smooth(points)] == pytest.approx([y for _, y in points])  # a straight line stays one
    assert math.isnan(smooth([(0.0, 1.0), (1.0, math.nan), (2.0, 1.0)])[1][1])
