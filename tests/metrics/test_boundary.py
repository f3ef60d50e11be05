"""Boundary and trimap IoU: the published erosions, brute force, and counts that merge in any order."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.labels import IGNORE
from panfpn.metrics import BoundaryCounts


def draw(seed: int, num_classes: int = 4, cell: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true blobs; ignored pixels, and values that are no class, in both."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 60, 2)
    shape = height // cell + 1, width // cell + 1
    coarse = rng.integers(IGNORE, num_classes + 1, shape)
    other = np.where(rng.random(shape) < 0.6, coarse.clip(0), rng.integers(-2, num_classes + 3, shape))
    true, found = (np.kron(m, np.ones((cell, cell), int))[:height, :width] for m in (coarse, other))
    return np.roll(found, rng.integers(0, 3, 2), (0, 1)), true


def eroded(mask: np.ndarray, times: int) -> np.ndarray:
    """`times` erosions with a 3 × 3 square, what lies beyond the image being background."""
    padded = np.pad(mask, 1).astype(np.uint8)
    return cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=times)[1:-1, 1:-1].astype(bool)


def slow_boundaries(found: np.ndarray, true: np.ndarray, k: int, width: int) -> tuple[int, int]:
    """Intersection and union of class k's boundaries by the published definition."""
    masks = [(m == k) & (true != IGNORE) for m in (found, true)]
    one, other = (mask & ~eroded(mask, width) for mask in masks)
    return int((one & other).sum()), int((one | other).sum())


def slow_band(true: np.ndarray, width: int) -> np.ndarray:
    """Pixels less than `width` from one with a neighbour of another label."""
    padded = np.pad(true, 1, mode="edge")
    shifted = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    places = np.argwhere(np.any([true != other for other in shifted], axis=0))
    grid = np.stack(np.indices(true.shape), -1)[:, :, None]
    return (np.hypot(*np.moveaxis(grid - places, -1, 0)) < width).any(-1)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), ratio=st.sampled_from([0.001, 0.02, 0.05, 0.1, 0.6]))
def test_boundaries_are_the_published_ones(seed: int, ratio: float) -> None:
    found, true = draw(seed)
    counts = BoundaryCounts(4, ratio=ratio)
    counts.update(found, true)
    width = max(1, round(ratio * np.sqrt(true.shape[0] ** 2 + true.shape[1] ** 2)))
    assert list(zip(*counts.counts[:2].tolist(), strict=True)) == [
        slow_boundaries(found, true, k, width) for k in range(4)
    ]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 9))
def test_trimap_is_what_lies_near_a_change(seed: int, width: int) -> None:
    found, true = draw(seed)
    counts = BoundaryCounts(4, trimap_width=width)
    counts.update(found, true)
    band = slow_band(true, width) & (true != IGNORE)
    for k, row in enumerate(counts.counts[2:].T.tolist()):
        assert row == [
            (band & (found == k) & (true == k)).sum(),
            (band & (found == k)).sum(),
            (band & (true == k)).sum(),
        ]


def test_scores_by_hand() -> None:
    true = np.zeros((40, 40), int)
    true[10:30, 10:30] = 1
    found = np.zeros((40, 40), int)
    found[11:30, 10:30] = 1  # its upper edge one pixel too low
    counts = BoundaryCounts(2, trimap_width=1)
    counts.update(found, true)  # boundaries are 1 pixel wide: 0.02 × 56.6
    # Rings of 76 and 74 pixels share the lower edge and the sides, 20 + 2 × 18.
    shared = 20 + 2 * 18
    assert counts.boundary_iou[1] == pytest.approx(shared / (76 + 74 - shared))
    # One pixel to either side of the change: 76 within, 80 without; the upper 20 are missed.
    assert counts.trimap_iou.tolist() == [80 / 100, 56 / 76]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_perfect_prediction_scores_one(seed: int) -> None:
    _, true = draw(seed)
    counts = BoundaryCounts(4)
    counts.update(np.where(true == IGNORE, 3, true), true)  # whatever it says of ignored pixels
    present = np.isin(np.arange(4), true)
    np.testing.assert_array_equal(counts.boundary_iou, np.where(present, 1, np.nan))
    assert np.isin(counts.trimap_iou[~np.isnan(counts.trimap_iou)], 1).all()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), cut=st.integers(0, 4))
def test_counts_merge_in_any_order(seed: int, cut: int) -> None:
    images = [draw(seed + i) for i in range(4)]
    forward, first, second = BoundaryCounts(4), BoundaryCounts(4), BoundaryCounts(4)
    for counts, part in ((forward, images), (first, images[:cut][::-1]), (second, images[cut:])):
        for found, true in part:
            counts.update(found, true)
    np.testing.assert_array_equal(forward.counts, first.counts + second.counts)


def test_width_grows_with_the_image() -> None:
    """A square that misses its place by one pixel scores better where the boundary is wider."""
    scores = []
    for side in (40, 400):
        true, found = np.zeros((2, side, side), int)
        true[side // 4 : -side // 4, side // 4 : -side // 4] = 1
        found[side // 4 : -side // 4, side // 4 + 1 : -side // 4 + 1] = 1
        counts = BoundaryCounts(2)
        counts.update(found, true)
        scores.append(counts.boundary_iou[1])
    assert scores[0] < 0.6 < 0.8 < scores[1]


def test_one_label_has_a_boundary_at_the_edge_and_no_trimap() -> None:
    counts = BoundaryCounts(2)
    counts.update(np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.int16))
    assert counts.counts[:, 0].tolist() == [36, 36, 0, 0, 0]
    assert np.isnan(counts.trimap_iou).all() and np.isnan(counts.boundary_iou[1])
    counts.update(np.zeros((0, 10), np.uint8), np.zeros((0, 10), np.int16))
    assert counts.counts[:, 0].tolist() == [36, 36, 0, 0, 0]


def test_many_classes() -> None:
    counts = BoundaryCounts(30_000)
    counts.update(np.array([[29_999, 7, 60_000]]), np.array([[29_999, 29_999, 7]]))
    assert (counts.counts[0, 29_999], counts.counts[1, 29_999], counts.counts[1, 7]) == (1, 2, 2)


def test_plain_data() -> None:
    counts = BoundaryCounts(3, trimap_width=2)
    counts.update(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]]))
    data = counts.to_dict(["a", "b", "c"])
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    # within 2 pixels of the change: one pixel of a, two of b
    assert data["classes"]["b"] == {"boundary_iou": pytest.approx(2 / 3), "trimap_iou": pytest.approx(1 / 2)}
    assert data["classes"]["c"] == {"boundary_iou": None, "trimap_iou": None}
    assert data["trimap_miou"] == pytest.approx(1 / 2)


def test_wrong_settings_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="boundary ratio is 0"):
        BoundaryCounts(2, ratio=0)
    with pytest.raises(ValueError, match="trimap width is 0; it must be from 1 to 100"):
        BoundaryCounts(2, trimap_width=0)
    with pytest.raises(ValueError, match=r"prediction \(2, 3\) and truth \(3, 2\) have different sizes"):
        BoundaryCounts(2).update(np.zeros((2, 3), int), np.zeros((3, 2), int))


def test_no_number_is_put_into_a_type_that_cannot_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy from 2.5 on refuses -1 beside the uint8 of a predicted map; this refuses it on every numpy."""
    where = np.where

    def strict(condition: np.ndarray, *values: np.ndarray | int) -> object:
        types = [value.dtype for value in values if isinstance(value, np.ndarray) and value.dtype.kind in "iu"]
        for value in values:
            if type(value) is int and types:
                limits = np.iinfo(np.result_type(*types))
                if not limits.min <= value <= limits.max:
                    raise OverflowError(value)
        return where(condition, *values)

    labels = np.array([[0, 1, 1, 2]], np.uint8)
    target = np.array([[0, 1, IGNORE, 9]], np.int16)
    with pytest.raises(OverflowError):
        strict(labels > 0, labels, IGNORE)
    with monkeypatch.context() as patch:
        patch.setattr(np, "where", strict)
        counts = BoundaryCounts(3)
        counts.update(labels, target)
    assert counts.counts[:2].tolist() == [[1, 1, 0], [1, 1, 1]]
