"""The report: whole, self-contained, safe against names from other people's files, and there when little is known."""

import base64
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panfpn.data.images import decode_image
from panfpn.labels import IGNORE, LabelClass, LabelTable
from panfpn.metrics import ConfusionMatrix, PanopticQuality, SemanticScores
from panfpn.report.figures import Line, colored, line_chart, panels, smooth, thin
from panfpn.report.page import Shown, write_report
from panfpn.types import Segments

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


def make_shown(name: str, miou: float, size: tuple[int, int] = (37, 51), num_classes: int = 4) -> Shown:
    rng = np.random.default_rng(len(name))
    target = rng.integers(IGNORE, num_classes, size).astype(np.int16)
    labels = rng.integers(0, num_classes, size).astype(np.uint8)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    return Shown(name=name, image=image, found=labels, truth=target, score=miou)


def render(folder: Path, **changed: Any) -> tuple[str, Page]:
    table = changed.pop("table", make_table(4))
    arguments: dict[str, Any] = {
        "title": "a run", "config": "optim:\n  lr: 0.01\n", "history": make_history(), "table": table,
        "scores": make_scores(table), "shown": [make_shown(f"street {k}", k / 10) for k in (5, 1, 3, 8)],
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
        shown=[],
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
    shown = [make_shown(EVIL, 0.4), make_shown("broken \udcff name", 0.5)]
    history = [row | {f"loss/{EVIL}": 1.0} for row in make_history()]
    table = make_table(4, first=EVIL)
    html, page = render(tmp_path, title=EVIL, config=EVIL, table=table, shown=shown, history=history)
    assert "<script" not in html
    # title, heading, curve, bar, table, matrix (row, column), confusions, legend, image, configuration
    assert page.text.count(EVIL) >= 10


def test_absent_class_is_absent_not_zero(tmp_path: Path) -> None:
    table = make_table(4)
    html, page = render(tmp_path, scores=make_scores(table, absent=2), shown=[])
    assert page.text.count("absent") == 2 and "Absent (1)" in page.text
    row = re.search(r'<tr class="absent">.*?class 2.*?</tr>', html)
    assert row and "0.0" not in row[0]
    assert render(tmp_path, shown=[])[1].text.count("absent") == 0


def test_predicted_but_never_true_class_scores_zero(tmp_path: Path) -> None:
    table = make_table(2)
    _, page = render(
        tmp_path, table=table, scores=SemanticScores(table.names, np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]])), shown=[]
    )
    assert "absent" not in page.text and "0.0" in page.text


def test_nothing_known_yet(tmp_path: Path) -> None:
    html, page = render(tmp_path, history=[], scores=ConfusionMatrix(4).scores(make_table(4).names), shown=[])
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
        _, page = render(tmp_path, history=history, shown=[make_shown("x", math.nan), make_shown("y", 0.5)])
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
    shown = [make_shown("noise" + "!" * k, k / 12, (320, 640), 150) for k in range(12)]
    history = [{"kind": "train", "step": s, "loss": 1.0 + s % 7, "lr": 0.1} for s in range(5000)]
    html, page = render(tmp_path, table=table, scores=make_scores(table), shown=shown, history=history)
    assert len(html.encode()) < 3_000_000
    assert len(re.findall(r'<th scope="col" title=', html)) == 25
    assert "The 25 of 150 classes" in page.text


def test_large_images_are_shown_small() -> None:
    big = make_shown("big", 0.5, (1024, 2048))
    for _, uri in panels(big.image, big.found, big.truth, make_table(4), 12):
        assert decode(uri).shape == (320, 640, 3)


def test_errors_are_red_and_ignored_pixels_dark() -> None:
    target = np.zeros((64, 96), np.int16)
    target[:, 32:64] = IGNORE
    labels = np.zeros((64, 96), np.uint8)
    labels[:, 64:] = 1
    image = np.full((64, 96, 3), 128, np.uint8)
    drawn = dict(panels(image, labels, target, make_table(2), 1))
    assert list(drawn) == ["image", "truth", "prediction", "errors"]
    errors = decode(drawn["errors"]).astype(int)
    right, ignored, wrong = (errors[8:56, x + 8 : x + 24].mean((0, 1)) for x in (0, 32, 64))
    assert np.ptp(right) < 6 and right.mean() > 150
    assert ignored.max() < 45
    assert wrong[0] > 180 and wrong[1:].max() < 90


def decode(uri: str) -> np.ndarray[Any, Any]:
    return decode_image(base64.b64decode(uri.partition(",")[2]))


TOYS = LabelTable.from_dict({
    "name": "toys", "classes": [{"name": "floor", "value": 1}, {"name": "ball <b>", "value": 2, "thing": True},
                                {"name": "sky", "value": 3}],
})  # fmt: skip


def make_pair() -> tuple[Segments, Segments]:
    """Truth: three balls (the last a crowd) on floor, void below. Found: two balls, the second half too small."""
    index = np.zeros((60, 80), np.int16)
    index[10:30, 5:25], index[10:30, 25:45], index[40:50, 50:70], index[55:] = 1, 2, 3, IGNORE
    crowd = np.array([False, False, False, True])
    truth = Segments(index=index, classes=np.array([0, 1, 1, 1], np.int16), crowd=crowd, ids=np.arange(4))
    seen = index.copy()
    seen[10:30, 33:45] = 0
    seen[0:4] = 3
    order = np.array([2, 0, 1, 3], np.int16)  # other places than in the truth
    found = Segments(index=np.append(order, np.int16(IGNORE))[seen], classes=np.array([1, 1, 0, 2], np.int16),
                     crowd=np.zeros(4, bool), ids=np.arange(4))  # fmt: skip
    return found, truth


def panoptic_report() -> dict[str, Any]:
    found, truth = make_pair()
    quality, matrix = PanopticQuality(3), ConfusionMatrix(3)
    own = quality.update(found, truth)
    matrix.update(found.labels, truth.labels)
    names = TOYS.names
    scores = replace(quality.scores(names, [c.thing for c in TOYS.classes]), merged=matrix.scores(names))
    image = np.full((60, 80, 3), 128, np.uint8)
    rows = {10: 0.25, 20: 0.125}
    return {
        "table": TOYS, "scores": scores,
        "shown": [Shown(name="room", image=image, found=found, truth=truth, score=own)],
        "history": [{"kind": "val", "step": s, "pq": v, "pq_things": v, "pq_stuff": None} for s, v in rows.items()],
    }  # fmt: skip


def test_panoptic_page(tmp_path: Path) -> None:
    html, page = render(tmp_path, **panoptic_report())  # Page fails where a name is not escaped
    words = re.sub(r"\s+", " ", page.text)
    for figure in ("PQ 44.9 %", "PQ things 50.0 %", "PQ stuff 42.3 %", "SQ 61.5 %", "RQ 50.0 %", "mIoU merged 46.9 %",
                   "best step 10 PQ 25.0 %", "step 10: 25 step 20: 12.5", "floor stuff 84.6 84.6 100.0 84.6 1 0 0",
                   "ball <b> thing 50.0 100.0 50.0 56.0 1 1 1", "Most frequent confusions", "orange",
                   "room PQ 44.9 %"):  # fmt: skip
        assert figure in words, figure
    assert html.count("<svg") == 1


def test_shades_of_matches_agree_and_errors_have_their_colors() -> None:
    found, truth = make_pair()
    (index, colors), (true_index, true_colors) = colored(found, truth, TOYS)
    assert index is found.index and true_index is truth.index
    np.testing.assert_array_equal(colors[index[20, 10]], true_colors[true_index[20, 10]])  # the ball that matches
    assert len(np.unique(true_colors[1:], axis=0)) == 3
    np.testing.assert_array_equal(colors[index[2, 2]], TOYS.palette[2])
    drawn = dict(panels(np.full((60, 80, 3), 128, np.uint8), found, truth, TOYS, 1))
    errors = decode(drawn["errors"]).astype(int)
    right, wrong, lost = errors[20, 12], errors[2, 40], errors[20, 29]
    assert np.ptp(right) < 12 and right.mean() > 150
    assert wrong[0] > 180 and wrong[1:].max() < 90
    assert lost[0] > 180 and lost[1] > 120 and lost[2] < 90
    assert errors[44:47, 55:65].max() < 45 and errors[57:].max() < 60  # crowd and void


def test_panoptic_scores_of_nothing(tmp_path: Path) -> None:
    scores = PanopticQuality(3).scores(TOYS.names, [c.thing for c in TOYS.classes])
    _, page = render(tmp_path, table=TOYS, scores=scores, shown=[], history=[])
    assert page.text.count("No validation yet") == 3 and "nan" not in page.text and "Confusion" not in page.text


def test_loss_that_falls_far_gets_a_logarithmic_axis_but_shares_do_not() -> None:
    line = Line(name="a", points=[(1.0, 500.0), (2.0, 5.0), (3.0, 0.5)], style="a")
    heights = {
        label: float(place) for place, label in re.findall(r'bottom:([\d.]+)%">([\d.]+)<', chart(line, log=True))
    }
    assert heights["10"] - heights["1"] == pytest.approx(heights["100"] - heights["10"], abs=0.02)
    assert '">0<' in chart(line, log=False)


def chart(line: Line, *, log: bool) -> str:
    text = line_chart([line], 3, label="x", log=log)
    # steps are labels too, but at the left
    return re.sub(r'<span class="x".*?</span>', "", text)


def test_curve_breaks_where_a_value_is_missing() -> None:
    points = [(1.0, 1.0), (2.0, 1.0), (3.0, math.nan), (4.0, 1.0)]
    path = re.search(
        r'<g class="a"><path d="([^"]*)"', line_chart([Line(name="a", points=points, style="a")], 4, label="x")
    )
    assert path and path[1].count("M") == 2 and path[1].count("L") == 1


def test_thin_and_smooth_keep_ends_and_means() -> None:
    points = [(float(k), float(k)) for k in range(1000)]
    short = thin(points)
    assert len(short) <= 300 and short[-1][0] == 999
    assert all(abs(x - y) <= 4 for x, y in short)
    assert [y for _, y in smooth(points)] == pytest.approx([y for _, y in points])  # a straight line stays one
    assert math.isnan(smooth([(0.0, 1.0), (1.0, math.nan), (2.0, 1.0)])[1][1])
