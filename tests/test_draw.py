"""Drawing: colours as the palette says, ignored pixels as the image says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.draw import colorize, overlay, segment_colors, side_by_side, write_words
from panfpn.labels import IGNORE

PALETTE = np.array([[200, 0, 0], [0, 150, 0], [0, 0, 100]], np.uint8)


def make_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_colors_are_the_palettes(dtype: type) -> None:
    assert colorize(np.array([[2, 0], [1, 1]], dtype), PALETTE).tolist() == [
        [[0, 0, 100], [200, 0, 0]],
        [[0, 150, 0], [0, 150, 0]],
    ]


def test_ignored_pixels_are_black() -> None:
    picture = colorize(np.array([[IGNORE, 0]], np.int16), PALETTE)
    assert picture.dtype == np.uint8
    assert picture.tolist() == [[[0, 0, 0], [200, 0, 0]]]


@pytest.mark.parametrize("opacity", [0.0, 0.25, 0.55, 1.0])
def test_inside_of_a_region_is_mixed_by_opacity(opacity: float) -> None:
    image = make_image(5, 7)
    wanted = (1 - opacity) * image + opacity * PALETTE[1].astype(float)
    found = overlay(image, np.ones((5, 7), np.uint8), PALETTE, opacity)
    assert found.dtype == np.uint8
    assert np.abs(found - wanted).max() <= 0.5 + 1e-3  # rounded once


def test_line_stands_where_two_classes_meet_and_nowhere_else() -> None:
    image = np.full((4, 6, 3), 100, np.uint8)
    labels = np.zeros((4, 6), np.uint8)
    labels[:, 3:] = 1
    found = overlay(image, labels, PALETTE, 0.5)
    light = (found == 224).all(2)  # 0.2 × 100 + 0.8 × 255
    assert light.any(0).tolist() == [False, False, False, True, False, False]
    assert light[:, 3].all()
    np.testing.assert_array_equal(found[0, 0], [150, 50, 50])
    np.testing.assert_array_equal(found[0, 5], [50, 125, 50])


def test_line_between_rows() -> None:
    labels = np.repeat(np.array([0, 0, 2, 2], np.uint8)[:, None], 3, 1)
    found = overlay(np.full((4, 3, 3), 100, np.uint8), labels, PALETTE)
    assert (found == 224).all(2).all(1).tolist() == [False, False, True, False]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 8), width=st.integers(1, 8), opacity=st.floats(0, 1))
def test_ignored_pixels_stay_as_they_are(seed: int, height: int, width: int, opacity: float) -> None:
    image = make_image(height, width, seed)
    labels = np.random.default_rng(seed).integers(IGNORE, 3, (height, width)).astype(np.int16)
    before = image.copy()
    found = overlay(image, labels, PALETTE, opacity)
    np.testing.assert_array_equal(image, before)  # drawn on a copy
    assert found.shape == image.shape
    np.testing.assert_array_equal(found[labels < 0], image[labels < 0])


def test_stuff_keeps_its_color_and_things_of_a_class_differ() -> None:
    palette = np.array([[128, 64, 128], [0, 0, 0], [255, 255, 255], [220, 20, 60]], np.uint8)
    classes = np.array([0, *[1, 2, 3] * 100, 0], np.int16)
    colors = segment_colors(classes, palette, np.array([False, True, True, True]))
    assert colors.dtype == np.uint8 and colors.shape == (302, 3)
    assert colors[[0, -1]].tolist() == [[128, 64, 128]] * 2
    for k in (1, 2, 3):
        own = colors[classes == k].astype(int)
        apart = np.abs(own[:, None] - own).max(-1) + 255 * np.eye(100, dtype=int)
        assert apart.min() > 4  # of any two in a hundred
        assert np.diag(apart, 1).min() > 40  # of two that follow each other
        assert np.abs(own - palette[k]).max() <= 96  # still the class's
    np.testing.assert_array_equal(segment_colors(classes[:7], palette, np.ones(4, bool))[1:], colors[1:7])
    assert segment_colors(classes[:0], palette, np.ones(4, bool)).shape == (0, 3)


def test_a_line_stands_between_two_segments_of_one_class() -> None:
    index = np.array([[0, 0, 1, 1, -1]], np.int16)
    colors = segment_colors(np.array([1, 1], np.int16), PALETTE, np.array([False, True, False]))
    found = overlay(np.full((1, 5, 3), 100, np.uint8), index, colors, 1.0)
    assert found[0].tolist() == [colors[0].tolist()] * 2 + [[224] * 3, colors[1].tolist(), [100] * 3]


def test_side_by_side_keeps_the_pictures_apart() -> None:
    left, right = make_image(3, 5), make_image(3, 2, seed=1)
    row = side_by_side(left, right, gap=4)
    assert row.shape == (3, 5 + 4 + 2, 3)
    np.testing.assert_array_equal(row[:, :5], left)
    assert (row[:, 5:9] == 255).all()
    np.testing.assert_array_equal(row[:, 9:], right)
    np.testing.assert_array_equal(side_by_side(left), left)


def test_words_stay_in_their_boxes_and_leave_the_picture_alone() -> None:
    picture = make_image(80, 200)
    before = picture.copy()
    written = write_words(picture, [("car 90%", (5, 10, 120, 40)), ("car 80%", (150, 10, 12, 40))])
    np.testing.assert_array_equal(picture, before)  # drawn on a copy
    rows, columns = np.nonzero((written != picture).any(2))
    assert rows.min() >= 10 and rows.max() < 50
    assert columns.min() >= 5 and columns.max() < 125  # the second one is too narrow for its word
    first_wins = write_words(picture, [("HHHH", (5, 10, 120, 40)), ("iiii", (5, 10, 120, 40))])
    alone = write_words(picture, [("HHHH", (5, 10, 120, 40))])
    light = (alone > 180).all(2) & (picture < 180).any(2)
    assert light.any() and (first_wins[light] > 120).all()
