"""The published training pipeline with geometry first. In: an image and its target. Out: a crop of both.

All draws are made on sizes; the pixels of the needed window are then read and resized once. A target may be a RawMask,
of which so only the windows that are looked at are translated. Distributions: mmsegmentation's RandomResize, RandomCrop
(0.75 rule), RandomFlip (colors.py has its PhotoMetricDistortion), and turns by quarters.
"""

from dataclasses import dataclass
from typing import TypeVar, overload

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.data.colors import Image, distort_colors, draw_colors
from panfpn.labels import IGNORE
from panfpn.types import RawMask, Segments

Target = npt.NDArray[np.int16]
_Pixel = TypeVar("_Pixel", bound=np.generic)
_TRIES = 10


def fit_size(height: int, width: int, scale: tuple[float, float] | None) -> tuple[int, int]:
    """Height and width of an image fitted into `scale` (longer, shorter side), ratio kept, rounded as mmcv does."""
    if scale is None:
        return height, width
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Which part of an image a sample shows, and how large."""

    size: tuple[int, int]
    """Height and width of the scaled image."""
    window: tuple[int, int, int, int]
    """Top, left, height and width of the crop in the scaled image."""
    flip: bool = False
    """Whether the crop is mirrored."""
    turns: int = 0
    """By how many quarters, clockwise, it is turned after that."""


@dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """Random scale, crop, mirror, turn and colours, drawn from one generator per sample; config.Data has the defaults.

    `crop` is (height, width), or None for the whole scaled image; `scale` (longer, shorter side) or None for the
    image's own size; `ratio` the range of the random factor; `short_sides` the shorter sides to draw from in its place,
    with the longer at most that of `scale`; `aspect` the largest random stretch; `cat_max_ratio` the share of a crop
    that one class may fill (1: any); `flip` the probability of a mirror image; `rotate90` of a turn by one to three
    quarters; `photometric` the strength of the colour distortion.
    """

    crop: tuple[int, int] | None
    scale: tuple[int, int] | None
    ratio: tuple[float, float]
    short_sides: tuple[int, ...]
    aspect: float
    cat_max_ratio: float
    flip: float
    rotate90: float
    photometric: float

    @overload
    def __call__(
        self, image: Image, target: Segments, rng: np.random.Generator, wanted: int | None = None
    ) -> tuple[Image, Segments]: ...
    @overload
    def __call__(
        self, image: Image, target: Target | RawMask, rng: np.random.Generator, wanted: int | None = None
    ) -> tuple[Image, Target]: ...

    def __call__(
        self, image: Image, target: Target | RawMask | Segments, rng: np.random.Generator, wanted: int | None = None
    ) -> tuple[Image, Target | Segments]:
        """A crop [h, w, C] of the image and [h, w] of its train ids or segments, in one geometry for either.

        Smaller than `crop` if the scaled image is. With a train id that is `wanted`, it shows one of its pixels.
        """
        image, shown = cut(image, target, self.draw_geometry(target, rng, wanted))
        return self.recolored(image, rng), shown

    def recolored(self, image: Image, rng: np.random.Generator) -> Image:
        """The image in other colours, where they are to be distorted."""
        return distort_colors(image, draw_colors(rng, self.photometric)) if self.photometric else image

    def draw_geometry(
        self, target: Target | RawMask | Segments, rng: np.random.Generator, wanted: int | None = None
    ) -> Geometry:
        """Scale, crop, mirror and turn for an image with this target [H, W], which the 0.75 rule looks at.

        Where a train id is `wanted` and there, the crop shows one of its pixels; which, and where in it, is drawn.
        """
        height, width = target.shape
        turns = int(rng.integers(1, 4)) if self.rotate90 and rng.uniform() < self.rotate90 else 0
        size = self._draw_size(height, width, rng)
        crop = size if self.crop is None else self.crop[::-1] if turns % 2 else self.crop
        place = None if wanted is None or self.crop is None else _pixel_of(target, wanted, rng)
        window = (
            self._draw_window(target, size, crop, rng)
            if place is None
            else _around(place, target.shape, size, crop, rng)
        )
        return Geometry(size=size, window=window, flip=bool(rng.uniform() < self.flip), turns=turns)

    def _draw_size(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        if self.short_sides:
            assert self.scale is not None, "config.Data sees to it"
            short = self.short_sides[int(rng.integers(len(self.short_sides)))]
            # The longer side of the two is the limit: where `short` is above it, it binds first.
            height, width = fit_size(height, width, (max(self.scale), min(short, max(self.scale))))
        else:
            ratio = rng.uniform(*self.ratio)
            long, short = self.scale or (max(height, width), min(height, width))
            height, width = fit_size(height, width, (max(1, int(long * ratio)), max(1, int(short * ratio))))
        if self.aspect > 1:
            stretch = self.aspect ** rng.uniform(-0.5, 0.5)
            height, width = max(1, int(height / stretch + 0.5)), max(1, int(width * stretch + 0.5))
        return height, width

    def _draw_window(
        self, target: Target | RawMask | Segments, size: tuple[int, int], crop: tuple[int, int],
        rng: np.random.Generator,
    ) -> tuple[int, int, int, int]:  # fmt: skip
        """Top, left, height, width in the scaled image; drawn again while one class fills too much of it."""
        if self.crop is None:
            return 0, 0, *size
        height, width = (min(c, s) for c, s in zip(crop, size, strict=True))
        for attempt in range(_TRIES + 1):
            top = int(rng.integers(0, size[0] - height + 1))
            left = int(rng.integers(0, size[1] - width + 1))
            window = (top, left, height, width)
            if self.cat_max_ratio == 1 or attempt == _TRIES:
                break
            rows, cols = source_window(target.shape, size, window)
            counts = np.bincount((target[rows, cols] + 1).ravel())[1:]  # IGNORE = -1 is left out
            if np.count_nonzero(counts) > 1 and counts.max() < self.cat_max_ratio * counts.sum():
                break
        return window


def _around(
    place: tuple[int, int], shape: tuple[int, ...], size: tuple[int, int], crop: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:  # fmt: skip
    """A window of the scaled image that shows a pixel (row, column) of the source image of `shape`."""
    starts, lengths = [], []
    for at, source, scaled, most in zip(place, shape, size, crop, strict=False):
        length, pixel = min(most, scaled), min(int((at + 0.5) * scaled / source), scaled - 1)
        starts.append(int(rng.integers(max(0, pixel - length + 1), min(pixel, scaled - length) + 1)))
        lengths.append(length)
    return starts[0], starts[1], lengths[0], lengths[1]


def _pixel_of(target: Target | RawMask | Segments, train_id: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """Row and column of a pixel of a class, drawn among all; None if there is none."""
    places = np.flatnonzero((target.labels if isinstance(target, Segments) else target[:, :]) == train_id)
    return divmod(int(rng.choice(places)), target.shape[1]) if len(places) else None


def source_window(
    shape: tuple[int, ...], size: tuple[int, int], window: tuple[int, int, int, int]
) -> tuple[slice, slice]:
    """The part of the source image of `shape` that a window of the scaled image of `size` shows, on whole pixels."""
    slices = []
    for source, scaled, start, length in zip(shape, size, window[:2], window[2:], strict=False):
        step = source / scaled
        first = min(int(start * step), source - 1)
        slices.append(slice(first, min(source, first + int(np.ceil(length * step)) + 2)))
    return slices[0], slices[1]


@overload
def cut(image: Image, target: Segments, geometry: Geometry) -> tuple[Image, Segments]: ...
@overload
def cut(image: Image, target: Target | RawMask, geometry: Geometry) -> tuple[Image, Target]: ...


def cut(image: Image, target: Target | RawMask | Segments, geometry: Geometry) -> tuple[Image, Target | Segments]:
    """The part of image and target that a geometry shows, resized once (image bilinear, target nearest).

    Segments that it does not show are left out.
    """
    window, size = geometry.window, geometry.size
    image = image[source_window(target.shape, size, window)]
    if size != target.shape:
        factors = {"fx": size[1] / target.shape[1], "fy": size[0] / target.shape[0]}
        image = _with_bands(cv2.resize(image, None, **factors, interpolation=cv2.INTER_LINEAR))
    # A window that ends at the border may come out a pixel short of its rounded size: it is cut off there.
    image = image[: window[2], : window[3]]
    ids = cut_map(target.index if isinstance(target, Segments) else target, geometry)
    return _posed(image, geometry), _shown(target, ids) if isinstance(target, Segments) else ids


def cut_map(target: Target | RawMask, geometry: Geometry) -> Target:
    """The part of a map [H, W] that a geometry shows, by nearest neighbours: what `cut` does to its target."""
    (height, width), size, window = target.shape, geometry.size, geometry.window
    ids = target[source_window(target.shape, size, window)]
    if size != (height, width):
        ids = cv2.resize(ids, None, fx=size[1] / width, fy=size[0] / height, interpolation=cv2.INTER_NEAREST)
    return _posed(ids[: window[2], : window[3]], geometry)


def _posed(pixels: npt.NDArray[_Pixel], geometry: Geometry) -> npt.NDArray[_Pixel]:
    """A crop [h, w, …] mirrored and turned."""
    if geometry.flip:  # OpenCV drops a lone band
        pixels = cv2.flip(pixels, 1).reshape(pixels.shape)
    return np.ascontiguousarray(np.rot90(pixels, -geometry.turns)) if geometry.turns else pixels


def _shown(segments: Segments, index: Target) -> Segments:
    """The segments that `index` still has, numbered anew."""
    visible = np.bincount((index + 1).ravel(), minlength=len(segments.ids) + 1)[1:] > 0  # IGNORE = -1 is left out
    if not visible.all():
        number = np.append(np.cumsum(visible) - 1, IGNORE).astype(np.int16)  # IGNORE is -1: the last entry
        index = number[index]
    return Segments(
        index=index, classes=segments.classes[visible], crowd=segments.crowd[visible], ids=segments.ids[visible]
    )


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
    return _with_bands(cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR))


def _with_bands(image: Image) -> Image:
    """The image as [H, W, C]: OpenCV drops a lone band."""
    return image if image.ndim == 3 else image[:, :, None]
