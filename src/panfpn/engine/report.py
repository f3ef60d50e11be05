"""A run's report: one HTML file that explains a training run to a person, on any screen, without a network.

In: the rows of metrics.jsonl, the last validation's scores, its best and worst images, the configuration. Out: HTML.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.engine.figures import (
    DASH,
    MANY,
    Line,
    Point,
    bars,
    heat_map,
    legend,
    line_chart,
    panels,
    percent,
    smooth,
    swatch,
    text,
    thin,
)
from panfpn.engine.report_style import STYLE
from panfpn.files import write_text
from panfpn.labels import LabelTable
from panfpn.metrics import SemanticScores

_MOST_CELLS = 40  # classes up to which the whole confusion matrix is drawn
_CONFUSED = 25  # classes that are drawn of a larger one
_PAIRS = 15
_TERMS = ("c", "d", "e", "f")  # styles of the loss's terms
_NO_STEPS = "<p class=note>No training steps logged yet.</p>"
_NONE_YET = "<p class=note>No validation yet.</p>"
# The page may load nothing and run nothing: a guard behind the escaping of names that come from other people's files.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Shown:
    """One validation image with what was predicted."""

    name: str
    image: npt.NDArray[np.uint8]  # [H, W, 3] RGB
    labels: npt.NDArray[np.integer]  # [H, W] predicted train ids
    target: npt.NDArray[np.int16]  # [H, W] train ids, IGNORE
    miou: float


def write_report(
    path: Path,
    *,
    title: str,
    config: str,
    history: Sequence[Mapping[str, Any]],
    scores: SemanticScores,
    table: LabelTable,
    shown: Sequence[Shown],
) -> None:
    """Write the report of a run to `path`, whole or not at all.

    `history` holds the rows of metrics.jsonl; any of them, and any of their keys, may be missing. `shown` holds the
    worst and the best images of the last validation in any order. `config` is the run's YAML.
    """
    train = [row for row in history if row.get("kind") == "train"]
    val = [row for row in history if row.get("kind") == "val"]
    last = max(_finite(history, "step"), default=math.nan)
    sections = {
        "Curves": _beside(_loss_curve(train, last), _miou_curve(val, last)),
        "Classes": _classes(scores, table),
        "Confusion": _confusion(scores, table),
        "Images": _images(shown, table),
        "Configuration": f"<details><summary>YAML of this run</summary><pre>{text(config)}</pre></details>",
    }
    body = "".join(f'<section id="{name.lower()}"><h2>{name}</h2>{part}</section>' for name, part in sections.items())
    links = "".join(f'<a href="#{name.lower()}">{name}</a>' for name in sections)
    steps = f" · {last:,.0f} steps" if math.isfinite(last) else ""
    about = f"panfpn training report · {text(table.name)}, {table.num_classes} classes{steps}"
    page = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">',
        f"<title>{text(title)} · panfpn</title><style>{STYLE}</style></head><body>",
        f"<header><h1>{text(title)}</h1><p>{about}</p><nav>{links}</nav></header>",
        f"<main>{_key_figures(train, val, history, scores)}{body}</main></body></html>\n",
    ]
    write_text(path, "\n".join(page))


def _beside(*parts: str) -> str:
    """Parts next to each other where the screen is wide enough, else one below the other."""
    return f'<div class="beside">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def _value(row: Mapping[str, Any], key: str) -> float:
    """The number under `key`; nan where there is none (a killed run's rows can lack anything)."""
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else math.nan


def _points(rows: Sequence[Mapping[str, Any]], key: str, factor: float = 1.0) -> list[Point]:
    pairs = [(_value(row, "step"), factor * _value(row, key)) for row in rows]
    return sorted((p for p in pairs if math.isfinite(p[0])), key=lambda p: p[0])


def _finite(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [value for row in rows if math.isfinite(value := _value(row, key))]


def _key_figures(
    train: Sequence[Mapping[str, Any]], val: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]],
    scores: SemanticScores,
) -> str:  # fmt: skip
    best = max((p for p in _points(val, "miou") if math.isfinite(p[1])), key=lambda p: p[1], default=None)
    speed, memory, minutes = _finite(train, "images_per_s"), _finite(train, "memory_gb"), _finite(history, "minutes")
    shares = [("mIoU", scores.miou), ("mAcc", scores.macc), ("aAcc", scores.aacc), ("fwIoU", scores.fwiou),
              ("mean F", scores.mfscore)]  # fmt: skip
    cards = [(name, percent(value), "%" if math.isfinite(value) else "", "") for name, value in shares]
    cards.append(("best step", f"{best[0]:,.0f}" if best else DASH, "", f"mIoU {percent(best[1])} %" if best else ""))
    cards.append(("time", *_duration(max(minutes, default=math.nan)), ""))
    # The median: the first rows hold warm-up and compilation.
    cards.append(("speed", _short(float(np.median(speed))) if speed else DASH, "", "images/s, median" if speed else ""))
    cards.append(("peak memory", f"{max(memory):.1f}" if memory else DASH, "GB" if memory else "", ""))
    items = [f"<div><dt>{n}</dt><dd>{v}<small> {unit}</small></dd><p>{more}</p></div>" for n, v, unit, more in cards]
    note = "<p class=note>Scores of the last validation.</p>" if scores.counts.any() else _NONE_YET
    return f'<dl class="cards">{"".join(items)}</dl>{note}'


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _duration(minutes: float) -> tuple[str, str]:
    if not math.isfinite(minutes):
        return DASH, ""
    return (f"{minutes / 60:.1f}", "h") if minutes >= 120 else (f"{minutes:.1f}", "min")


def _loss_curve(train: Sequence[Mapping[str, Any]], last: float) -> str:
    loss = _points(train, "loss")
    terms = sorted({key for row in train for key in row if str(key).startswith("loss/")})
    lines = [Line(name="", points=thin(loss), style="a faint"), Line(name="loss", points=smooth(thin(loss)), style="a")]
    for k, key in enumerate(terms):
        style = _TERMS[k % len(_TERMS)]
        lines.append(Line(name=str(key).removeprefix("loss/"), points=smooth(thin(_points(train, key))), style=style))
    lines.append(Line(name="learning rate (right)", points=thin(_points(train, "lr")), style="lr", right=True))
    chart = line_chart(lines, last, label="training loss and learning rate by step", log=True)
    bad = [step for step, value in loss if not math.isfinite(value)]
    warning = ""
    if bad:
        verb = "is" if len(bad) == 1 else "are"
        first = f"{len(bad)} of {len(loss)} logged losses {verb} not finite, first at step {bad[0]:,.0f}."
        warning = f'<p class="warning">{first}</p>'
    return f"<h3>Training loss</h3>{chart or _NO_STEPS}{warning}"


def _miou_curve(val: Sequence[Mapping[str, Any]], last: float) -> str:
    lines = [
        Line(name="mIoU", points=_points(val, "miou", 100), style="a", dots=True),
        Line(name="mAcc", points=_points(val, "macc", 100), style="c", dots=True),
    ]
    chart = line_chart(lines, last, label="mIoU and mean accuracy on the validation set by step", unit=" %")
    return f"<h3>Validation</h3>{chart or _NONE_YET}"


def _classes(scores: SemanticScores, table: LabelTable) -> str:
    if not scores.counts.any():
        return _NONE_YET
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
    heads = "".join(f'<th scope="col">{n}</th>' for n in ("class", "IoU", "accuracy", "precision", "F", "pixels"))
    absent = int(np.isnan(scores.iou).sum())
    note = "Pixels: share of the labelled pixels that truly are of the class."
    note += f" Absent ({absent}): neither in the truth nor predicted; left out of the means." if absent else ""
    fold = " tall" if table.num_classes > _MOST_CELLS else ""
    body = f'<table class="scores"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    chart = f"<h3>IoU, %</h3>{bars(table.names, scores.iou, table.palette)}"
    details = f'<h3>All scores, %</h3><div class="wide{fold}">{body}</div><p class=note>{note}</p>'
    return _beside(chart, details) if table.num_classes <= MANY else chart + details


def _confusion(scores: SemanticScores, table: LabelTable) -> str:
    if not scores.counts.any():
        return _NONE_YET
    counts = scores.counts[:-1]  # [K, K + 1]
    with np.errstate(invalid="ignore"):
        shares = (counts / counts.sum(1, keepdims=True))[
            :, :-1
        ]  # [K, K], nan in the rows of classes that never are true
    wrong = counts[:, :-1] - np.diag(np.diag(counts))
    chosen = np.arange(len(counts))
    note = "What the pixels of each true class (row) were predicted as, in % of the row; below 0.5 % without a number."
    if len(counts) > _MOST_CELLS:
        chosen = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:_CONFUSED])
        note += (
            f" The {_CONFUSED} of {len(counts)} classes with the most wrong pixels; shares are of all {len(counts)}."
        )
    names = [table.names[k] for k in chosen]
    matrix = heat_map(names, shares[np.ix_(chosen, chosen)], lambda v: f"{100 * v:.0f}" if v >= 0.005 else "")
    pairs = f"<h3>Most frequent confusions</h3>{_pairs(wrong, shares, table)}"
    return f"<p class=note>{note}</p>{_beside(matrix, pairs)}"


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


def _images(shown: Sequence[Shown], table: LabelTable) -> str:
    if not shown:
        return "<p class=note>No validation images yet.</p>"
    # nan (nothing labelled) sorts first: it cannot be called good
    ranked = sorted(shown, key=lambda s: s.miou if math.isfinite(s.miou) else -1.0)
    half = (len(ranked) + 1) // 2
    groups = {"Worst images": ranked[:half], "Best images": ranked[half:][::-1]}
    parts, number = [], 0
    for heading, group in groups.items():
        parts += [f"<h3>{heading}</h3>"] if group else []
        for entry in group:
            parts.append(_row(entry, table, number, len(shown)))
            number += 1
    fold = f"<details{'' if table.num_classes > _MOST_CELLS else ' open'}><summary>Colours of the classes</summary>"
    note = "<p class=note>Errors: wrong pixels red, unlabelled pixels dark. Click a picture to enlarge it.</p>"
    return f"{note}{fold}{legend(table.names, table.palette)}</details>{''.join(parts)}"


def _row(entry: Shown, table: LabelTable, number: int, total: int) -> str:
    labelled = entry.target >= 0
    wrong = float((entry.labels != entry.target)[labelled].mean()) if labelled.any() else math.nan
    place, figures = f"image-{number}", []
    for kind, uri in panels(entry.image, entry.labels, entry.target, table.palette, total):
        # A picture grows when its figure is the page's #target: enlarging needs no script and no second copy.
        opening = f'<a href="#{place}-{kind}"><img src="{uri}" alt="{kind} of {text(entry.name)}"></a>'
        closing = f'<a class="close" href="#{place}" aria-label="close"></a>'
        figures.append(f'<figure id="{place}-{kind}">{opening}<figcaption>{kind}</figcaption>{closing}</figure>')
    score = f"mIoU {percent(entry.miou)} %, {percent(wrong)} % of labelled pixels wrong"
    heading = f"<h4>{text(entry.name)} <small>{score}</small></h4>"
    return f'<article id="{place}">{heading}<div class="panels">{"".join(figures)}</div></article>'
