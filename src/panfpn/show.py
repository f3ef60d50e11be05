"""Scores for people and for files. In: scores. Out: tables on the terminal, plain data for JSON."""

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from panfpn.metrics import SemanticScores
from panfpn.metrics.bootstrap import Comparison, Interval, miou_interval
from panfpn.metrics.counts import mean, plain
from panfpn.metrics.protocols import score

_MOVED = 5  # images that a comparison lists
_WIDEST = 400  # characters that a table may take
_HIDDEN = ("Dice", "Recall")  # mmseg's second names of Fscore and Acc, which the table does without


def print_scores(scores: SemanticScores, protocol: str = "mmseg") -> None:
    """The per-class table in the protocol's names and unit, its summary, and the interval of mIoU.

    A class that occurs neither in truth nor in prediction is shown as absent.
    """
    shown = score(scores, protocol)
    scale, digits = (100, 2) if shown.percent else (1, 4)
    columns = {name: values for name, values in shown.classes.items() if name not in _HIDDEN}
    if scores.boundary:
        columns |= {
            "Boundary IoU": scale * scores.boundary.boundary_iou,
            "trimap IoU": scale * scores.boundary.trimap_iou,
        }
    table = Table("class")
    for name in (*columns, "pixels"):
        table.add_column(name, justify="right")
    total = max(1, int(scores.pixels.sum()))
    for k, name in enumerate(scores.names):
        if math.isnan(scores.iou[k]):
            table.add_row(escape(name), "absent")
            continue
        cells = (_number(values[k], digits) for values in columns.values())
        table.add_row(escape(name), *cells, _number(scale * scores.pixels[k] / total, digits))
    console = Console()
    wanted = console.measure(table, options=console.options.update(width=_WIDEST)).maximum
    console.width = max(console.width, wanted)  # rather a long line than a cut number
    console.print(table)
    summary = "  ".join(f"{name} {_number(value, digits)}" for name, value in shown.summary.items())
    lines = [f"{protocol}{', %' if shown.percent else ''}: {summary}"]
    if scores.boundary:
        lines.append("  ".join(f"mean {name} {_number(mean(columns[name]), digits)}" for name in list(columns)[-2:]))
    if scores.images and len(scores.images.names) > 1:
        bounds = _bounds(miou_interval(scores.images), scale, digits)
        lines.append(f"mmseg mIoU {bounds} in 95 % of bootstrap resamples of the {len(scores.images.names)} images")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def scores_to_json(scores: SemanticScores, protocol: str = "mmseg") -> dict[str, Any]:
    """What `panfpn eval --json` writes: `scores.to_dict()`, the protocol's own scores, interval, boundaries, images."""
    shown = score(scores, protocol)
    data = scores.to_dict()
    data["protocol"] = {
        "name": protocol, "percent": shown.percent, "summary": {key: plain(v) for key, v in shown.summary.items()},
        "classes": {key: [plain(v) for v in values] for key, values in shown.classes.items()},
    }  # fmt: skip
    if scores.boundary:
        data["boundary"] = scores.boundary.to_dict(scores.names)
    if scores.images:
        interval = miou_interval(scores.images)
        data["interval"] = {"low": plain(interval.low), "high": plain(interval.high)}
        data["images"] = scores.images.to_list()
    return data


def print_comparison(comparison: Comparison, first: Path, second: Path) -> None:
    """The mIoU of both, their difference with its interval, and the images that moved most; in shares."""
    table = Table("", "mIoU", "95 % interval")
    rows = (("A", comparison.a), ("B", comparison.b), ("B - A", comparison.difference))
    for name, interval in rows:
        sign = "+" if name == "B - A" else ""
        table.add_row(name, f"{interval.value:{sign}.4f}", _bounds(interval, sign=sign))
    console = Console()
    console.print(f"A: {first}\nB: {second}", highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    console.print(f"B is better in {100 * comparison.b_better:.1f} % of the resamples of the images", highlight=False)
    if not comparison.moved:
        return
    moved = Table("moved most", "A", "B", "B - A")
    for name, a, b in comparison.moved[:_MOVED]:
        moved.add_row(escape(name), f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}")
    console.print(moved)


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _bounds(interval: Interval, scale: int = 1, digits: int = 4, sign: str = "") -> str:
    return " to ".join(f"{scale * bound:{sign}.{digits}f}" for bound in (interval.low, interval.high))
