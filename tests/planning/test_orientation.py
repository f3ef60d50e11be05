"""What tells images with a ground and a sky from those of no direction."""

import cv2
import numpy as np
import pytest

from panfpn.planning.orientation import Orientation


def layout(kind: str, count: int, bands: int = 3) -> float:
    """Of noise with round spots: anywhere, more of them below or at the left, or with light from above or the left."""
    rng, orientation = np.random.default_rng(7), Orientation(2, count)
    for _ in range(count):
        height, width = rng.integers(90, 140, 2)
        labels = np.zeros((height, width), np.int16)
        for _ in range(12):
            down, right = rng.uniform(size=2)
            down, right = np.sqrt(down) if kind == "ground" else down, right**2 if kind == "edge" else right
            cv2.circle(labels, (int(width * right), int(height * down)), 8, 1, -1)
        image = rng.integers(60, 120, (height, width, bands)) + 90 * labels[:, :, None]
        labels[:5, :5] = -1
        light = {"sky": np.linspace(40, 0, height)[:, None], "lamp": np.linspace(40, 0, width)[None]}.get(kind)
        image = image if light is None else image + light[:, :, None]
        orientation.add(image.astype(np.uint8), labels)
    return orientation.turned()


@pytest.mark.parametrize("bands", [1, 3, 20])
def test_no_direction_is_seen_where_there_is_none(bands: int) -> None:
    assert 0.5 < layout("anywhere", 100, bands) < 1.4


@pytest.mark.parametrize("kind", ["ground", "sky", "edge", "lamp"])
def test_a_direction_is_seen(kind: str) -> None:
    assert layout(kind, 100) > 2


def test_a_film_of_a_few_views_has_no_direction_by_chance() -> None:
    rng = np.random.default_rng(3)
    views = [rng.integers(0, 255, (6, 6, 3)).repeat(20, 0).repeat(20, 1).astype(np.uint8) for _ in range(40)]
    orientation = Orientation(2, 200)
    for view in views:
        for _ in range(5):
            orientation.add(view, (view[:, :, 0] > 180).astype(np.int16))
    assert 0.5 < orientation.turned() < 1.5


def test_few_images_say_nothing() -> None:
    assert layout("ground", 49) == 0 < layout("ground", 50)


def test_odd_images_are_no_trouble() -> None:
    orientation = Orientation(3, 60)
    for i in range(60):
        shape = ((1, 1), (1, 900), (64, 3), (33, 70))[i % 4]
        orientation.add(np.full((*shape, 2), i, np.uint8), np.full(shape, -1 if i % 3 else 2, np.int16))
    assert orientation.turned() < 1.5
