"""How predictions are drawn beside their targets: colours that agree where segments match, masks of what differs."""

import math

import numpy as np

from panfpn.labels import IGNORE, LabelTable
from panfpn.metrics.layers import label_layers, segment_layers
from panfpn.types import Segments

TABLE = LabelTable.from_dict({
    "name": "toys", "classes": [{"name": "floor", "value": 1}, {"name": "ball", "value": 2, "thing": True},
                                {"name": "sky", "value": 3}],
})  # fmt: skip


def test_labels_by_hand() -> None:
    prediction, target = np.array([[0, 1, 2, 1]], np.uint8), np.array([[0, 2, 2, IGNORE]], np.int16)
    layers = label_layers(prediction, target, TABLE)
    assert layers.prediction.index is prediction and layers.target.index is target
    assert layers.prediction.colors is TABLE.palette and layers.target.colors is TABLE.palette
    assert layers.wrong.tolist() == [[False, True, False, True]]  # what is ignored is drawn over it
    assert layers.ignored.tolist() == [[False, False, False, True]] and not layers.unmatched.any()
    assert layers.wrong_share == 1 / 3
    assert math.isnan(label_layers(prediction, np.full((1, 4), IGNORE), TABLE).wrong_share)


def test_shades_of_matches_agree(toy_segments: tuple[Segments, Segments]) -> None:
    prediction, target = toy_segments
    layers = segment_layers(prediction, target, TABLE)
    index, colors = layers.prediction.index, layers.prediction.colors
    true_index, true_colors = layers.target.index, layers.target.colors
    assert index is prediction.index and true_index is target.index
    np.testing.assert_array_equal(colors[index[20, 10]], true_colors[true_index[20, 10]])  # the ball that matches
    assert len(np.unique(true_colors[1:], axis=0)) == 3
    np.testing.assert_array_equal(colors[index[2, 2]], TABLE.palette[2])


def test_masks_of_segments(toy_segments: tuple[Segments, Segments]) -> None:
    layers = segment_layers(*toy_segments, TABLE)
    assert not layers.wrong[20, 12] and not layers.unmatched[20, 12]
    assert layers.wrong[2, 40] and not layers.wrong[20, 29] and layers.unmatched[20, 29]
    assert layers.ignored[44, 55] and layers.ignored[57].all() and not layers.ignored[:40].any()
    labels, truth = (segments.labels for segments in toy_segments)
    assert layers.wrong_share == (labels != truth)[truth >= 0].mean()
