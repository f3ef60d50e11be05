"""The photometric distortion: its draws against the published distributions, its pixels against plain OpenCV."""

import cv2
import numpy as np
import pytest

from panfpn.data.colors import Colors, distort_colors, draw_colors

DRAWS = [draw_colors(np.random.default_rng((0, i))) for i in range(10_000)]
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 80, 3)).astype(np.uint8)
IMAGE[:8] = np.arange(80, dtype=np.uint8)[None, :, None] * 3  # greys have no hue
IMAGE[8:12] = (0, 0, 0)
IMAGE[12:16] = (255, 0, 0)


def chi_square(counts: np.ndarray) -> float:
    """In standard deviations from its mean, were all values equally frequent."""
    expected = counts.sum() / len(counts)
    return float((((counts - expected) ** 2 / expected).sum() - (len(counts) - 1)) / np.sqrt(2 * (len(counts) - 1)))


def distance_from_uniform(values: np.ndarray, low: float, high: float) -> float:
    """Kolmogorov–Smirnov's distance times √n; 1.63 is exceeded by 1 of 100 samples of the uniform distribution."""
    values = np.sort((values - low) / (high - low))
    assert values[0] >= 0 and values[-1] <= 1
    grid = np.arange(len(values) + 1) / len(values)
    return float(max((grid[1:] - values).max(), (values - grid[:-1]).max()) * np.sqrt(len(values)))


def test_branches_are_independent_halves() -> None:
    kinds = [
        (d.brightness is None, d.contrast is None, d.contrast_first, d.saturation is None, d.hue is None) for d in DRAWS
    ]
    counts = np.bincount([int(np.dot(kind, (1, 2, 4, 8, 16))) for kind in kinds], minlength=32)
    assert abs(chi_square(counts)) < 4
    assert np.mean(kinds, axis=0) == pytest.approx([0.5] * 5, abs=0.02)  # four standard deviations


@pytest.mark.parametrize(
    ("name", "low", "high"), [("brightness", -32, 32), ("contrast", 0.5, 1.5), ("saturation", 0.5, 1.5)]
)
def test_amounts_are_uniform_over_the_published_range(name: str, low: float, high: float) -> None:
    values = np.array([v for d in DRAWS if (v := getattr(d, name)) is not None])
    assert distance_from_uniform(values, low, high) < 1.63


def test_hue_is_each_of_36_steps() -> None:
    values = np.array([d.hue for d in DRAWS if d.hue is not None])
    assert sorted(set(values.tolist())) == list(range(-18, 18))  # numpy's randint(-18, 18)
    assert abs(chi_square(np.bincount(values + 18))) < 4


def test_strength_scales_the_ranges() -> None:
    draws = [draw_colors(np.random.default_rng((1, i)), 0.5) for i in range(4000)]
    for name, low, high in (("brightness", -16, 16), ("contrast", 0.75, 1.25), ("saturation", 0.75, 1.25)):
        values = np.array([v for d in draws if (v := getattr(d, name)) is not None])
        assert distance_from_uniform(values, low, high) < 1.63
    assert {d.hue for d in draws} == {None, *range(-9, 9)}
    assert {draw_colors(np.random.default_rng(i), 0.01).hue for i in range(50)} == {None, 0}


def published(image: np.ndarray, draw: Colors) -> np.ndarray:
    """What mmsegmentation does, in its BGR and float32, by OpenCV's and numpy's own calls."""

    def scaled(pixels: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        return np.clip(pixels.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)

    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if draw.brightness is not None:
        image = scaled(image, beta=draw.brightness)
    if draw.contrast is not None and draw.contrast_first:
        image = scaled(image, alpha=draw.contrast)
    if draw.saturation is not None:
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[:, :, 1] = scaled(hsv[:, :, 1], alpha=draw.saturation)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if draw.hue is not None:
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[:, :, 0] = (hsv[:, :, 0].astype(int) + draw.hue) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if draw.contrast is not None and not draw.contrast_first:
        image = scaled(image, alpha=draw.contrast)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


SINGLE = [
    Colors(brightness=-31.3), Colors(brightness=17.9), Colors(contrast=0.513), Colors(contrast=1.487),
    Colors(saturation=0.5), Colors(saturation=1.4999), Colors(hue=-18), Colors(hue=17), Colors(hue=0),
]  # fmt: skip


@pytest.mark.parametrize("draw", SINGLE)
def test_each_step_equals_plain_opencv(draw: Colors) -> None:
    out = distort_colors(IMAGE, draw)
    assert np.array_equal(out, published(IMAGE, draw))
    assert not np.array_equal(out, IMAGE)  # hue 0 too: the way through HSV rounds


def test_steps_together_equal_plain_opencv_and_keep_the_input() -> None:
    before = IMAGE.copy()
    for draw in DRAWS[:200]:
        assert np.array_equal(distort_colors(IMAGE, draw), published(IMAGE, draw)), draw
    assert np.array_equal(IMAGE, before)
    assert distort_colors(IMAGE, Colors(contrast_first=True)) is IMAGE


def test_order_of_contrast_matters() -> None:
    first, last = (distort_colors(IMAGE, Colors(contrast=1.4, contrast_first=f, saturation=1.4)) for f in (True, False))
    assert not np.array_equal(first, last)


def test_part_of_an_image_in_memory() -> None:
    """A crop is a view of the scaled image: rows do not follow one another in memory."""
    draw = Colors(brightness=5.0, saturation=1.3, hue=7)
    part = IMAGE[3:40, 5:60]
    assert np.array_equal(distort_colors(part, draw), published(part.copy(), draw))
