"""A calibration's page: one HTML file with the reliability diagram and what a wanted risk costs. In: a Calibration."""

from collections.abc import Iterator
from pathlib import Path

from panfpn.files import write_text
from panfpn.metrics.calibration import Bin, Calibration
from panfpn.report.curves import Chart, Curve, Point, chart
from panfpn.report.page import POLICY, environment


def write_calibration_page(path: Path, found: Calibration, *, title: str) -> None:
    """Write the page of a calibration."""
    page = environment().get_template("calibration.html.j2").render(
        policy=POLICY, title=title, found=found, diagram=_diagram(found), risk=_risk(found),
        bins=[(before, after) for before, after in zip(*found.diagram, strict=True) if before.count or after.count],
        width=1 / len(found.diagram[0]),
    )  # fmt: skip
    write_text(path, page)


def _diagram(found: Calibration) -> Chart | None:
    """Accuracy against confidence, in %, before and after; on the diagonal a model is as right as it is sure."""
    before, after = (list(_points(bins)) for bins in found.diagram)
    return chart(
        [
            Curve(name="as sure as right", points=[(0.0, 0.0), (100.0, 100.0)], style="lr"),
            Curve(name="before", points=before, style="c"), Curve(name="after", points=after, style="a"),
        ], 100, label="accuracy against confidence before and after; the numbers are in the table below", unit=" %",
    )  # fmt: skip


def _points(bins: tuple[Bin, ...]) -> Iterator[Point]:
    return ((100 * b.confidence, 100 * b.accuracy) for b in bins if b.count)


def _risk(found: Calibration) -> Chart | None:
    """The share of wrong labels against the share of labels that are kept, in %."""
    points = [(100 * t.coverage, 100 * t.risk) for t in found.thresholds]
    return chart([Curve(name="wrong labels among those that are kept", points=points, style="a")], 100,
                 label="risk against coverage; the numbers are in the table below", unit=" %")  # fmt: skip
