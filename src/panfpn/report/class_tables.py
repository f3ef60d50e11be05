"""The scores of each class in a run's report. In: scores and label table. Out: HTML fragments."""

import math

import numpy as np
import numpy.typing as npt

from panfpn.labels import LabelTable
from panfpn.metrics import PanopticScores, Scores, SemanticScores
from panfpn.metrics.counts import Floats
from panfpn.report.figures import MANY, bars, beside, heat_map, percent, swatch, text

MOST_CELLS = 40  # classes up to which the whole confusion matrix is drawn
NONE_YET = "<p class=note>No validation yet.</p>"
_CONFUSED = 25  # classes that are drawn of a larger one
_PAIRS = 15


def main_figures(scores: Scores) -> list[tuple[str, float]]:
    """The scores that a reader looks for first, as shares."""
    if isinstance(scores, SemanticScores):
        return [("mIoU", scores.miou), ("mAcc", scores.macc), ("aAcc", scores.aacc), ("fwIoU", scores.fwiou),
                ("mean F", scores.mfscore)]  # fmt: skip
    whole, things, stuff = scores.mean(), scores.mean("things"), scores.mean("stuff")
    return [("PQ", whole.pq), ("PQ things", things.pq), ("PQ stuff", stuff.pq), ("SQ", whole.sq), ("RQ", whole.rq),
            *scores.others.items()]  # fmt: skip


def class_scores(scores: Scores, table: LabelTable) -> str:
    """A bar and a row of scores for each class."""
    if math.isnan(scores.value):
        return NONE_YET
    return _semantic(scores, table) if isinstance(scores, SemanticScores) else _panoptic(scores, table)


def _semantic(scores: SemanticScores, table: LabelTable) -> str:
    pixels = scores.pixels
    share = pixels / max(1, pixels.sum())
    rows = []
    columns = zip(
        table.names, table.palette, scores.iou, scores.accuracy, scores.precision, scores.fscore, share, strict=True
    )
    for name, color, iou, *others, part in columns:
        head = f'<th scope="row">{swatch(color)}{text(name)}</th>'
        if not math.isfinite(iou):  # neither in the truth nor predicted: no score, and not a score of 0
            rows.append(f'<tr class="absent">{head}<td>absent</td><td></td><td></td><td></td><td>0</td></tr>')
            continue
        cells = "".join(f"<td>{percent(value)}</td>" for value in (iou, *others))
        rows.append(f"<tr>{head}{cells}<td>{percent(part, 1 if part >= 0.01 else 2)}</td></tr>")
    absent = int(np.isnan(scores.iou).sum())
    note = "Pixels: share of the labelled pixels that truly are of the class."
    note += f" Absent ({absent}): neither in the truth nor predicted; left out of the means." if absent else ""
    return _laid_out(table, "IoU", scores.iou, ("IoU", "accuracy", "precision", "F", "pixels"), rows, note)


def _panoptic(scores: PanopticScores, table: LabelTable) -> str:
    iou = scores.merged.iou if scores.merged else np.full(len(scores.names), np.nan)
    counts = scores.true_positives, scores.false_positives, scores.false_negatives
    rows = []
    for k, name in enumerate(table.names):
        head = f'<th scope="row">{swatch(table.palette[k])}{text(name)}</th>'
        kind = "thing" if scores.things[k] else "stuff"
        if math.isnan(scores.pq[k]):
            rows.append(f'<tr class="absent">{head}<td>{kind}</td><td>absent</td>{"<td></td>" * 6}</tr>')
            continue
        cells = [kind, *(percent(values[k]) for values in (scores.pq, scores.sq, scores.rq, iou))]
        cells += [f"{values[k]:,}" for values in counts]
        rows.append(f"<tr>{head}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    absent = int(np.isnan(scores.pq).sum())
    note = "IoU: of the classes in the merged map. Matched, wrong and missed: segments (TP, FP, FN)."
    note += f" Absent ({absent}): no segment counts; left out of the means." if absent else ""
    heads = ("", "PQ", "SQ", "RQ", "IoU", "matched", "wrong", "missed")
    return _laid_out(table, "PQ", scores.pq, heads, rows, note)


def _laid_out(table: LabelTable, name: str, values: Floats, heads: tuple[str, ...], rows: list[str], note: str) -> str:
    """Bars of one score beside the rows of all."""
    fold = " tall" if table.num_classes > MOST_CELLS else ""
    cells = "".join(f'<th scope="col">{head}</th>' for head in ("class", *heads))
    body = f'<table class="scores"><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    chart = f"<h3>{name}, %</h3>{bars(table.names, values, table.palette)}"
    details = f'<h3>All scores, %</h3><div class="wide{fold}">{body}</div><p class=note>{note}</p>'
    return beside(chart, details) if table.num_classes <= MANY else chart + details


def confusion(scores: SemanticScores, table: LabelTable) -> str:
    """What is taken for what, as a matrix and as a list."""
    if not scores.counts.any():
        return NONE_YET
    counts = scores.counts[:-1]  # [K, K + 1]
    with np.errstate(invalid="ignore"):
        shares = (counts / counts.sum(1, keepdims=True))[:, :-1]  # [K, K], nan in rows of classes that never are true
    wrong = counts[:, :-1] - np.diag(np.diag(counts))
    chosen = np.arange(len(counts))
    note = "What the pixels of each true class (row) were predicted as, in % of the row; below 0.5 % without a number."
    if len(counts) > MOST_CELLS:
        chosen = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:_CONFUSED])
        note += (
            f" The {_CONFUSED} of {len(counts)} classes with the most wrong pixels; shares are of all {len(counts)}."
        )
    names = [table.names[k] for k in chosen]
    matrix = heat_map(names, shares[np.ix_(chosen, chosen)], lambda v: f"{100 * v:.0f}" if v >= 0.005 else "")
    pairs = f"<h3>Most frequent confusions</h3>{_pairs(wrong, shares, table)}"
    return f"<p class=note>{note}</p>{beside(matrix, pairs)}"


def _pairs(wrong: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], table: LabelTable) -> str:
    rows, total = [], wrong.sum()
    for place in np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]:
        true, found = divmod(int(place), len(wrong))
        if not wrong[true, found]:
            break
        names = "".join(f"<td>{swatch(table.palette[k])}{text(table.names[k])}</td>" for k in (true, found))
        of_errors, of_class = percent(wrong[true, found] / total), percent(shares[true, found])
        rows.append(f"<tr>{names}<td>{of_errors}</td><td>{of_class}</td></tr>")
    if not rows:
        return "<p class=note>No wrong pixel.</p>"
    heads = "".join(f'<th scope="col">{n}</th>' for n in ("truth", "predicted as", "% of errors", "% of class"))
    body = f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="wide"><table class="scores pairs">{body}</table></div>'
