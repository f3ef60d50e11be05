"""Pictures of a report: small, and errors in the colours that the page names."""

import base64

import numpy as np

from panfpn.data.images import decode_image
from panfpn.labels import IGNORE, LabelTable
from panfpn.metrics.layers import label_layers, segment_layers
from panfpn.report.pictures import pictures
from panfpn.types import Segments

TABLE = LabelTable.from_dict({
    "name": "toys", "classes": [{"name": "floor", "value": 1}, {"name": "ball", "value": 2, "thing": True},
                                {"name": "sky", "value": 3}],
})  # fmt: skip


def decode(uri: str) -> np.ndarray:
    return decode_image(base64.b64decode(uri.partition(",")[2]))


def test_large_images_are_drawn_small() -> None:
    rng = np.random.default_rng(0)
    size = 1024, 2048
    target, labels = rng.integers(IGNORE, 3, size).astype(np.int16), rng.integers(0, 3, size).astype(np.uint8)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    for uri in pictures(image, label_layers(labels, target, TABLE), 12).values():
        assert decode(uri).shape == (320, 640, 3)
        assert len(uri) < 60_000  # 48 such pictures are a page of 3 MB


def test_errors_are_red_and_ignored_pixels_dark() -> None:
    target = np.zeros((64, 96), np.int16)
    target[:, 32:64] = IGNORE
    labels = np.zeros((64, 96), np.uint8)
    labels[:, 64:] = 1
    drawn = pictures(np.full((64, 96, 3), 128, np.uint8), label_layers(labels, target, TABLE), 1)
    assert list(drawn) == ["image", "truth", "prediction", "errors"]
    errors = decode(drawn["errors"]).astype(int)
    right, ignored, wrong = (errors[8:56, x + 8 : x + 24].mean((0, 1)) for x in (0, 32, 64))
    assert np.ptp(right) < 6 and right.mean() > 150
    assert ignored.max() < 45
    assert wrong[0] > 180 and wrong[1:].max() < 90


def test_segments_that_match_nothing_are_orange(toy_segments: tuple[Segments, Segments]) -> None:
    drawn = pictures(np.full((60, 80, 3), 128, np.uint8), segment_layers(*toy_segments, TABLE), 1)
    errors = decode(drawn["errors"]).astype(int)
    right, wrong, unmatched = errors[20, 12], errors[2, 40], errors[20, 29]
    assert np.ptp(right) < 12 and right.mean() > 150
    assert wrong[0] > 180 and wrong[1:].max() < 90
    assert unmatched[0] > 180 and unmatched[1] > 120 and unmatched[2] < 90
    assert errors[44:47, 55:65].max() < 45 and errors[57:].max() < 60  # crowd and void
