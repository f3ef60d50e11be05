"""Semantic scores: hand-computed values, mmsegmentation's own, and counts that merge in any order."""

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.labels import IGNORE
from panfpn.metrics import ConfusionMatrix, ImageRows, SemanticScores

NAMES = ("a", "b", "c")

# Four classes, the last never seen. Truth: 3 × a, 4 × b, 2 × c and one ignored pixel.
TRUTH = np.array([[0, 0, 0, 1, 1], [1, 1, 2, 2, IGNORE]], np.int16)
FOUND = np.array([[0, 0, 1, 1, 1], [1, 0, 2, 0, 2]], np.uint8)
COUNTS = [[2, 1, 0, 0], [1, 3, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def scores_of(found: np.ndarray, truth: np.ndarray, num_classes: int) -> SemanticScores:
    matrix = ConfusionMatrix(num_classes)
    matrix.update(found, truth)
    return matrix.scores([str(k) for k in range(num_classes)])


def draw_images(seed: int, count: int = 5, num_classes: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, (count, 2))
    return [
        (rng.integers(0, num_classes, size).astype(np.uint8), rng.integers(IGNORE, num_classes, size).astype(np.int16))
        for size in sizes
    ]


def slow_iou(images: list[tuple[np.ndarray, np.ndarray]], k: int) -> float:
    """The definition, with sets of pixels."""
    found = {(i, *p) for i, (f, t) in enumerate(images) for p in np.argwhere((f == k) & (t >= 0)).tolist()}
    truth = {(i, *p) for i, (_, t) in enumerate(images) for p in np.argwhere(t == k).tolist()}
    return len(found & truth) / len(found | truth) if found | truth else math.nan


def test_counts_by_hand() -> None:
    matrix = ConfusionMatrix(3)
    own = matrix.update(FOUND, TRUTH)
    assert matrix.counts.tolist() == COUNTS
    assert own == pytest.approx((2 / 5 + 3 / 5 + 1 / 2) / 3)


def test_scores_by_hand() -> None:
    scores = scores_of(FOUND, TRUTH, 3)
    np.testing.assert_allclose(scores.iou, [2 / 5, 3 / 5, 1 / 2])
    np.testing.assert_allclose(scores.accuracy, [2 / 3, 3 / 4, 1 / 2])
    np.testing.assert_allclose(scores.precision, [2 / 4, 3 / 4, 1 / 1])
    np.testing.assert_allclose(scores.fscore, [4 / 7, 6 / 8, 2 / 3])
    assert scores.miou == pytest.approx(0.5)
    assert scores.macc == pytest.approx((2 / 3 + 3 / 4 + 1 / 2) / 3)
    assert scores.mfscore == pytest.approx((4 / 7 + 6 / 8 + 2 / 3) / 3)
    assert scores.aacc == pytest.approx(6 / 9)
    assert scores.fwiou == pytest.approx((3 * 2 / 5 + 4 * 3 / 5 + 2 * 1 / 2) / 9)


def test_absent_class_is_nan_and_left_out_of_means() -> None:
    with_absent, without = scores_of(FOUND, TRUTH, 4), scores_of(FOUND, TRUTH, 3)
    for key in ("iou", "accuracy", "precision", "fscore"):
        values = getattr(with_absent, key)
        assert np.isnan(values).tolist() == [False, False, False, True], key
        np.testing.assert_array_equal(values[:3], getattr(without, key))
    for key in ("miou", "macc", "mfscore", "aacc", "fwiou"):
        assert getattr(with_absent, key) == getattr(without, key), key


def test_class_that_is_predicted_but_never_true_costs_iou_and_not_accuracy() -> None:
    scores = scores_of(np.array([[0, 1]]), np.array([[0, 0]]), 2)
    np.testing.assert_array_equal(scores.iou, [0.5, 0])
    np.testing.assert_array_equal(scores.accuracy, [0.5, np.nan])
    assert (scores.miou, scores.macc) == (0.25, 0.5)


def test_plain_data() -> None:
    data = scores_of(FOUND, TRUTH, 4).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["miou"] == pytest.approx(0.5)
    assert data["classes"]["1"] == {"iou": 3 / 5, "accuracy": 3 / 4, "precision": 3 / 4, "fscore": 3 / 4, "pixels": 4}
    assert data["classes"]["3"] == {"iou": None, "accuracy": None, "precision": None, "fscore": None, "pixels": 0}
    assert [row[:3] for row in data["confusion"][:3]] == [row[:3] for row in COUNTS[:3]]
    assert np.shape(data["confusion"]) == (5, 5)
    assert "images" not in data  # metrics.jsonl and release files hold this


def test_nothing_counted_is_null_and_not_zero() -> None:
    data = ConfusionMatrix(3).scores(NAMES).to_dict()
    assert [data[key] for key in ("miou", "macc", "aacc", "fwiou", "mfscore")] == [None] * 5


def test_perfect_prediction_scores_one() -> None:
    scores = scores_of(TRUTH.clip(min=0), TRUTH, 3)
    assert (scores.miou, scores.macc, scores.aacc, scores.fwiou, scores.mfscore) == (1, 1, 1, 1, 1)


def test_image_without_labelled_pixels_changes_nothing() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(FOUND, TRUTH)
    assert math.isnan(matrix.update(FOUND, np.full_like(TRUTH, IGNORE)))
    assert math.isnan(matrix.update(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.int16)))
    assert matrix.counts.tolist() == COUNTS


def test_what_is_predicted_on_ignored_pixels_does_not_count() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.where(TRUTH < 0, 77, FOUND), TRUTH)  # not even a class there
    assert matrix.counts.tolist() == COUNTS


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 5))
def test_scores_do_not_depend_on_order_and_counts_merge(seed: int, cut: int) -> None:
    images = draw_images(seed)
    forward, backward, first, second = (ConfusionMatrix(4) for _ in range(4))
    for matrix, part in ((forward, images), (backward, images[::-1]), (first, images[:cut]), (second, images[cut:])):
        for found, truth in part:
            matrix.update(found, truth)
    np.testing.assert_array_equal(forward.counts, backward.counts)
    first.counts += second.counts  # as evaluation adds up ranks
    np.testing.assert_array_equal(forward.counts, first.counts)
    assert forward.counts.sum() == sum((truth >= 0).sum() for _, truth in images)
    np.testing.assert_allclose(forward.scores(["0", "1", "2", "3"]).iou, [slow_iou(images, k) for k in range(4)])


def test_scores_are_of_their_moment() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(FOUND, TRUTH)
    scores = matrix.scores(NAMES)
    matrix.update(FOUND, TRUTH)
    assert scores.counts.tolist() == COUNTS
    assert matrix.counts.tolist() == (2 * np.array(COUNTS)).tolist()


def test_many_classes_do_not_overflow() -> None:
    matrix = ConfusionMatrix(3000)
    matrix.update(np.array([[2999, 1]], np.int16), np.array([[2999, 2998]], np.int16))
    assert (matrix.counts[2999, 2999], matrix.counts[2998, 1], matrix.counts.sum()) == (1, 1, 2)


def test_sizes_that_differ_are_refused() -> None:
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=r"prediction \(2, 4\) and truth \(2, 5\) have different sizes"):
        matrix.update(FOUND[:, :4], TRUTH)
    with pytest.raises(ValueError, match="different sizes"):
        matrix.update(FOUND.T, TRUTH)
    assert matrix.counts.sum() == 0


@pytest.mark.parametrize(
    ("found", "truth", "place"),
    [
        (3, 0, (0, 3)), (3, 2, (2, 3)), (255, 0, (0, 3)), (-1, 0, (0, 3)), (-1, 1, (1, 3)), (-300, 1, (1, 3)),
        (0, 3, (3, 0)), (2, 200, (3, 2)), (1, -2, (3, 1)), (7, 7, (3, 3)), (-1, 30_000, (3, 3)),
    ],
)  # fmt: skip
def test_values_that_are_no_class_have_a_row_and_a_column(found: int, truth: int, place: tuple[int, int]) -> None:
    matrix = ConfusionMatrix(3, 1)
    matrix.update(np.array([[1, found]], np.int16), np.array([[1, truth]], np.int16), 0)
    wanted = np.zeros((4, 4), int)
    wanted[1, 1] = 1
    wanted[place] += 1
    assert matrix.counts.tolist() == wanted.tolist()
    assert matrix.rows[0, -1] == 2


def test_values_that_are_no_class_cost_what_they_cost_in_mmsegmentation() -> None:
    scores = scores_of(np.array([[0, 9, 0, 1]]), np.array([[0, 0, 9, 1]]), 2)
    np.testing.assert_allclose(scores.iou, [1 / 3, 1])  # a miss, and a prediction where the truth is no class
    np.testing.assert_allclose(scores.accuracy, [1 / 2, 1])
    np.testing.assert_allclose(scores.precision, [1 / 2, 1])
    assert scores.aacc == pytest.approx(2 / 3)


def test_types_of_maps_do_not_matter() -> None:
    for kind in (np.uint8, np.int16, np.int32, np.uint32, np.int64):
        matrix = ConfusionMatrix(3)
        matrix.update(FOUND.astype(kind), TRUTH.astype(np.int64))
        matrix.update(FOUND, TRUTH.clip(min=0).astype(kind))
        assert matrix.counts.sum() == 19, kind
        assert matrix.counts[0].tolist() == [4, 2, 1, 0], kind


def test_rows_hold_each_image() -> None:
    images = draw_images(3)
    matrix = ConfusionMatrix(4, len(images) + 1)
    own = [matrix.update(found, truth, i) for i, (found, truth) in enumerate(images)]
    rows = ImageRows(tuple("abcdef"), matrix.rows)
    np.testing.assert_array_equal(rows.miou, [*own, np.nan])
    hits, found, true = (part.sum(0) for part in rows.areas)
    np.testing.assert_array_equal(hits, np.diag(matrix.counts)[:4])
    np.testing.assert_array_equal(found, matrix.counts.sum(0)[:4])
    np.testing.assert_array_equal(true, matrix.counts.sum(1)[:4])
    assert rows.pixels.tolist() == [(truth >= 0).sum() for _, truth in images] + [0]


def test_plain_data_come_back() -> None:
    matrix = ConfusionMatrix(3, 1)
    matrix.update(FOUND, TRUTH, 0)
    scores = matrix.scores(NAMES)
    data = json.loads(json.dumps(scores.to_dict() | {"images": ImageRows(("x",), matrix.rows).to_list()}))
    back = SemanticScores.from_dict(data)
    assert back.names == NAMES and back.counts.tolist() == COUNTS and back.to_dict() == scores.to_dict()
    assert back.images is not None and back.images.rows.tolist() == matrix.rows.tolist()
    assert SemanticScores.from_dict(scores.to_dict()).images is None


def test_confusion_of_an_older_file_is_padded() -> None:
    old = scores_of(FOUND, TRUTH, 3).to_dict()
    old["confusion"] = [row[:3] for row in COUNTS[:3]]
    back = SemanticScores.from_dict(dict(sorted(old.items())), NAMES)
    assert back.names == NAMES and back.counts.tolist() == COUNTS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confusion": None}, "file: has no key 'confusion'"),
        ({"classes": None}, "file: has no key 'classes'"),
        ({"confusion": [[1, 2], [3]]}, "file: key 'confusion' is not a table of counts"),
        ({"confusion": [[1, 2], [3, 4]]}, r"file: key 'confusion' is \[2, 2\], which does not fit 3 classes"),
    ],
)
def test_plain_data_that_are_no_scores_are_refused(change: dict[str, Any], message: str) -> None:
    data = scores_of(FOUND, TRUTH, 3).to_dict() | change
    with pytest.raises(ValueError, match=message):
        SemanticScores.from_dict({k: v for k, v in data.items() if v is not None}, source="file")


def golden_case(seed: int, fill: ModuleType, golden_files: Path) -> tuple[SemanticScores, dict[str, Any]]:
    """The scores of the maps that tests/golden/make_mmseg.py made, and what mmsegmentation 1.2.2 said of them."""
    truth, found = fill.labels(90, 120, 19, seed), fill.labels(90, 120, 19, seed + 100, ignore=0)
    right = np.random.RandomState(seed).uniform(size=truth.shape) < 0.6
    found = np.where(right, np.where(truth == 255, 3, truth), found)
    truth[truth == 5] = 6  # a class that is never labelled, though it is predicted
    scores = scores_of(found, np.where(truth == 255, IGNORE, truth.astype(np.int16)), 19)
    return scores, json.loads((golden_files / "mmseg_metrics.json").read_text())[str(seed)]


@pytest.mark.parametrize("seed", range(3))
def test_mmsegmentations_scores(seed: int, fill: ModuleType, golden_files: Path) -> None:
    scores, wanted = golden_case(seed, fill, golden_files)
    assert np.isnan(scores.accuracy[5])
    assert scores.iou[5] == 0
    found = {
        "mIoU": scores.miou,
        "mAcc": scores.macc,
        "aAcc": scores.aacc,
        "mRecall": scores.macc,
        "mPrecision": np.nanmean(scores.precision),
    }
    for key, value in found.items():
        assert round(100 * value, 2) == round(wanted[key], 2), key  # to the printed digit


@pytest.mark.parametrize("seed", range(3))
def test_mmsegmentations_fscore(seed: int, fill: ModuleType, golden_files: Path) -> None:
    scores, wanted = golden_case(seed, fill, golden_files)
    assert round(100 * scores.mfscore, 2) == round(wanted["mFscore"], 2)
