"""The published photometric distortion, drawn and then applied. In: a generator, and an RGB image. Out: that, changed.

mmsegmentation's PhotoMetricDistortion (first in SSD, arXiv 1512.02325), bit by bit the same for the same draws.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
_LEVELS = np.arange(256, dtype=np.uint8)


@dataclass(frozen=True, kw_only=True)
class Colors:
    """One draw of the distortion; None leaves a step out."""

    brightness: float | None = None
    """Is added to every value in 0..255."""
    contrast: float | None = None
    """Factor of every value."""
    contrast_first: bool = False
    """Contrast comes before saturation and hue, else after them."""
    saturation: float | None = None
    """Factor of the saturation."""
    hue: int | None = None
    """Turn of the hue in steps of 2°."""


def draw_colors(rng: np.random.Generator, strength: float = 1.0) -> Colors:
    """Brightness ±32, contrast and saturation 0.5–1.5, hue −18…17 steps, each with p = ½; `strength` scales ranges."""

    def chance() -> bool:
        return bool(rng.integers(2))

    def factor() -> float:
        return float(rng.uniform(1 - 0.5 * strength, 1 + 0.5 * strength))

    steps = round(18 * strength)
    return Colors(
        brightness=float(rng.uniform(-32, 32)) * strength if chance() else None,
        contrast=factor() if chance() else None,
        contrast_first=chance(),
        saturation=factor() if chance() else None,
        hue=int(rng.integers(-steps, max(steps, 1))) if chance() else None,
    )


def distort_colors(image: Image, draw: Colors) -> Image:
    """An image [H, W, C] under a draw; every step rounds to uint8 and goes through HSV by itself, as published."""
    if draw.brightness is not None:
        image = _mapped(image, _scaled(1.0, draw.brightness))
    if draw.contrast is not None and draw.contrast_first:
        image = _mapped(image, _scaled(draw.contrast))
    color = image.shape[2] == 3  # of one band, or of many, there is no hue
    if draw.saturation is not None and color:
        image = _in_hsv(image, (_LEVELS, _scaled(draw.saturation), _LEVELS))
    if draw.hue is not None and color:
        turned = ((np.arange(256) + draw.hue) % 180).astype(np.uint8)  # OpenCV's hue runs from 0 to 179
        image = _in_hsv(image, (turned, _LEVELS, _LEVELS))
    if draw.contrast is not None and not draw.contrast_first:
        image = _mapped(image, _scaled(draw.contrast))
    return image


def _mapped(image: Image, table: Image) -> Image:
    return cv2.LUT(image, table).reshape(image.shape)  # type: ignore[no-any-return]  # OpenCV drops a lone band


def _scaled(alpha: float, beta: float = 0.0) -> Image:
    """Table of clip(value × alpha + beta) cut to uint8, in the float32 that mmsegmentation computes in."""
    table: Image = np.clip(_LEVELS * np.float32(alpha) + np.float32(beta), 0, 255).astype(np.uint8)
    return table


def _in_hsv(image: Image, tables: tuple[Image, Image, Image]) -> Image:
    """The image with a table applied to each of hue, saturation and value."""
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), np.stack(tables, -1)[None])  # tables: [1, 256, 3]
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)  # type: ignore[no-any-return]
