"""A run's report: one HTML file that explains a training run to a person, on any screen, without a network.

In: the rows of metrics.jsonl, the last validation's scores, its best and worst images, the configuration. Out: HTML.
The words and tags are in templates/, which escape what they are given; here are the numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from panfpn.files import write_text
from panfpn.labels import LabelTable
from panfpn.metrics import Scores
from panfpn.report.classes import DASH, MANY, MOST_CELLS, bars, confusion, legend, percent, rows
from panfpn.report.curves import Chart, Curve, Point, chart, smooth, thin
from panfpn.report.pictures import pictures
from panfpn.types import Example

Rows = Sequence[Mapping[str, Any]]
_STYLES = ("c", "d", "e", "f", "g", "h")  # CSS classes of the loss's terms and of the further scores
# The page may load nothing and run nothing: a guard behind the escaping of names that come from other people's files.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class _Card:
    """One key figure."""

    name: str
    value: str
    unit: str = ""
    more: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """One example on the page."""

    id: str
    name: str
    score: str
    wrong: str
    pictures: dict[str, str]


def write_report(
    path: Path,
    *,
    title: str,
    config: str,
    history: Rows,
    scores: Scores,
    table: LabelTable,
    examples: Sequence[Example],
    lineage: Mapping[str, str] = {},
) -> None:
    """Write the report of a run to `path`, whole or not at all.

    `history` holds the rows of metrics.jsonl; any of them, and any of their keys, may be missing. `examples` holds the
    worst and the best images of the last validation in any order. `config` is the run's YAML. `lineage` says what the
    run started from (`starts_from`, `starts_from_license`).
    """
    train = [row for row in history if row.get("kind") == "train"]
    val = [row for row in history if row.get("kind") == "val"]
    last = max(_finite(history, "step"), default=math.nan)
    named = legend(table)
    classes = scores.class_table()
    layers = [scores.layers(example, table) for example in examples[:1]]
    page = environment().get_template("run.html.j2").render(
        policy=POLICY, title=title, config=config, lineage=lineage, table=table,
        steps=f"{last:,.0f}" if math.isfinite(last) else "",
        scores=scores, scored=math.isfinite(scores.value), cards=_cards(train, val, history, scores),
        loss=_loss_chart(train, last), bad=_not_finite(train), validation=_score_chart(val, last, scores),
        classes=classes, absent=int(classes.absent.sum()), bars=bars(classes, named), rows=rows(classes, named),
        confusion=confusion(scores.confusion, named) if scores.confusion else None,
        many=table.num_classes > MANY, tall=table.num_classes > MOST_CELLS, legend=named,
        groups=_images(examples, scores, table), errors=layers[0].legend if layers else "",
    )  # fmt: skip
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))  # file names may hold bytes that are no UTF-8


def environment() -> Environment:
    """What renders the templates of this package; it escapes all that they are given."""
    return Environment(
        loader=PackageLoader("panfpn.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def _value(row: Mapping[str, Any], key: str) -> float:
    """The number under `key`; nan where there is none (a killed run's rows can lack anything)."""
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else math.nan


def _points(rows: Rows, key: str, factor: float = 1.0) -> list[Point]:
    pairs = [(_value(row, "step"), factor * _value(row, key)) for row in rows]
    return sorted((p for p in pairs if math.isfinite(p[0])), key=lambda p: p[0])


def _finite(rows: Rows, key: str) -> list[float]:
    return [value for row in rows if math.isfinite(value := _value(row, key))]


def _cards(train: Rows, val: Rows, history: Rows, scores: Scores) -> list[_Card]:
    """The key figures: scores of the last validation, then what the run cost."""
    cards = [_Card(n, percent(value), "%" if math.isfinite(value) else "") for n, value in scores.figures().items()]
    values = [point for point in _points(val, scores.curves[0][1]) if math.isfinite(point[1])]
    if values:
        step, value = max(values, key=lambda point: point[1])
        cards.append(_Card("best step", f"{step:,.0f}", more=f"{scores.headline} {percent(value)} %"))
    else:
        cards.append(_Card("best step", DASH))
    cards.append(_duration(max(_finite(history, "minutes"), default=math.nan)))
    speed, memory = _finite(train, "images_per_s"), _finite(train, "memory_gb")
    # The median: the first rows hold warm-up and compilation.
    cards.append(_Card("speed", _short(float(np.median(speed))), more="images/s, median") if speed
                 else _Card("speed", DASH))  # fmt: skip
    cards.append(_Card("peak memory", f"{max(memory):.1f}", "GB") if memory else _Card("peak memory", DASH))
    return cards


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _duration(minutes: float) -> _Card:
    if not math.isfinite(minutes):
        return _Card("time", DASH)
    return _Card("time", f"{minutes / 60:.1f}", "h") if minutes >= 120 else _Card("time", f"{minutes:.1f}", "min")


def _loss_chart(train: Rows, last: float) -> Chart | None:
    loss = thin(_points(train, "loss"))
    terms = sorted({key for row in train for key in row if str(key).startswith("loss/")})
    curves = [Curve(name="", points=loss, style="a faint"), Curve(name="loss", points=smooth(loss), style="a")]
    for k, key in enumerate(terms):
        points = smooth(thin(_points(train, key)))
        curves.append(Curve(name=key.removeprefix("loss/"), points=points, style=_STYLES[k % len(_STYLES)]))
    rate = thin(_points(train, "lr"))
    curves.append(Curve(name="learning rate (right)", points=rate, style="lr", right=True))
    return chart(curves, last, label="training loss and learning rate by step", log=True)


def _not_finite(train: Rows) -> dict[str, Any] | None:
    """How many logged losses are no numbers, and the first step of such a one."""
    loss = _points(train, "loss")
    bad = [step for step, value in loss if not math.isfinite(value)]
    return {"count": len(bad), "all": len(loss), "first": f"{bad[0]:,.0f}"} if bad else None


def _score_chart(val: Rows, last: float, scores: Scores) -> Chart | None:
    curves = [
        Curve(name=name, points=_points(val, key, 100), style=style, dots=True)
        for (name, key), style in zip(scores.curves, ("a", *_STYLES), strict=False)
    ]
    label = f"{', '.join(name for name, _ in scores.curves)} on the validation set by step"
    return chart(curves, last, label=label, unit=" %")


def _images(examples: Sequence[Example], scores: Scores, table: LabelTable) -> dict[str, list[_Image]]:
    """The worst images, worst first, and the best, best first."""
    # nan (nothing labelled) sorts first: it cannot be called good
    ranked = sorted(examples, key=lambda e: e.score if math.isfinite(e.score) else -1.0)
    half = (len(ranked) + 1) // 2
    images = []
    for number, example in enumerate(ranked[:half] + ranked[half:][::-1]):
        layers = scores.layers(example, table)
        images.append(_Image(
            id=f"image-{number}", name=example.name, score=percent(example.score), wrong=percent(layers.wrong_share),
            pictures=pictures(example.image, layers, len(ranked)),
        ))  # fmt: skip
    groups = {"Worst images": images[:half], "Best images": images[half:]}
    return {heading: group for heading, group in groups.items() if group}
