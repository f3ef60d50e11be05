"""Label maps made visible. In: train ids or segments, and a palette; out: RGB pictures."""

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

_SHADES = 96  # by how much the shades of one class may differ, in each of R, G, B
# Multiples of these, modulo 1, fill a cube evenly however many are taken (Roberts 2018, R3): g⁻¹, g⁻², g⁻³, g⁴ = g + 1.
_STEPS = 1.2207440846057596 ** -np.arange(1.0, 4.0)


def colorize(labels: npt.NDArray[np.integer], palette: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """RGB uint8 [H, W, 3] of train ids [H, W]; IGNORE is black."""
    colors = np.concatenate([palette, np.zeros((1, 3), np.uint8)])  # IGNORE = -1 reaches the last row
    return np.asarray(colors[labels], np.uint8)


def segment_colors(
    classes: npt.NDArray[np.integer], palette: npt.NDArray[np.uint8], things: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    """RGB uint8 [N, 3] of segments with train ids [N]: stuff as in `palette` [K, 3], every thing in a shade of its own.

    `things` [K] says which classes have shades; the shade depends on how many segments of the class stand before it.
    """
    colors = np.asarray(palette[classes])  # [N, 3]
    for k in np.unique(classes):
        if things[k]:
            same = np.flatnonzero(classes == k)
            offsets = (0.5 + np.outer(np.arange(len(same)), _STEPS)) % 1 - 0.5  # [n, 3] -0.5..0.5, the first 0
            middle = palette[k].clip(_SHADES // 2, 255 - _SHADES // 2)  # so that no shade is cut off into another
            colors[same] = np.rint(middle + _SHADES * offsets)
    return colors


def as_rgb(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """What is shown of an image [H, W, C]: its first three channels, or one as grey."""
    return image[:, :, :3] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, axis=2)


def overlay(
    image: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer], palette: npt.NDArray[np.uint8], opacity: float = 0.55
) -> npt.NDArray[np.uint8]:
    """RGB [H, W, 3]: the image [H, W, C] tinted by class, a light line where two classes meet.

    Ignored pixels stay as they are.
    Segments are drawn alike: the index of each pixel's segment, and `segment_colors`.
    """
    image = np.ascontiguousarray(as_rgb(image))
    tinted = cv2.addWeighted(image, 1 - opacity, colorize(labels, palette), opacity, 0)
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    tinted[edge] = cv2.addWeighted(image, 0.2, np.full_like(image, 255), 0.8, 0)[edge]
    tinted[labels < 0] = image[labels < 0]
    return tinted  # type: ignore[no-any-return]


def write_words(
    picture: npt.NDArray[np.uint8], words: Iterable[tuple[str, tuple[int, int, int, int]]]
) -> npt.NDArray[np.uint8]:
    """The picture [H, W, 3] with small words, white on dark, in the middle of their boxes (left, top, width, height).

    Words that do not fit into their boxes are left out. The first lie on top.
    """
    written = picture.copy()
    size = max(0.4, min(picture.shape[:2]) / 1500)
    for text, (left, top, width, height) in reversed(list(words)):
        (long, high), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        x, y = left + (width - long - 4) // 2, top + (height - high - below - 4) // 2
        if x >= left and y >= top:
            written[y : y + high + below + 4, x : x + long + 4] //= 4
            start = x + 2, y + 2 + high
            cv2.putText(written, text, start, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
    return written


def side_by_side(*pictures: npt.NDArray[np.uint8], gap: int = 4) -> npt.NDArray[np.uint8]:
    """Pictures of one height in a row, white between them."""
    space = np.full((pictures[0].shape[0], gap, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (space, picture)]
    return np.concatenate(row[1:], axis=1)
