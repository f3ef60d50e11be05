"""Counts of each image as plain data."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.metrics import ImageRows

# Two classes: hits, predicted, true pixels of each; pixels that are not ignored.
ROWS = ImageRows(("a", "b/c", "empty"), np.array([[3, 0, 4, 1, 4, 1, 6], [0, 2, 0, 2, 0, 2, 2], [0] * 7]))


def test_scores_of_each_image() -> None:
    np.testing.assert_allclose(ROWS.miou, [(3 / 5 + 0) / 2, 1, np.nan])
    assert ROWS.pixels.tolist() == [6, 2, 0]
    hits, found, true = (part.tolist() for part in ROWS.areas)
    assert (hits, found, true) == ([[3, 0], [0, 2], [0, 0]], [[4, 1], [0, 2], [0, 0]], [[4, 1], [0, 2], [0, 0]])


def test_only_classes_that_occur_are_written() -> None:
    assert ROWS.to_list() == [
        {"name": "a", "pixels": 6, "classes": [[0, 3, 4, 4], [1, 0, 1, 1]]},
        {"name": "b/c", "pixels": 2, "classes": [[1, 2, 2, 2]]},
        {"name": "empty", "pixels": 0, "classes": []},
    ]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 4), classes=st.integers(1, 6))
def test_plain_data_come_back(seed: int, count: int, classes: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 3, (count, 3 * classes + 1)) * 10**12
    rows[:, :classes] = rows[:, :-1].reshape(count, 3, classes).min(1)  # no more hits than were predicted or true
    images = ImageRows(tuple(f"image {i}" for i in range(count)), rows)
    back = ImageRows.from_list(json.loads(json.dumps(images.to_list())), classes)
    assert back.names == images.names and back.rows.tolist() == rows.tolist()


@pytest.mark.parametrize(
    "entry",
    [
        {"pixels": 1, "classes": []}, {"name": "x", "classes": []}, {"name": "x", "pixels": 1}, "x", None,
        {"name": "x", "pixels": 1, "classes": [[2, 0, 0, 0]]}, {"name": "x", "pixels": 1, "classes": [[-1, 0, 0, 0]]},
        {"name": "x", "pixels": 9, "classes": [[0, 4, 3, 5]]}, {"name": "x", "pixels": 9, "classes": [[0, -1, 3, 5]]},
        {"name": "x", "pixels": 9, "classes": [[0, 1.5, 3, 5]]},
        {"name": "x", "pixels": 1, "classes": [[0, 1, 2]]}, {"name": "x", "pixels": 1, "classes": [[0, 1]]},
        {"name": "x", "pixels": 10**30, "classes": []}, {"name": "x", "pixels": "many", "classes": []},
        {"name": "x", "pixels": 1, "classes": [["road", 1, 1, 1]]},
    ],
)  # fmt: skip
def test_an_entry_that_is_no_image_is_named(entry: Any) -> None:
    with pytest.raises(ValueError, match=r"file: images\[1\] is not an image's counts"):
        ImageRows.from_list([ROWS.to_list()[0], entry], 2, "file")


def test_images_that_are_no_list() -> None:
    with pytest.raises(ValueError, match="file: key 'images' is not a list"):
        ImageRows.from_list({"a": 1}, 2, "file")
