"""What tells images with a ground and a sky from those of no direction."""

import cv2
import numpy as np
import pytest

from panfpn.planning.orientation import Orientation


def layout(kind: str, count: int, bands: int = 3) -> float:
    """Of noise with round spots: anywhere, more of them below, or anywhere with the light from above."""
    rng, orientation = np.random.default_rng(7), Orientation(2)
    for _ in range(count):
        height, width = rng.integers(90, 140, 2)
        labels = np.zeros((height, width), np.int16)
        for _ in range(12):
            down = np.sqrt(rng.uniform()) if kind == "ground" else rng.uniform()
            cv2.circle(labels, (int(width * rng.uniform()), int(height * down)), 8, 1, -1)
        image = rng.integers(60, 120, (height, width, bands)) + 90 * labels[:, :, None]
        labels[:5, :5] = -1
        image = image + (np.linspace(40, 0, height)[:, None, None] if kind == "sky" else 0)
        orientation.add(image.astype(np.uint8), labels)
    return orientation.turned()


@pytest.mark.parametrize("bands", [1, 3, 20])
def test_up_and_down_are_seen(bands: int) -> None:
    assert 0.5 < layout("anywhere", 100, bands) < 1.4
    assert layout("ground", 100, bands) > 2
    assert layout("sky", 100, bands) > 2


def test_few_images_say_nothing() -> None:
    assert layout("ground", 29) == 0 < layout("ground", 30)
