"""Scores for people, on the terminal. In: scores. Out: tables and lines."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Column as TableColumn
from rich.table import Table

from panfpn.data.doctor import Diagnosis
from panfpn.metrics import Scores
from panfpn.metrics.bootstrap import Comparison, Interval
from panfpn.metrics.calibration import Calibration
from panfpn.metrics.scores import ClassTable, Column

_DIAGRAM = ("pixels %", "mean %", "right %", "pixels % after", "mean %", "right %")
_MOVED = 5  # images that a comparison lists
_WIDEST = 400  # characters that a table may take


def print_scores(scores: Scores, protocol: str = "mmseg") -> None:
    """The table of classes and the scores of the whole set below it, in the protocol's names and unit.

    A class without a score is shown as absent. ValueError for a protocol that does not score such maps.
    """
    classes, percent = scores.class_table(protocol), scores.percent(protocol)
    table = Table("class")
    for column in classes.columns:
        table.add_column(column.name, justify="left" if isinstance(column.values, tuple) else "right")
    for row in _rows(classes, percent):
        table.add_row(*map(escape, row))
    lines = []
    for k, line in enumerate(scores.lines(protocol)):
        label = line.label + (", %" if percent and k == 0 else "")
        parts = [f"{name} {_number(value, percent)}" for name, value in line.values.items()]
        lines.append(f"{label}: " + "  ".join([*parts, *([line.note] if line.note else [])]))
    _print_wide(table, lines)


def _rows(classes: ClassTable, percent: bool) -> Iterable[tuple[str, ...]]:
    for k, name in enumerate(classes.names):
        yield name, *(_cell(column, k, classes, percent) for column in classes.columns)


def _cell(column: Column, k: int, classes: ClassTable, percent: bool) -> str:
    value = column.values[k]
    if classes.absent[k] and column is classes.score:
        return "absent"
    if isinstance(value, np.floating):
        return "" if classes.absent[k] and math.isnan(value) else _number(float(value), percent)
    return str(value)


def _print_wide(table: Table, lines: list[str]) -> None:
    """A table as wide as its numbers, rather than cut ones, and lines below it."""
    console = Console()
    wanted = console.measure(table, options=console.options.update(width=_WIDEST)).maximum
    console.width = max(console.width, wanted)
    console.print(table)
    if lines:
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def print_probe(rows: Sequence[Mapping[str, Any]], pareto: frozenset[str]) -> None:
    """A line for each backbone, best first; those that no other beats in score and latency are marked."""
    table = Table("", "backbone", "mIoU", "95 % interval", "ms", "MB", "M", "GFLOP", "weights")
    failed = [row for row in rows if row["miou"] is None]
    for row in rows:
        if row["miou"] is not None:
            bounds = f"{row['low']:.4f} to {row['high']:.4f}"
            numbers = (
                f"{row['latency_ms']:.1f}",
                f"{row['memory_mb']:.0f}",
                f"{row['params_m']:.1f}",
                f"{row['gflops']:.1f}",
            )
            mark = "*" if row["name"] in pareto else ""
            table.add_row(mark, escape(row["name"]), f"{row['miou']:.4f}", bounds, *numbers, escape(row["weights"]))
    lines = ["* no other is both better and quicker"] if len(failed) < len(rows) else []
    _print_wide(table, [*lines, *(f"{row['name']}: {row['problem'] or 'not trained'}" for row in failed)])


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """A line for each class: its share of the pixels and its images, by split; and one for what is ignored."""
    k, names = diagnosis.table.num_classes, (*diagnosis.table.names, "(ignored)")
    table = Table("class")
    columns = []
    for report in diagnosis.splits:
        counts, images = report.counts(k), report.images(k)
        columns.append((counts, images, max(1, counts.sum())))
        table.add_column(f"{report.split}, % of pixels", justify="right")
        table.add_column("images", justify="right")
    for c, name in enumerate(names):
        cells = [text for counts, images, total in columns
                 for text in (f"{100 * counts[c] / total:.2f}" if counts[c] else "–", f"{images[c]}")]  # fmt: skip
        table.add_row(escape(name), *cells)
    sizes = [s.size for report in diagnosis.splits for s in report.readable]
    lines = []
    if sizes:
        small, large = min(sizes, key=math.prod), max(sizes, key=math.prod)
        lines.append(f"{len(sizes)} images from {small[1]}×{small[0]} to {large[1]}×{large[0]} pixels")
    _print_wide(table, lines)


def print_calibration(found: Calibration) -> None:
    """The temperature, the reliability diagram before and after it, and what a wanted risk costs in coverage."""
    diagram = Table("confidence", *(TableColumn(name, justify="right") for name in _DIAGRAM))
    for before, after in zip(*found.diagram, strict=True):
        cells = [cell for b in (before, after) for cell in
                 (f"{100 * b.count / found.pixels:.1f}", *(f"{100 * v:.1f}" if b.count else "–"
                                                           for v in (b.confidence, b.accuracy)))]  # fmt: skip
        diagram.add_row(f"{100 * before.low:.0f}–{100 * (before.low + 1 / len(found.diagram[0])):.0f}", *cells)
    errors = "; ".join(f"{name} {100 * one:.2f} → {100 * other:.2f} %" for name, (one, other) in (
        ("expected calibration error", found.error), ("mean over classes", found.class_error)))  # fmt: skip
    risks = "  ".join(f"{100 * t.risk:g} %: {100 * t.coverage:.1f} %" for t in found.thresholds)
    _print_wide(diagram, [
        f"temperature {found.temperature:.3f}, from {found.pixels} pixels of {found.images} images; {errors}",
        f"labels that may be kept for a share of wrong ones of … (--reject): {risks}",
    ])  # fmt: skip


def print_comparison(comparison: Comparison, first: str, second: str) -> None:
    """The score of both, their difference with its interval, and the images that moved most; in shares."""
    table = Table("", comparison.headline, "95 % interval")
    rows = (("A", comparison.a), ("B", comparison.b), ("B - A", comparison.difference))
    for name, interval in rows:
        sign = "+" if name == "B - A" else ""
        table.add_row(name, f"{interval.value:{sign}.4f}", _bounds(interval, sign=sign))
    console = Console()
    console.print(f"A: {first}\nB: {second}", highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    console.print(
        "so few labelled images cannot tell them apart; score both on more" if math.isnan(comparison.detectable) else
        f"B is better in {100 * comparison.b_better:.1f} % of the resamples of the images; differences below "
        f"{comparison.detectable:.4f} are too small for so few", highlight=False,
    )  # fmt: skip
    if not comparison.moved:
        return
    moved = Table("moved most", "A", "B", "B - A")
    for name, a, b in comparison.moved[:_MOVED]:
        moved.add_row(escape(name), f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}")
    console.print(moved)


def _number(value: float, percent: bool) -> str:
    if math.isnan(value):
        return "–"
    return f"{100 * value:.2f}" if percent else f"{value:.4f}"


def _bounds(interval: Interval, sign: str = "") -> str:
    if math.isnan(interval.low):
        return "–"
    return " to ".join(f"{bound:{sign}.4f}" for bound in (interval.low, interval.high))
