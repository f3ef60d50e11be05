from dataclasses import replace

import numpy as np
import pytest

from panfpn.labels import IGNORE
from panfpn.models.merge import Mask, MergeRules, merge

SIZE = (20, 30)
RULES = MergeRules(confidence=0.5, overlap=0.5, stuff_area=4096)


def block(top: int, left: int, height: int, width: int) -> Mask:
    return top, left, np.ones((height, width), bool)


def stuff(label: int = 7) -> np.ndarray:
    return np.full(SIZE, label, np.int16)


def test_better_things_win_and_things_win_against_stuff() -> None:
    segments, info = merge([0.9, 0.8], [1, 2], [block(0, 0, 10, 10), block(0, 6, 10, 10)], stuff(),
                           replace(RULES, stuff_area=1))  # fmt: skip
    assert info == [(1, 0), (2, 1), (7, -1)]
    expected = np.full(SIZE, 3)
    expected[:10, 6:16] = 2
    expected[:10, :10] = 1
    np.testing.assert_array_equal(segments, expected)


@pytest.mark.parametrize(("covered", "kept"), [(5, True), (6, False)])
def test_a_thing_that_is_covered_by_more_than_half_is_dropped(covered: int, kept: bool) -> None:
    masks = [block(0, 0, 10, 10), block(0, 10 - covered, 10, 10)]
    _, info = merge([0.9, 0.8], [1, 2], masks, stuff(IGNORE), RULES)
    assert ((2, 1) in info) == kept


def test_what_is_covered_counts_only_pixels_that_are_taken() -> None:
    """The first thing is dropped, so the second is free."""
    masks = [block(0, 0, 10, 10), block(0, 0, 10, 9), block(0, 9, 10, 9)]
    _, info = merge([0.9, 0.8, 0.7], [1, 2, 3], masks, stuff(IGNORE), RULES)
    assert info == [(1, 0), (3, 2)]


def test_unsure_and_empty_things_are_left_out() -> None:
    empty: Mask = (3, 3, np.zeros((4, 4), bool))
    masks = [empty, block(0, 0, 5, 5), block(10, 10, 5, 5)]
    segments, info = merge([0.9, 0.5, 0.49], [1, 1, 1], masks, stuff(IGNORE), RULES)
    assert info == [(1, 1)] and np.count_nonzero(segments) == 25


def test_stuff_needs_its_area_of_free_pixels() -> None:
    semantic = stuff(5)
    semantic[:, 15:] = 3
    rules = replace(RULES, stuff_area=300)
    assert merge([], [], [], semantic, rules)[1] == [(3, -1), (5, -1)]  # rising classes
    _, info = merge([0.9], [1], [block(0, 0, 1, 1)], semantic, rules)
    assert info == [(1, 0), (3, -1)]


def test_what_nothing_claims_is_void() -> None:
    segments, info = merge([], [], [], stuff(IGNORE), replace(RULES, stuff_area=0))
    assert not segments.any() and info == []


def test_rising_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="sort the things"):
        merge([0.5, 0.9], [1, 1], [block(0, 0, 5, 5)] * 2, stuff(), RULES)
