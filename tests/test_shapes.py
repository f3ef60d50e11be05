import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.data.layouts.coco_outlines import rasterised
from panfpn.shapes import outlines, run_lengths


def random_mask(seed: int, height: int, width: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)) < share


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.floats(0, 1))
def test_polygons_filled_are_the_mask_again(seed: int, height: int, width: int, share: float) -> None:
    mask = random_mask(seed, height, width, share)
    found = outlines(mask)
    again = rasterised([outline.joined().astype(np.float64) for outline in found], mask.shape)
    np.testing.assert_array_equal(again, mask)
    areas = [mask_of([outline.border, *outline.holes], mask.shape).sum() for outline in found]
    assert sum(areas) == mask.sum()
    assert areas == sorted(areas, reverse=True) or any(outline.holes for outline in found)


def mask_of(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    filled = np.zeros(size, np.bool_)
    for ring in rings:
        filled ^= rasterised([ring.astype(np.float64)], size)
    return filled


@pytest.mark.parametrize("count", [1, 3, 7])
def test_run_lengths_fill_the_region_again(count: int) -> None:
    index = np.random.default_rng(count).integers(-1, count + 1, (9, 14))  # some of no region
    for k, lengths in enumerate(run_lengths(index, count)):
        assert lengths.sum() == index.size
        assert (lengths[1:] > 0).all()
        filled = np.repeat(np.arange(len(lengths)) % 2, lengths).reshape(14, 9).T
        np.testing.assert_array_equal(filled, index == k)


def test_run_lengths_of_a_region_without_pixels() -> None:
    assert [lengths.tolist() for lengths in run_lengths(np.zeros((2, 3), np.int16), 2)] == [[0, 6], [6]]


def test_an_outline_with_a_hole_and_one_of_its_own() -> None:
    mask = np.zeros((8, 8), np.bool_)
    mask[1:7, 1:7] = True
    mask[3:5, 3:5] = False
    mask[0, 0] = True  # touches by a corner only
    large, small = outlines(mask)
    assert large.border.tolist() == [[1, 1], [7, 1], [7, 7], [1, 7]]
    assert {tuple(point) for point in large.holes[0].tolist()} == {(3, 3), (5, 3), (5, 5), (3, 5)}
    assert small.border.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]


def test_a_tolerance_saves_points() -> None:
    rows, columns = np.ogrid[:200, :200]
    disc = (rows - 100) ** 2 + (columns - 100) ** 2 < 80**2
    (exact,), (simple,) = outlines(disc), outlines(disc, tolerance=1.5)
    assert len(simple.border) < len(exact.border) / 10
    again = rasterised([simple.border.astype(np.float64)], disc.shape)
    assert (again != disc).sum() < 0.02 * disc.sum()
