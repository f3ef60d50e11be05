"""The published training pipeline with geometry first. In: an image and its raw mask. Out: a crop of both.

All draws are made on sizes; the pixels of the needed window are then resized once. Distributions:
mmsegmentation's RandomResize, RandomCrop (0.75 rule), RandomFlip and PhotoMetricDistortion.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.labels import IGNORE

Image = npt.NDArray[np.uint8]
Target = npt.NDArray[np.int16]
_TRIES = 10


def fit_size(height: int, width: int, scale: tuple[float, float] | None) -> tuple[int, int]:
    """Height and width of an image fitted into `scale` (longer, shorter side), ratio kept, rounded as mmcv does."""
    if scale is None:
        return height, width
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


@dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """Random scale, crop, mirror and colours, all drawn from one generator per sample.

    `crop` is (height, width); `scale` (longer, shorter side) or None for the image's own size; `ratio` the range of the
    random factor; `aspect` the largest random stretch; `photometric` the strength of the colour distortion.
    """

    crop: tuple[int, int]
    scale: tuple[int, int] | None = None
    ratio: tuple[float, float] = (0.5, 2.0)
    aspect: float = 1.0
    cat_max_ratio: float = 0.75
    flip: float = 0.5
    photometric: float = 1.0

    def __call__(self, image: Image, target: Target, rng: np.random.Generator) -> tuple[Image, Target]:
        """A crop [h, w, 3] of the image and [h, w] of its train ids; smaller than `crop` if the scaled image is."""
        height, width = target.shape
        size = self._draw_size(height, width, rng)
        window = self._draw_window(target, size, rng)
        image, target = _resized_window(image, target, size, window)
        if rng.uniform() < self.flip:
            image, target = image[:, ::-1], target[:, ::-1]
        if self.photometric:
            image = distort_colors(np.ascontiguousarray(image), rng, self.photometric)
        return image, target

    def _draw_size(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        ratio = rng.uniform(*self.ratio)
        long, short = self.scale or (max(height, width), min(height, width))
        height, width = fit_size(height, width, (int(long * ratio), int(short * ratio)))
        if self.aspect > 1:
            stretch = self.aspect ** rng.uniform(-0.5, 0.5)
            height, width = max(1, int(height / stretch + 0.5)), max(1, int(width * stretch + 0.5))
        return height, width

    def _draw_window(
        self, target: Target, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """Top, left, height, width in the scaled image; drawn again while one class fills too much of it."""
        height, width = (min(c, s) for c, s in zip(self.crop, size, strict=True))
        for attempt in range(_TRIES + 1):
            top = int(rng.integers(0, size[0] - height + 1))
            left = int(rng.integers(0, size[1] - width + 1))
            window = (top, left, height, width)
            if self.cat_max_ratio == 1 or attempt == _TRIES:
                break
            rows, cols = _source_window(target.shape, size, window)
            counts = np.bincount((target[rows, cols] + 1).ravel())[1:]  # IGNORE = -1 is left out
            if np.count_nonzero(counts) > 1 and counts.max() < self.cat_max_ratio * counts.sum():
                break
        return window


def _source_window(
    shape: tuple[int, ...], size: tuple[int, int], window: tuple[int, int, int, int]
) -> tuple[slice, slice]:
    """The part of the source image of `shape` that a window of the scaled image of `size` shows, on whole pixels."""
    slices = []
    for source, scaled, start, length in zip(shape, size, window[:2], window[2:], strict=False):
        step = source / scaled
        first = min(int(start * step), source - 1)
        slices.append(slice(first, min(source, first + int(np.ceil(length * step)) + 2)))
    return slices[0], slices[1]


def _resized_window(
    image: Image, target: Target, size: tuple[int, int], window: tuple[int, int, int, int]
) -> tuple[Image, Target]:
    height, width = target.shape
    rows, cols = _source_window(target.shape, size, window)
    image, target = image[rows, cols], target[rows, cols]
    if size != (height, width):
        factors = {"fx": size[1] / width, "fy": size[0] / height}
        image = cv2.resize(image, None, **factors, interpolation=cv2.INTER_LINEAR)
        target = cv2.resize(target, None, **factors, interpolation=cv2.INTER_NEAREST)
    # A window that ends at the border may come out a pixel short of its rounded size: it is cut off there.
    return image[: window[2], : window[3]], target[: window[2], : window[3]]


def distort_colors(image: Image, rng: np.random.Generator, strength: float = 1.0) -> Image:
    """PhotoMetricDistortion of RGB [H, W, 3]: brightness ±32, contrast, saturation 0.5–1.5, hue ±18, each with p = ½.

    `strength` scales the ranges. Every step rounds to uint8 as mmsegmentation's does.
    """

    def chance() -> bool:
        return bool(rng.integers(2))

    def factor() -> float:
        return float(rng.uniform(1 - 0.5 * strength, 1 + 0.5 * strength))

    if chance():
        image = _scaled(image, 1, rng.uniform(-32, 32) * strength)
    contrast_first = chance()
    if contrast_first and chance():
        image = _scaled(image, factor())
    saturate, turn = chance(), chance()
    if saturate or turn:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        if saturate:
            hsv[:, :, 1] = _scaled(hsv[:, :, 1], factor())
        if turn:
            hue = round(18 * strength)
            hsv[:, :, 0] = (hsv[:, :, 0].astype(np.int16) + int(rng.integers(-hue, max(hue, 1 - hue)))) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if not contrast_first and chance():
        image = _scaled(image, factor())
    return image


def _scaled(image: Image, alpha: float, beta: float = 0.0) -> Image:
    """clip(image × alpha + beta) cut to uint8, by a table of the 256 possible values."""
    table = np.clip(np.arange(256, dtype=np.float32) * np.float32(alpha) + np.float32(beta), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table)  # type: ignore[no-any-return]


def padded(image: Image, target: Target, size: tuple[int, int]) -> tuple[Image, Target]:
    """Both grown to `size` on the right and below: the image with 0, the target with IGNORE."""
    down, right = (max(0, want - have) for want, have in zip(size, target.shape, strict=True))
    if not down and not right:
        return image, target
    image = np.pad(image, ((0, down), (0, right), (0, 0)))
    return image, np.pad(target, ((0, down), (0, right)), constant_values=IGNORE)


def resized_image(image: Image, size: tuple[int, int]) -> Image:
    """The whole image at (height, width), bilinear as OpenCV does it; the same object if it has that size."""
    if image.shape[:2] == size:
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)  # type: ignore[no-any-return]
