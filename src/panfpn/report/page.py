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

from panfpn.files import write_text
from panfpn.labels import LabelTable
from panfpn.metrics import PanopticScores, Scores
from panfpn.report.class_tables import MOST_CELLS, NONE_YET, class_scores, confusion, main_figures
from panfpn.report.figures import DASH, Line, Point, beside, legend, line_chart, panels, percent, smooth, text, thin
from panfpn.report.style import STYLE
from panfpn.types import Segments

_TERMS = ("c", "d", "e", "f", "g", "h")  # styles of the loss's terms
_NO_STEPS = "<p class=note>No training steps logged yet.</p>"
_CURVES = {  # what is drawn of the validations, by the headline: name, key in metrics.jsonl, style
    "mIoU": (("mIoU", "miou", "a"), ("mAcc", "macc", "c")),
    "PQ": (("PQ", "pq", "a"), ("things", "pq_things", "c"), ("stuff", "pq_stuff", "d"), ("mIoU", "miou", "e")),
}
_ERRORS = {
    "mIoU": "wrong pixels red, unlabelled pixels dark",
    "PQ": "pixels of the wrong class red, those of segments that match none of the truth orange, void and crowds dark",
}
# The page may load nothing and run nothing: a guard behind the escaping of names that come from other people's files.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Shown:
    """One validation image with what was predicted: train ids [H, W] (IGNORE: not labelled), or segments."""

    name: str
    image: npt.NDArray[np.uint8]  # [H, W, 3] RGB
    found: npt.NDArray[np.integer] | Segments
    truth: npt.NDArray[np.int16] | Segments
    score: float  # its own mIoU or PQ


def write_report(
    path: Path,
    *,
    title: str,
    config: str,
    history: Sequence[Mapping[str, Any]],
    scores: Scores,
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
    classes = scores.merged if isinstance(scores, PanopticScores) else scores
    sections = {
        "Curves": beside(_loss_curve(train, last), _score_curve(val, last, scores.headline)),
        "Classes": class_scores(scores, table),
        **({"Confusion": confusion(classes, table)} if classes else {}),
        "Images": _images(shown, table, scores.headline),
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
    scores: Scores,
) -> str:  # fmt: skip
    best = max(
        (p for p in _points(val, scores.headline.lower()) if math.isfinite(p[1])), key=lambda p: p[1], default=None
    )
    speed, memory, minutes = _finite(train, "images_per_s"), _finite(train, "memory_gb"), _finite(history, "minutes")
    cards = [(name, percent(value), "%" if math.isfinite(value) else "", "") for name, value in main_figures(scores)]
    cards.append(
        (
            "best step",
            f"{best[0]:,.0f}" if best else DASH,
            "",
            f"{scores.headline} {percent(best[1])} %" if best else "",
        )
    )
    cards.append(("time", *_duration(max(minutes, default=math.nan)), ""))
    # The median: the first rows hold warm-up and compilation.
    cards.append(("speed", _short(float(np.median(speed))) if speed else DASH, "", "images/s, median" if speed else ""))
    cards.append(("peak memory", f"{max(memory):.1f}" if memory else DASH, "GB" if memory else "", ""))
    items = [f"<div><dt>{n}</dt><dd>{v}<small> {unit}</small></dd><p>{more}</p></div>" for n, v, unit, more in cards]
    note = "<p class=note>Scores of the last validation.</p>" if math.isfinite(scores.value) else NONE_YET
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


def _score_curve(val: Sequence[Mapping[str, Any]], last: float, headline: str) -> str:
    curves = _CURVES[headline]
    lines = [Line(name=name, points=_points(val, key, 100), style=style, dots=True) for name, key, style in curves]
    label = f"{', '.join(name for name, *_ in curves)} on the validation set by step"
    return f"<h3>Validation</h3>{line_chart(lines, last, label=label, unit=' %') or NONE_YET}"


def _images(shown: Sequence[Shown], table: LabelTable, headline: str) -> str:
    if not shown:
        return "<p class=note>No validation images yet.</p>"
    # nan (nothing labelled) sorts first: it cannot be called good
    ranked = sorted(shown, key=lambda s: s.score if math.isfinite(s.score) else -1.0)
    half = (len(ranked) + 1) // 2
    groups = {"Worst images": ranked[:half], "Best images": ranked[half:][::-1]}
    parts, number = [], 0
    for heading, group in groups.items():
        parts += [f"<h3>{heading}</h3>"] if group else []
        for entry in group:
            parts.append(_row(entry, table, headline, (number, len(shown))))
            number += 1
    fold = f"<details{'' if table.num_classes > MOST_CELLS else ' open'}><summary>Colours of the classes</summary>"
    note = f"<p class=note>Errors: {_ERRORS[headline]}. Click a picture to enlarge it.</p>"
    return f"{note}{fold}{legend(table.names, table.palette)}</details>{''.join(parts)}"


def _row(entry: Shown, table: LabelTable, headline: str, place: tuple[int, int]) -> str:
    """One image's panels; `place` is its number and how many there are."""
    found, truth = (m.labels if isinstance(m, Segments) else m for m in (entry.found, entry.truth))
    labelled = truth >= 0
    wrong = float((found != truth)[labelled].mean()) if labelled.any() else math.nan
    name, figures = f"image-{place[0]}", []
    for kind, uri in panels(entry.image, entry.found, entry.truth, table, place[1]):
        # A picture grows when its figure is the page's #target: enlarging needs no script and no second copy.
        opening = f'<a href="#{name}-{kind}"><img src="{uri}" alt="{kind} of {text(entry.name)}"></a>'
        closing = f'<a class="close" href="#{name}" aria-label="close"></a>'
        figures.append(f'<figure id="{name}-{kind}">{opening}<figcaption>{kind}</figcaption>{closing}</figure>')
    score = f"{headline} {percent(entry.score)} %, {percent(wrong)} % of labelled pixels wrong"
    heading = f"<h4>{text(entry.name)} <small>{score}</small></h4>"
    return f'<article id="{name}">{heading}<div class="panels">{"".join(figures)}</div></article>'
