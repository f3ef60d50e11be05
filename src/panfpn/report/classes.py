"""What a report says of each class. In: scores and label table. Out: bars, rows of scores, confusions as plain text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from panfpn.labels import LabelTable
from panfpn.metrics import SemanticScores
from panfpn.metrics.counts import share
from panfpn.metrics.scores import ClassTable

MANY = 24  # classes above which bars are thin and in columns
MOST_CELLS = 40  # classes up to which the whole confusion matrix is drawn
DASH = "\u2013"  # where a number would stand
_CONFUSED = 25  # classes that are drawn of a larger one
_PAIRS = 15


@dataclass(frozen=True, slots=True)
class Named:
    """A class by its name and CSS colour."""

    name: str
    color: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One class's share, in %; None: absent."""

    of: Named
    width: str
    text: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """One class's scores."""

    of: Named
    absent: bool
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a confusion matrix; an empty one has no hint."""

    text: str = ""
    style: str = ""  # CSS classes
    strength: str = "0"  # of the colour, 0..1
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """One class that is taken for another."""

    true: Named
    predicted: Named
    of_errors: str
    of_class: str


@dataclass(frozen=True, slots=True)
class Confusion:
    """A confusion matrix, of the classes with the most wrong pixels where there are too many to draw."""

    names: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    pairs: tuple[Pair, ...]
    drawn: int
    num_classes: int


def percent(value: float, digits: int = 1) -> str:
    """A share from 0 to 1 in percent, without the sign; a dash where there is none."""
    return f"{100 * value:.{digits}f}" if math.isfinite(value) else DASH


def legend(table: LabelTable) -> tuple[Named, ...]:
    """Every class with its colour."""
    colors = ("#{:02x}{:02x}{:02x}".format(*color) for color in table.palette.tolist())
    return tuple(Named(name, color) for name, color in zip(table.names, colors, strict=True))


def bars(classes: ClassTable, named: Sequence[Named]) -> tuple[Bar, ...]:
    """The score that ranks the classes, best first; classes without one come last."""
    values = np.asarray(classes.score.values, np.float64)
    return tuple(
        Bar(named[k], percent(values[k], 2), percent(values[k]) if math.isfinite(values[k]) else None)
        for k in np.argsort(-np.nan_to_num(values, nan=-1), kind="stable")
    )


def rows(classes: ClassTable, named: Sequence[Named]) -> tuple[Row, ...]:
    """All scores, in %, in the order of train ids."""
    return tuple(
        Row(named[k], bool(absent), tuple(
            "absent" if absent and column is classes.score else _cell(column.values[k], bool(absent))
            for column in classes.columns
        ))
        for k, absent in enumerate(classes.absent)
    )  # fmt: skip


def _cell(value: object, absent: bool) -> str:
    if isinstance(value, np.integer):
        return f"{value:,}"
    if not isinstance(value, np.floating):
        return str(value)
    number = float(value)
    if absent and math.isnan(number):
        return ""
    return percent(number, 1 if number >= 0.01 or not number else 2)


def confusion(scores: SemanticScores, named: Sequence[Named]) -> Confusion | None:
    """What is taken for what, as a matrix and as a list; None if nothing was counted."""
    if not scores.counts.any():
        return None
    counts = scores.counts[:-1]  # [K, K + 1]
    shares = share(counts, counts.sum(1, keepdims=True))[:, :-1]  # [K, K], nan in rows of classes that never are true
    wrong = counts[:, :-1] - np.diag(np.diag(counts))
    chosen = np.arange(len(counts))
    if len(counts) > MOST_CELLS:
        chosen = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:_CONFUSED])
    names = tuple(named[k].name for k in chosen.tolist())
    return Confusion(
        names=names, rows=_cells(names, shares[np.ix_(chosen, chosen)]), pairs=_pairs(wrong, shares, named),
        drawn=len(chosen), num_classes=len(counts),
    )  # fmt: skip


def _cells(names: Sequence[str], shares: npt.NDArray[np.float64]) -> tuple[tuple[Cell, ...], ...]:
    """Shares [n, n] (rows: truth) shaded by size, hits and errors in two colours; nan stays blank."""
    matrix = []
    for i, row in enumerate(shares):
        cells = []
        for j, value in enumerate(row):
            if not value >= 0.0005:  # nan too
                cells.append(Cell())
                continue
            # The root lifts errors of a few percent, which is where a confusion matrix is read, above the background.
            strength = max(0.08, math.sqrt(value))
            style = ("hit" if i == j else "miss") + (" strong" if strength > 0.7 else "")
            hint = f"{names[i]} → {names[j]}: {percent(value, 2)} %"
            cells.append(Cell(f"{100 * value:.0f}" if value >= 0.005 else "", style, f"{strength:.2f}", hint))
        matrix.append(tuple(cells))
    return tuple(matrix)


def _pairs(wrong: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], named: Sequence[Named]) -> tuple[Pair, ...]:
    """The pairs with the most wrong pixels."""
    pairs, total = [], wrong.sum()
    for flat in np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]:
        true, predicted = divmod(int(flat), len(wrong))
        if not wrong[true, predicted]:
            break
        of_errors, of_class = percent(wrong[true, predicted] / total), percent(shares[true, predicted])
        pairs.append(Pair(named[true], named[predicted], of_errors, of_class))
    return tuple(pairs)
