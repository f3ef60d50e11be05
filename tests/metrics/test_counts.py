"""What every score is made of: values that are no class, shares of nothing, means without nan."""

import numpy as np
import pytest

from panfpn.metrics.counts import areas, fold, iou, mean, means, share


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64])
def test_values_that_are_no_class_become_k(kind: type) -> None:
    values = np.array([0, 2, 3, 100, np.iinfo(kind).max, np.iinfo(kind).min]).astype(kind)
    low = 3 if np.iinfo(kind).min < 0 else 0
    assert fold(values, -1, 3).tolist() == [0, 2, 3, 3, 3, low]
    assert fold(values[:2], -1, 3) is not None and fold(values[:2], -1, 300).tolist() == [0, 2]


def test_the_lowest_value_is_kept() -> None:
    values = np.array([-1, 0, -2], np.int8)
    assert fold(values, -1, 300).tolist() == [-1, 0, 300]  # 300 does not fit int8
    assert fold(values, 0, 2).tolist() == [2, 0, 2]
    assert fold(np.zeros((0, 3), np.uint8), -1, 2).shape == (0, 3)


def test_areas() -> None:
    hits, found, true = areas(np.array([[4, 1, 2], [0, 3, 0], [5, 0, 9]]))  # the last row and column: no class
    assert (hits.tolist(), found.tolist(), true.tolist()) == ([4, 3], [9, 4], [7, 3])
    np.testing.assert_allclose(iou(hits, found, true), [4 / 12, 3 / 4])


def test_nothing_has_no_share_and_no_mean() -> None:
    np.testing.assert_array_equal(share([1, 0, 0], [4, 5, 0]), [0.25, 0, np.nan])
    np.testing.assert_array_equal(means(np.array([[1, np.nan, 0], [np.nan] * 3])), [0.5, np.nan])
    assert mean(np.array([0.25, np.nan, 0.75])) == 0.5
    assert np.isnan(mean(np.array([])))
