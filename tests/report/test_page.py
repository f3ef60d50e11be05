"""The report: whole, self-contained, safe against names from other people's files, and there when little is known."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panfpn.labels import IGNORE, LabelClass, LabelTable
from panfpn.metrics import ConfusionMatrix, PanopticQuality, SemanticScores
from panfpn.report.page import write_report
from panfpn.types import Example, Segments

EVIL = "<script>alert(\"1\")</script> & 'x'"
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.ids: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.said)

    def attributes(self, *names: str) -> list[str]:
        return [value or "" for _, attrs in self.tags for key, value in attrs.items() if key in names]


def make_table(num_classes: int, first: str = "class 0") -> LabelTable:
    names = [first] + [f"class {k}" for k in range(1, num_classes)]
    classes = tuple(LabelClass(name=n, color=(k % 256, 37 * k % 256, 200), values=(k,)) for k, n in enumerate(names))
    return LabelTable(name="toy", classes=classes, ignore=(255,))


def make_history(steps: int = 20) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        row = {"kind": "train", "step": step, "loss": 3 / step, "loss/cross_entropy": 2 / step, "loss/dice": 1 / step}
        rows.append(row | {"lr": 0.01, "images_per_s": 12.0, "memory_gb": 3.25, "minutes": step / 2})
    miou = {10: 0.421, 15: 0.633, 20: 0.5}
    return rows + [{"kind": "val", "step": s, "miou": m, "macc": m + 0.1, "minutes": 9.0} for s, m in miou.items()]


def make_scores(table: LabelTable, absent: int | None = None) -> SemanticScores:
    counts = np.random.default_rng(0).integers(1, 50, (table.num_classes, table.num_classes))
    counts += 500 * np.eye(table.num_classes, dtype=np.int64)
    if absent is not None:
        counts[absent], counts[:, absent] = 0, 0
    return SemanticScores(table.names, np.pad(counts, (0, 1)))


def make_example(name: str, miou: float, size: tuple[int, int] = (37, 51), num_classes: int = 4) -> Example:
    rng = np.random.default_rng(len(name))
    target = rng.integers(IGNORE, num_classes, size).astype(np.int16)
    labels = rng.integers(0, num_classes, size).astype(np.uint8)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    return Example(name=name, image=image, prediction=labels, target=target, score=miou)


def render(folder: Path, **changed: Any) -> tuple[str, Page]:
    table = changed.pop("table", make_table(4))
    arguments: dict[str, Any] = {
        "title": "a run", "config": "optim:\n  lr: 0.01\n", "history": make_history(), "table": table,
        "scores": make_scores(table), "examples": [make_example(f"street {k}", k / 10) for k in (5, 1, 3, 8)],
    }  # fmt: skip
    write_report(folder / "report.html", **(arguments | changed))
    html = (folder / "report.html").read_text("utf-8")
    return html, Page(html)


def test_all_sections_are_there(tmp_path: Path) -> None:
    html, page = render(tmp_path)
    assert {"curves", "classes", "confusion", "images", "configuration"} <= set(page.ids)
    for word in ("Training loss", "Validation", "cross_entropy", "dice", "Most frequent confusions", "Worst images",
                 "Best images", "lr: 0.01", "truth", "prediction", "errors"):  # fmt: skip
        assert word in page.text, word
    assert html.count("<svg") == 2
    assert sum(tag == "img" for tag, _ in page.tags) == 4 * 4
    assert len(page.ids) == len(set(page.ids))
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_key_figures(tmp_path: Path) -> None:
    table = make_table(2)
    _, page = render(
        tmp_path,
        table=table,
        scores=SemanticScores(table.names, np.array([[60, 20, 0], [0, 20, 0], [0, 0, 0]])),
        examples=[],
    )
    cards = re.sub(r"\s+", " ", page.text.split("Scores of the last validation")[0])
    # IoU 60/80 and 20/40; accuracy 60/80 and 20/20; F 120/140 and 40/60
    for figure in ("mIoU 62.5", "mAcc 87.5", "aAcc 80.0", "fwIoU 70.0", "mean F 76.2", "best step 15", "63.3 %",
                   "time 10.0 min", "speed 12 images/s", "peak memory 3.2 GB"):  # fmt: skip
        assert figure in cards, figure


def test_page_is_self_contained(tmp_path: Path) -> None:
    html, page = render(tmp_path)
    for value in page.attributes("src", "href", "srcset", "data", "action"):
        assert value.startswith(("data:", "#")), value[:60]
    assert "url(" not in html and "@import" not in html
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed"}
    targets = {value[1:] for value in page.attributes("href") if value.startswith("#")}
    assert targets <= set(page.ids)


def test_names_are_escaped(tmp_path: Path) -> None:
    examples = [make_example(EVIL, 0.4), make_example("broken \udcff name", 0.5)]
    history = [row | {f"loss/{EVIL}": 1.0} for row in make_history()]
    table = make_table(4, first=EVIL)
    html, page = render(tmp_path, title=EVIL, config=EVIL, table=table, examples=examples, history=history)
    assert "<script" not in html
    # title, heading, curve, bar, table, matrix (row, column), confusions, legend, image, configuration
    assert page.text.count(EVIL) >= 10


def test_absent_class_is_absent_not_zero(tmp_path: Path) -> None:
    table = make_table(4)
    html, page = render(tmp_path, scores=make_scores(table, absent=2), examples=[])
    assert page.text.count("absent") == 2 and "Absent (1)" in page.text
    row = re.search(r'<tr class="absent">.*?class 2.*?</tr>', html)
    assert row and "0.0" not in row[0]
    assert render(tmp_path, examples=[])[1].text.count("absent") == 0


def test_predicted_but_never_true_class_scores_zero(tmp_path: Path) -> None:
    table = make_table(2)
    _, page = render(
        tmp_path,
        table=table,
        scores=SemanticScores(table.names, np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]])),
        examples=[],
    )
    assert "absent" not in page.text and "0.0" in page.text


def test_nothing_known_yet(tmp_path: Path) -> None:
    html, page = render(tmp_path, history=[], scores=ConfusionMatrix(4).scores(make_table(4).names), examples=[])
    assert "No training steps logged yet" in page.text and "No validation images yet" in page.text
    assert page.text.count("No validation yet") == 4
    assert "nan" not in page.text and "<svg" not in html


def test_perfect_prediction_has_no_confusion(tmp_path: Path) -> None:
    table = make_table(4)
    assert "No wrong pixel" in render(tmp_path, scores=SemanticScores(table.names, np.diag([9, 9, 9, 9, 0])))[1].text


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None, "oops", 1e300])
def test_bad_numbers_do_not_stop_the_page(tmp_path: Path, bad: Any) -> None:
    for key in ("step", "loss", "lr", "miou", "minutes", "memory_gb", "images_per_s", "loss/dice"):
        history = make_history()
        for row in history[::3]:
            row[key] = bad
        _, page = render(tmp_path, history=history, examples=[make_example("x", math.nan), make_example("y", 0.5)])
        assert not re.search(r"\b(nan|inf)\b", page.text), key
    render(tmp_path, history=[{}, {"kind": "train"}, {"kind": "val"}, {"kind": "val", "step": bad}])


def test_non_finite_losses_are_named(tmp_path: Path) -> None:
    history = make_history()
    history[6]["loss"] = math.nan
    assert "1 of 20 logged losses is not finite, first at step 7" in render(tmp_path, history=history)[1].text


def test_images_are_sorted_worst_first(tmp_path: Path) -> None:
    _, page = render(tmp_path)
    worst, best = page.text.split("Best images")
    found = [re.findall(r"street (\d)", part) for part in (worst.split("Worst images")[1], best)]
    assert found == [["1", "3"], ["8", "5"]]


def test_page_stays_small_with_many_classes_and_pictures_that_do_not_compress(tmp_path: Path) -> None:
    table = make_table(150)
    examples = [make_example("noise" + "!" * k, k / 12, (320, 640), 150) for k in range(12)]
    history = [{"kind": "train", "step": s, "loss": 1.0 + s % 7, "lr": 0.1} for s in range(5000)]
    html, page = render(tmp_path, table=table, scores=make_scores(table), examples=examples, history=history)
    assert len(html.encode()) < 3_000_000
    assert len(re.findall(r'<th scope="col" title=', html)) == 25
    assert "The 25 of 150 classes" in page.text


TOYS = LabelTable.from_dict({
    "name": "toys", "classes": [{"name": "floor", "value": 1}, {"name": "ball <b>", "value": 2, "thing": True},
                                {"name": "sky", "value": 3}],
})  # fmt: skip


@pytest.fixture
def panoptic_report(toy_segments: tuple[Segments, Segments]) -> dict[str, Any]:
    prediction, target = toy_segments
    quality, matrix = PanopticQuality(3), ConfusionMatrix(3)
    pq = quality.update(prediction, target)
    matrix.update(prediction.labels, target.labels)
    names = TOYS.names
    scores = replace(quality.scores(names, [c.thing for c in TOYS.classes]), merged=matrix.scores(names))
    image = np.full((60, 80, 3), 128, np.uint8)
    rows = {10: 0.25, 20: 0.125}
    return {
        "table": TOYS, "scores": scores,
        "examples": [Example(name="room", image=image, prediction=prediction, target=target, score=pq)],
        "history": [{"kind": "val", "step": s, "pq": v, "pq_things": v, "pq_stuff": None} for s, v in rows.items()],
    }  # fmt: skip


def test_panoptic_page(tmp_path: Path, panoptic_report: dict[str, Any]) -> None:
    html, page = render(tmp_path, **panoptic_report)  # Page fails where a name is not escaped
    words = re.sub(r"\s+", " ", page.text)
    for figure in ("PQ 44.9 %", "PQ things 50.0 %", "PQ stuff 42.3 %", "SQ 61.5 %", "RQ 50.0 %", "mIoU merged 46.9 %",
                   "best step 10 PQ 25.0 %", "step 10: 25 step 20: 12.5", "floor stuff 84.6 84.6 100.0 84.6 1 0 0",
                   "ball <b> thing 50.0 100.0 50.0 56.0 1 1 1", "Most frequent confusions", "orange",
                   "room PQ 44.9 %"):  # fmt: skip
        assert figure in words, figure
    assert html.count("<svg") == 1


def test_panoptic_scores_of_nothing(tmp_path: Path) -> None:
    scores = PanopticQuality(3).scores(TOYS.names, [c.thing for c in TOYS.classes])
    _, page = render(tmp_path, table=TOYS, scores=scores, examples=[], history=[])
    assert page.text.count("No validation yet") == 3 and "nan" not in page.text and "Confusion" not in page.text
