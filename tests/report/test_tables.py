"""Scores for people and for files."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from panfpn.choices import PROTOCOLS
from panfpn.metrics import (
    AveragePrecision,
    BoundaryCounts,
    ConfusionMatrix,
    ImageRows,
    PanopticScores,
    SemanticScores,
)
from panfpn.metrics.bootstrap import compare
from panfpn.report.tables import print_comparison, print_scores
from panfpn.verbs import scoring

CLASSES = ("road", "a class with [red]quite a long[/red] name, so that the table is wide", "never", "hit or miss")


@pytest.fixture
def scores() -> SemanticScores:
    rng = np.random.default_rng(0)
    matrix, boundary = ConfusionMatrix(4, 3), BoundaryCounts(4)
    for i in range(3):
        true = np.kron(np.array([0, 1, 3, -1])[rng.integers(0, 4, (3, 4))], np.ones((6, 6), int))
        found = np.where(rng.random(true.shape) < 0.8, true.clip(0), 1)
        matrix.update(found, true, i)
        boundary.update(found, true)
    images = ImageRows(("[b]x", "y", "z"), matrix.rows)
    return replace(matrix.scores(CLASSES), images=images, boundary=boundary)


def test_one_image_is_said_to_tell_nothing(scores: SemanticScores, capsys: pytest.CaptureFixture[str]) -> None:
    assert scores.images is not None
    one = replace(scores, images=ImageRows(("x",), scores.images.rows[:1]))
    print_comparison(compare(one, one), "A.json", "B.json")
    out = capsys.readouterr().out
    assert "so few labelled images cannot tell them apart" in out and "nan" not in out


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_number_is_printed_whole(
    protocol: str, scores: SemanticScores, capsys: pytest.CaptureFixture[str]
) -> None:
    print_scores(scores, protocol)
    out = capsys.readouterr().out
    assert "…" not in out and CLASSES[1] in out
    assert re.search(r"never +│ +absent", out)
    expected = scores.by_protocol(protocol)
    digits = 2 if expected.percent else 4
    words = out.split()
    for key, value in expected.summary.items():
        assert key in words and f"{value:.{digits}f}" in words, key
    for key, values in expected.classes.items():
        assert all(f"{values[k]:.{digits}f}" in words for k in (0, 1, 3)), key
    assert scores.boundary is not None
    assert f"{(100 if expected.percent else 1) * scores.boundary.boundary_iou[1]:.{digits}f}" in words
    assert "bootstrap resamples of the 3 images" in " ".join(words)


def test_what_is_not_there_is_not_printed(scores: SemanticScores, capsys: pytest.CaptureFixture[str]) -> None:
    print_scores(replace(scores, images=None, boundary=None))
    out = capsys.readouterr().out
    assert "bootstrap" not in out and "Boundary" not in out and "mmseg, %: aAcc" in out
    summary = next(line for line in out.splitlines() if line.startswith("mmseg, %"))
    assert "mRecall" in summary  # on one line, however narrow the terminal


def test_json_holds_scores_images_and_interval(scores: SemanticScores) -> None:
    data = scores.to_json("smp")
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert {key: data[key] for key in scores.to_dict()} == scores.to_dict()
    assert data["protocol"]["name"] == "smp" and data["protocol"]["classes"]["iou_score"][2] == 1
    assert scores.boundary is not None and data["boundary"] == scores.boundary.to_dict(CLASSES)
    assert data["interval"]["low"] < data["miou"] < data["interval"]["high"]
    back = SemanticScores.from_dict(data)
    assert back.images is not None and scores.images is not None
    assert back.images.rows.tolist() == scores.images.rows.tolist() and back.images.names == scores.images.names
    assert scores.to_json("mmseg")["protocol"]["classes"]["IoU"][2] is None


def test_comparison(scores: SemanticScores, capsys: pytest.CaptureFixture[str]) -> None:
    assert scores.images is not None
    rows = scores.images.rows.copy()
    rows[0, 0] -= 5  # five pixels of the first class
    other = replace(scores, images=ImageRows(scores.images.names, rows))
    found = compare(scores, other)
    print_comparison(found, Path("[a].json"), Path("b.json"))
    out = capsys.readouterr().out
    assert "A: [a].json" in out and "[b]x" in out and f"{found.difference.value:+.4f}" in out
    assert f"{found.difference.low:+.4f} to {found.difference.high:+.4f}" in out
    print_comparison(compare(scores, scores), Path("a"), Path("b"))
    assert "moved most" not in capsys.readouterr().out


def test_the_command_line_knows_all_protocols() -> None:
    assert get_args(get_type_hints(scoring._Eval)["protocol"]) == tuple(PROTOCOLS)


@pytest.fixture
def panoptic(scores: SemanticScores) -> PanopticScores:
    """Four classes: hit and missed, hit, absent, only missed."""
    hits, wrong, missed = np.array([3, 1, 0, 0]), np.array([1, 0, 0, 0]), np.array([2, 0, 0, 4])
    return PanopticScores(
        names=CLASSES, things=np.array([False, True, True, True]), iou_sum=np.array([2.4, 0.7, 0, 0]),
        true_positives=hits, false_positives=wrong, false_negatives=missed, merged=scores,
        branch=ConfusionMatrix(2).scores(("a", "b")),
        mask_ap=AveragePrecision(0.321, 0.5, 0.25, 0.1, 0.2, math.nan, {}),
    )  # fmt: skip


def test_panoptic_scores_are_printed_per_class_and_group(
    panoptic: PanopticScores, capsys: pytest.CaptureFixture[str]
) -> None:
    print_scores(panoptic)
    out = capsys.readouterr().out
    cells = [[c.strip() for c in re.split("[│┃]", line)[1:-1]] for line in out.splitlines() if line[:1] in "│┃"]
    assert panoptic.merged is not None
    iou = [f"{100 * v:.2f}" if v == v else "–" for v in panoptic.merged.iou]
    assert cells == [
        ["class", "type", "PQ", "SQ", "RQ", "IoU merged", "TP", "FP", "FN"],
        ["road", "stuff", "53.33", "80.00", "66.67", iou[0], "3", "1", "2"],
        [CLASSES[1], "thing", "70.00", "70.00", "100.00", iou[1], "1", "0", "0"],
        ["never", "thing", "absent", "", "", "", "0", "0", "0"],
        ["hit or miss", "thing", "0.00", "0.00", "0.00", iou[3], "0", "0", "4"],
    ]
    lines = out.splitlines()[-6:]
    assert lines[0] == "all, %: PQ 41.11  SQ 50.00  RQ 55.56  (3 classes)"
    assert lines[1] == "things: PQ 35.00  SQ 35.00  RQ 50.00  (2 classes)"
    assert lines[2] == "stuff: PQ 53.33  SQ 80.00  RQ 66.67  (1 class)"
    assert lines[3] == "semantic branch: mIoU –" and lines[4] == f"merged map: mIoU {100 * panoptic.merged.miou:.2f}"
    assert lines[5] == "masks: AP 32.10  AP50 50.00  AP75 25.00  small 10.00  medium 20.00  large –"


def test_panoptic_scores_without_the_rest(panoptic: PanopticScores, capsys: pytest.CaptureFixture[str]) -> None:
    print_scores(replace(panoptic, merged=None, branch=None, mask_ap=None))
    out = capsys.readouterr().out
    assert "IoU" not in out and "AP" not in out and "stuff: PQ 53.33" in out


def test_panoptic_json_and_protocols(panoptic: PanopticScores) -> None:
    data = panoptic.to_json("mmseg")
    assert json.loads(json.dumps(data, allow_nan=False)) == data == panoptic.to_dict()
    for refuse in (print_scores, PanopticScores.to_json, PanopticScores.class_table, PanopticScores.lines):
        with pytest.raises(ValueError, match="protocol 'smp' scores semantic maps"):
            refuse(panoptic, "smp")  # type: ignore[operator]
