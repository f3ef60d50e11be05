"""Masks of boxes brought into the image. In: probabilities [28, 28] and a box. Out: the mask, cropped."""

import numpy as np
import numpy.typing as npt

from panfpn.ops.resize import Size

Floats = npt.NDArray[np.float32]
Mask = tuple[int, int, npt.NDArray[np.bool_]]  # top, left, and the mask [h, w] there; nothing outside


def paste_mask(probability: Floats, box: Floats, size: Size) -> Mask:
    """The pixels of an image of `size` where a mask [m, m] stretched over a box [4] has at least 0.5.

    Bilinear, with 0 outside of the mask, as detectron2's `paste_masks_in_image`; the resize is a product with a small
    matrix on either side.
    """
    left, right = max(0, int(np.floor(box[0])) - 1), min(size[1], int(np.ceil(box[2])) + 1)
    top, bottom = max(0, int(np.floor(box[1])) - 1), min(size[0], int(np.ceil(box[3])) + 1)
    rows = _weights(top, bottom, float(box[1]), float(box[3]), probability.shape[0])
    columns = _weights(left, right, float(box[0]), float(box[2]), probability.shape[1])
    return top, left, rows @ probability @ columns.T >= 0.5


def _weights(start: int, stop: int, low: float, high: float, steps: int) -> Floats:
    """How much each of `steps` between low and high counts in pixels start … stop − 1: [pixels, steps]."""
    at = (np.arange(start, stop, dtype=np.float32) + 0.5 - low) / (high - low) * steps - 0.5
    distance = np.abs(at[:, None] - np.arange(steps, dtype=np.float32))
    return np.asarray(np.maximum(0, 1 - distance), np.float32)
