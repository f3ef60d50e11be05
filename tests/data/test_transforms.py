import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.data.transforms import TrainTransform, distort_colors, fit_size, padded, resized_image
from panfpn.labels import IGNORE


def picture(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An image whose channels hold its own coordinates, and a target that is a function of them."""
    rows, cols = np.mgrid[:height, :width]
    image = np.stack([rows * 255 / height, cols * 255 / width, np.full_like(rows, 77)], -1).astype(np.uint8)
    target = ((rows * 4 // height) * 4 + cols * 4 // width).astype(np.int16)
    target[np.random.default_rng(seed).uniform(size=target.shape) < 0.05] = IGNORE
    return image, target


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [((512, 683), (2048, 512), (512, 683)), ((1200, 1600), (2048, 512), (512, 683)),
     ((1024, 2048), (2048, 1024), (1024, 2048)), ((100, 3000), (2048, 512), (68, 2048)),
     ((360, 480), None, (360, 480))],
)  # fmt: skip
def test_fit_size_as_published(size: tuple[int, int], scale: tuple[int, int] | None, expected: tuple[int, int]) -> None:
    assert fit_size(*size, scale) == expected


@given(
    height=st.integers(20, 120), width=st.integers(20, 120), crop=st.integers(16, 90), seed=st.integers(0, 10**6),
    aspect=st.sampled_from([1.0, 1.3]), scale=st.sampled_from([None, (150, 90)]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_image_and_target_stay_together(
    height: int, width: int, crop: int, seed: int, aspect: float, scale: tuple[int, int] | None
) -> None:
    """Pixels carry their coordinates, so the target can be computed from the transformed image."""
    image, target = picture(height, width)
    transform = TrainTransform(crop=(crop, crop + 9), scale=scale, aspect=aspect, photometric=0.0)
    out, labels = transform(image, target, np.random.default_rng(seed))
    assert out.shape[:2] == labels.shape and labels.shape[0] <= crop and labels.shape[1] <= crop + 9
    assert min(labels.shape) >= 1 and labels.dtype == np.int16 and out.dtype == np.uint8
    own = (out[:, :, 0].astype(float) * 4 / 255).astype(int).clip(0, 3) * 4 + (
        out[:, :, 1].astype(float) * 4 / 255
    ).astype(int).clip(0, 3)
    known = labels != IGNORE
    assert (own == labels)[
        known
    ].mean() > 0.6  # borders of the 16 cells move by a pixel; a shift or a swap would give ~0


def test_one_resize_of_the_window_is_opencvs() -> None:
    image, target = picture(60, 80)
    image = np.random.default_rng(0).integers(0, 256, image.shape).astype(np.uint8)
    transform = TrainTransform(crop=(400, 400), ratio=(1.7, 1.7), flip=0.0, photometric=0.0, cat_max_ratio=1.0)
    out, labels = transform(image, target, np.random.default_rng(0))
    height, width = fit_size(60, 80, (int(80 * 1.7), int(60 * 1.7)))
    assert labels.shape == (height, width)
    whole = cv2.resize(image, None, fx=width / 80, fy=height / 60, interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(out, whole[:height, :width])
    nearest = cv2.resize(target, None, fx=width / 80, fy=height / 60, interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(labels, nearest[:height, :width])


def test_a_crop_shows_more_than_one_class_where_it_can() -> None:
    target = np.zeros((200, 200), np.int16)
    target[80:120, 80:120] = 1
    image = np.zeros((200, 200, 3), np.uint8)
    options = {"crop": (64, 64), "ratio": (1.0, 1.0), "flip": 0.0, "photometric": 0.0}
    shares = {}
    for limit in (0.75, 1.0):
        draws = [
            TrainTransform(**options, cat_max_ratio=limit)(image, target, np.random.default_rng(i))[1]
            for i in range(200)
        ]
        shares[limit] = np.mean([(labels == 0).mean() < 0.75 for labels in draws])
    assert shares[0.75] > 2 * shares[1.0] > 0


def test_draws_follow_the_published_distributions() -> None:
    image, target = picture(64, 64)
    transform = TrainTransform(crop=(16, 16), photometric=0.0, cat_max_ratio=1.0)
    heights = [transform._draw_size(64, 64, np.random.default_rng(i))[0] for i in range(4000)]
    assert np.mean(heights) == pytest.approx(64 * 1.25, rel=0.02)
    assert min(heights) < 34 and max(heights) > 126
    flips = [
        transform(image, target, np.random.default_rng((1, i)))[0][0, :, 1].astype(int) for i in range(1000)
    ]  # the second channel grows to the right, unless mirrored
    assert np.mean([f[-1] < f[0] for f in flips]) == pytest.approx(0.5, abs=0.06)


def test_color_distortion_branches() -> None:
    image = np.random.default_rng(0).integers(60, 200, (16, 16, 3)).astype(np.uint8)
    out = [distort_colors(image, np.random.default_rng(i)) for i in range(2000)]
    unchanged = np.mean([np.array_equal(o, image) for o in out])
    assert unchanged == pytest.approx(1 / 16, abs=0.02)  # four independent branches, each left out half of the time
    assert np.mean([o.mean() for o in out]) == pytest.approx(image.mean(), rel=0.03)
    assert image.min() >= 60  # the input itself is never written to
    assert all(np.array_equal(distort_colors(image, np.random.default_rng(i)), out[i]) for i in range(5))


def test_padding_is_right_and_below() -> None:
    image, target = picture(5, 7)
    big, labels = padded(image, target, (8, 9))
    assert big.shape == (8, 9, 3) and labels.shape == (8, 9)
    assert np.array_equal(big[:5, :7], image) and (big[5:] == 0).all() and (big[:, 7:] == 0).all()
    assert (labels[5:] == IGNORE).all() and (labels[:, 7:] == IGNORE).all()
    assert padded(image, target, (5, 6))[0] is image


def test_resized_image() -> None:
    image, _ = picture(10, 20)
    assert resized_image(image, (10, 20)) is image
    assert resized_image(image, (5, 10)).shape == (5, 10, 3)
