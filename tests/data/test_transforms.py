import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panfpn.data.colors import distort_colors, draw_colors
from panfpn.data.transforms import Geometry, cut, fit_size, padded, resized_image
from panfpn.labels import IGNORE, LabelClass, LabelTable
from panfpn.types import RawMask
from transforming import train_transform


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
    height=st.integers(40, 120), width=st.integers(40, 120), crop=st.integers(32, 90), seed=st.integers(0, 10**6),
    aspect=st.sampled_from([1.0, 1.3]), scale=st.sampled_from([None, (150, 90)]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_image_and_target_stay_together(
    height: int, width: int, crop: int, seed: int, aspect: float, scale: tuple[int, int] | None
) -> None:
    """Pixels carry their coordinates, so the target can be computed from the transformed image."""
    image, target = picture(height, width)
    transform = train_transform(crop=(crop, crop + 9), scale=scale, aspect=aspect, photometric=0.0)
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
    transform = train_transform(crop=(400, 400), ratio=(1.7, 1.7), flip=0.0, photometric=0.0, cat_max_ratio=1.0)
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
            train_transform(**options, cat_max_ratio=limit)(image, target, np.random.default_rng(i))[1]
            for i in range(200)
        ]
        shares[limit] = np.mean([(labels == 0).mean() < 0.75 for labels in draws])
    assert shares[0.75] > 2 * shares[1.0] > 0


@pytest.mark.parametrize(("shape", "scale"), [((1024, 2048), (2048, 1024)), ((683, 512), (2048, 512))])
def test_scaled_size_is_rounded_as_published(shape: tuple[int, int], scale: tuple[int, int]) -> None:
    for ratio in np.random.default_rng(0).uniform(0.5, 2.0, 300):
        # mmcv: RandomResize cuts the scaled scale to integers, rescale_size rounds the sides half up
        long, short = int(scale[0] * ratio), int(scale[1] * ratio)
        factor = min(long / max(shape), short / min(shape))
        transform = train_transform(crop=(512, 512), scale=scale, ratio=(ratio, ratio), cat_max_ratio=1.0)
        geometry = transform.draw_geometry(np.zeros(shape, np.int16), np.random.default_rng(0))
        assert geometry.size == (int(shape[0] * factor + 0.5), int(shape[1] * factor + 0.5))


def test_draws_follow_the_published_distributions() -> None:
    target = np.zeros((512, 1024), np.int16)
    transform = train_transform(crop=(256, 512), scale=(2048, 1024), cat_max_ratio=1.0)
    draws = [transform.draw_geometry(target, np.random.default_rng((3, i))) for i in range(10_000)]
    limit = 1.63 / np.sqrt(len(draws))  # Kolmogorov and Smirnov's, exceeded by 1 of 100 uniform samples
    width = np.array([d.size[1] for d in draws])
    assert distance_from_uniform((width / 2048 - 0.5) / 1.5) < limit
    for side in (0, 1):
        room = np.array([d.size[side] - d.window[2 + side] for d in draws])
        start = np.array([d.window[side] for d in draws])
        assert (start >= 0).all() and (start <= room).all() and (start == room).any() and (start == 0).any()
        # A whole number below room + 1, moved to the middle of its place: uniform over 0…1.
        assert distance_from_uniform((start + 0.5) / (room + 1)) < limit
    assert {d.window[2:] for d in draws} == {(256, 512)}
    assert np.mean([d.flip for d in draws]) == pytest.approx(0.5, abs=0.02)  # four standard deviations
    never, always = (train_transform(crop=(8, 8), flip=p) for p in (0.0, 1.0))
    for i in range(50):
        assert not never.draw_geometry(target, np.random.default_rng(i)).flip
        assert always.draw_geometry(target, np.random.default_rng(i)).flip


def distance_from_uniform(values: np.ndarray) -> float:
    values, grid = np.sort(values), np.arange(len(values) + 1) / len(values)
    return float(max((grid[1:] - values).max(), (values - grid[:-1]).max()))


def test_every_start_is_as_likely() -> None:
    target = np.zeros((40, 50), np.int16)
    transform = train_transform(crop=(16, 24), ratio=(1.0, 1.0), cat_max_ratio=1.0)
    draws = [transform.draw_geometry(target, np.random.default_rng((4, i))) for i in range(10_000)]
    for side, count in ((0, 25), (1, 27)):
        counts = np.bincount([d.window[side] for d in draws], minlength=count)
        assert len(counts) == count
        expected = len(draws) / count
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi_square - (count - 1)) < 4 * np.sqrt(2 * (count - 1))  # four standard deviations


def test_window_is_one_opencv_resize_of_whole_source_pixels() -> None:
    rng = np.random.default_rng(5)
    image, target = rng.integers(0, 256, (90, 120, 3)).astype(np.uint8), rng.integers(-1, 9, (90, 120)).astype(np.int16)
    for size, window in (((135, 180), (31, 44, 64, 96)), ((45, 60), (7, 20, 32, 40)), ((90, 120), (3, 5, 64, 64))):
        top, left = (int(start * source / scaled) for start, source, scaled in
                     zip(window[:2], (90, 120), size, strict=True))  # fmt: skip
        factors = {"fx": size[1] / 120, "fy": size[0] / 90}
        wide = cv2.resize(image[top:, left:], None, **factors, interpolation=cv2.INTER_LINEAR)
        near = cv2.resize(target[top:, left:], None, **factors, interpolation=cv2.INTER_NEAREST)
        out, labels = cut(image, target, Geometry(size=size, window=window))
        assert labels.shape == window[2:]
        assert np.array_equal(labels, near[: window[2], : window[3]])
        difference = np.abs(out.astype(int) - wide[: window[2], : window[3]])
        assert difference[:-2, :-2].max() == 0  # the last rows see no pixel beyond the window
        mirror = cut(image, target, Geometry(size=size, window=window, flip=True))
        assert np.array_equal(mirror[0], out[:, ::-1]) and np.array_equal(mirror[1], labels[:, ::-1])
        for turns in (1, 2, 3):
            turned = cut(image, target, Geometry(size=size, window=window, flip=True, turns=turns))
            for pixels, upright in zip(turned, mirror, strict=True):
                assert np.array_equal(pixels, np.rot90(upright, -turns)) and pixels.flags.c_contiguous


@pytest.mark.parametrize("bands", [1, 3, 40])
def test_crops_are_turned_and_still_fit(bands: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (60, 40, bands)).astype(np.uint8)
    target = np.tile(np.arange(60, dtype=np.int16)[:, None], (1, 40))  # a row, a class
    transform = train_transform(crop=(32, 48), ratio=(1.0, 1.0), photometric=0.0, cat_max_ratio=1.0, rotate90=0.75)
    turns, ways = [], []
    for i in range(400):
        geometry = transform.draw_geometry(target, np.random.default_rng(i))
        out, labels = transform(image, target, np.random.default_rng(i))
        # An upright image is narrower than the crop, a turned one as wide as it.
        assert out.shape == (32, 48 if geometry.turns % 2 else 40, bands) and labels.shape == out.shape[:2]
        steps = np.sign(labels[1, 0] - labels[0, 0]), np.sign(labels[0, 1] - labels[0, 0])
        assert steps == {0: (1, 0), 1: (0, -1), 2: (-1, 0), 3: (0, 1)}[geometry.turns]
        turns.append(geometry.turns)
        ways.append(geometry.flip)
        assert (transform(image, target, np.random.default_rng(i), wanted=3)[1] == 3).any()
    assert np.bincount(turns) == pytest.approx([100] * 4, abs=4 * np.sqrt(75))  # four standard deviations
    assert 160 < sum(ways) < 240
    never = train_transform(crop=(32, 48))
    assert {never.draw_geometry(target, np.random.default_rng(i)).turns for i in range(50)} == {0}


def test_sample_is_its_draws_applied() -> None:
    image, target = picture(60, 80)
    transform = train_transform(crop=(32, 32))
    out, labels = transform(image, target, np.random.default_rng(8))
    rng = np.random.default_rng(8)
    expected, own = cut(image, target, transform.draw_geometry(target, rng))
    assert np.array_equal(labels, own)
    assert np.array_equal(out, distort_colors(expected, draw_colors(rng)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_a_mask_as_stored_gives_the_same_sample_as_its_train_ids(dtype: type) -> None:
    classes = tuple(LabelClass(name=f"c{k}", color=(k, k, k), values=(3 * k + 1,)) for k in range(16))
    table = LabelTable(name="sixteen", classes=classes, ignore=(0,))
    image, target = picture(60, 80)
    mask = RawMask(table.decode(target).astype(dtype), table, "mask.png")
    for seed in range(30):
        transform = train_transform(crop=(32, 32), aspect=1.2, cat_max_ratio=0.4)
        pairs = [transform(image, labels, np.random.default_rng(seed)) for labels in (target, mask)]
        assert np.array_equal(pairs[0][0], pairs[1][0]) and np.array_equal(pairs[0][1], pairs[1][1])


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
