"""What OpenCV decodes: PNG with all its depths, BMP, WebP and PPM as RGB, and the four inks of a JPEG."""

import contextlib

import cv2
import numpy as np

from panfpn.data.formats.header import Samples, unreadable

MOST_PIXELS = 1 << 30  # it decodes no more
RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
AS_STORED = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION


def decoded(data: bytes, flags: int, source: object) -> Samples:
    """The pixels; ValueError of `source` for a damaged file."""
    image = None
    # A broken header raises; a truncated body gives None, with a warning on stderr that says less than we do.
    with contextlib.suppress(cv2.error):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise unreadable(source, "damaged")
    return np.asarray(image)
