"""Scores for people and for files. In: scores. Out: tables on the terminal, plain data for JSON."""

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from panfpn.metrics import PanopticScores, Scores
from panfpn.metrics.bootstrap import Comparison, Interval, miou_interval
from panfpn.metrics.counts import mean, plain
from panfpn.metrics.panoptic_quality import GROUPS
from panfpn.metrics.protocols import score

_MOVED = 5  # images that a comparison lists
_WIDEST = 400  # characters that a table may take
_HIDDEN = ("Dice", "Recall")  # mmseg's second names of Fscore and Acc, which the table does without


def print_scores(scores: Scores, protocol: str = "mmseg") -> None:
    """The per-class table in the protocol's names and unit, its summary, and the interval of mIoU; or PQ and AP.

    A class that occurs neither in truth nor in prediction is shown as absent. ValueError for another protocol than
    mmseg where the scores are panoptic.
    """
    if isinstance(scores, PanopticScores):
        _check_panoptic(protocol)
        _print_panoptic(scores)
        return
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
    summary = "  ".join(f"{name} {_number(value, digits)}" for name, value in shown.summary.items())
    lines = [f"{protocol}{', %' if shown.percent else ''}: {summary}"]
    if scores.boundary:
        lines.append("  ".join(f"mean {name} {_number(mean(columns[name]), digits)}" for name in list(columns)[-2:]))
    if scores.images and len(scores.images.names) > 1:
        bounds = _bounds(miou_interval(scores.images), scale, digits)
        lines.append(f"mmseg mIoU {bounds} in 95 % of bootstrap resamples of the {len(scores.images.names)} images")
    _print_wide(table, lines)


def _print_panoptic(scores: PanopticScores) -> None:
    """A row per class, then a line per group and one for each other score that there is."""
    counts = scores.true_positives, scores.false_positives, scores.false_negatives
    columns = {"PQ": scores.pq, "SQ": scores.sq, "RQ": scores.rq}
    if scores.merged:
        columns["IoU merged"] = scores.merged.iou
    table = Table("class", "kind")
    for name in (*columns, "TP", "FP", "FN"):
        table.add_column(name, justify="right")
    for k, name in enumerate(scores.names):
        cells = [_number(100 * values[k], 2) for values in columns.values()]
        if math.isnan(scores.pq[k]):
            cells[:3] = ["absent", "", ""]
        kind = "thing" if scores.things[k] else "stuff"
        table.add_row(escape(name), kind, *cells, *(str(values[k]) for values in counts))
    lines = ["%:"]
    for group in GROUPS:
        means = scores.mean(group)
        parts = "  ".join(
            f"{name} {_number(100 * v, 2)}" for name, v in zip(("PQ", "SQ", "RQ"), means[:3], strict=True)
        )
        lines.append(f"{group.capitalize():<7} {parts}  ({means.n} {'class' if means.n == 1 else 'classes'})")
    for name, part in (("semantic branch", scores.branch), ("merged map", scores.merged)):
        if part:
            lines.append(f"{name}: mIoU {_number(100 * part.miou, 2)}")
    for name, ap in (("boxes", scores.box_ap), ("masks", scores.mask_ap)):
        if ap:
            keys = {"AP": ap.ap, "AP50": ap.ap50, "AP75": ap.ap75, "small": ap.small, "medium": ap.medium,
                    "large": ap.large}  # fmt: skip
            lines.append(f"{name}: " + "  ".join(f"{key} {_number(100 * value, 2)}" for key, value in keys.items()))
    _print_wide(table, lines)


def _print_wide(table: Table, lines: list[str]) -> None:
    """A table as wide as its numbers, rather than cut ones, and lines below it."""
    console = Console()
    wanted = console.measure(table, options=console.options.update(width=_WIDEST)).maximum
    console.width = max(console.width, wanted)
    console.print(table)
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _check_panoptic(protocol: str) -> None:
    if protocol != "mmseg":
        raise ValueError(f"protocol {protocol!r} scores semantic maps; a Panoptic FPN is scored by PQ: leave it out")


def scores_to_json(scores: Scores, protocol: str = "mmseg") -> dict[str, Any]:
    """What `panfpn eval --json` writes: `scores.to_dict()`, the protocol's own scores, interval, boundaries, images.

    Panoptic scores have no protocol; ValueError for another than mmseg.
    """
    if isinstance(scores, PanopticScores):
        _check_panoptic(protocol)
        return scores.to_dict()
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
