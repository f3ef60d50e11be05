"""Image files decoded, with errors that name them. In: paths and bytes. Out: RGB images, raw masks, maps of ids.

Nothing here knows what a pixel value means.
"""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.files import read_bytes, rgb_to_ids

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
_PNG = b"\x89PNG\r\n\x1a\n"
_PLAIN_CHUNKS = frozenset({b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"tEXt"})


def _decode(data: bytes, flags: int, source: object) -> npt.NDArray[np.generic]:
    image = None
    if data:
        # A broken header raises; a truncated body gives None, with a warning on stderr that says less than we do.
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ValueError(f"{source}: not a readable image (empty, damaged or of an unknown format)")
    return np.asarray(image)


def decode_image(data: bytes, source: object = "image bytes") -> npt.NDArray[np.uint8]:
    """Decode image bytes to RGB uint8 [H, W, 3]; ValueError names `source` if that fails."""
    image = _decode_plain_png(data, color_type=2)
    if image is None:
        image = _decode(data, cv2.IMREAD_COLOR_RGB, source)  # [H, W, 3], EXIF orientation applied
    return image  # type: ignore[return-value]


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image file as RGB uint8 [H, W, 3]."""
    return decode_image(read_bytes(path), path)


def decode_mask(data: bytes, source: object = "mask bytes") -> npt.NDArray[np.generic]:
    """Decode a mask file's bytes as they were stored: [H, W] of 8, 16 or 32 bits, or RGB uint8 [H, W, 3].

    A palette PNG gives its indices, which OpenCV would expand to colours; Pillow reads that one kind. A grey PNG of
    1, 2 or 4 bits gives its own values, which OpenCV stretches to 0..255.
    """
    depth, color_type = data[24:26] if data[:8] == _PNG and len(data) > 26 else (8, 0)  # in IHDR
    if color_type == 3:
        return _palette_indices(data, source)
    mask = _decode_plain_png(data, color_type)
    if mask is not None:
        return mask
    mask = _decode(data, cv2.IMREAD_UNCHANGED, source)
    if color_type == 0 and depth < 8:
        mask = np.asarray(mask, np.uint8) // (255 // (2**depth - 1))
    if mask.ndim == 3:
        if mask.shape[2] == 4:
            mask = mask[:, :, :3]
        mask = mask[:, :, 0] if mask.shape[2] == 1 else mask[:, :, ::-1]
    return np.ascontiguousarray(mask)


def read_mask(path: Path) -> npt.NDArray[np.generic]:
    """Read a mask file; see `decode_mask`."""
    return decode_mask(read_bytes(path), path)


def decode_ids(data: bytes, source: object = "id map bytes", *, rgb: bool = False) -> npt.NDArray[np.integer[Any]]:
    """Decode a map of ids [H, W] >= 0: 8, 16 or 32 bits, or R + 256 G + 65536 B (the only form with `rgb`).

    ValueError names `source`, and the form or the pixel that cannot be an id.
    """
    pixels = decode_mask(data, source)
    if pixels.ndim == 3 and pixels.dtype == np.uint8:
        return rgb_to_ids(np.asarray(pixels, np.uint8))
    form = f"{pixels.dtype} pixels" + (f" of {pixels.shape[2]} channels" if pixels.ndim == 3 else " of one channel")
    if rgb:
        raise ValueError(f"{source}: {form}; a panoptic PNG is 8-bit RGB, whose ids are R + 256 G + 65536 B")
    if pixels.ndim != 2 or not np.issubdtype(pixels.dtype, np.integer):
        raise ValueError(f"{source}: {form}; an id map has one integer a pixel, or 8-bit RGB: R + 256 G + 65536 B")
    ids: npt.NDArray[np.integer[Any]] = np.asarray(pixels, pixels.dtype)
    if ids.min(initial=0) < 0:
        row, column = np.unravel_index(np.argmin(ids), ids.shape)
        raise ValueError(f"{source}: id {ids.min()} in row {row}, column {column}; ids are 0 (none) or positive")
    return ids


@functools.cache
def _png_decoder() -> Callable[..., npt.NDArray[np.uint8]] | None:
    """Where it is installed (extra `fast`), kornia-rs decodes PNG 2 (photographs) to 9 (masks) times as fast."""
    try:
        from kornia_rs.io import decode_image_png_u8  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return decode_image_png_u8  # type: ignore[no-any-return]


def _decode_plain_png(data: bytes, color_type: int) -> npt.NDArray[np.generic] | None:
    """Grey [H, W] (`color_type` 0) or RGB [H, W, 3] (2) of an 8-bit PNG; None for whatever OpenCV shall look at.

    That are all files with a chunk that may change pixels (transparency, EXIF, animation), and damaged ones.
    """
    decoder = _png_decoder()
    plain = bytes((8, color_type, 0, 0, 0))  # IHDR: 8 bits, not interlaced
    if decoder is None or color_type not in (0, 2) or data[:8] != _PNG or data[24:29] != plain:
        return None
    start = 8
    while start < len(data):
        if data[start + 4 : start + 8] not in _PLAIN_CHUNKS:
            return None
        start += 12 + int.from_bytes(data[start : start + 4])
    size = int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
    try:
        pixels = decoder(data, size, "rgb" if color_type else "mono")  # [H, W, 3 or 1]
    except Exception:  # it raises nothing more special; OpenCV then reads the file, or says that it cannot be read
        return None
    return pixels if color_type else pixels[:, :, 0]


def _palette_indices(data: bytes, source: object) -> npt.NDArray[np.uint8]:
    import io  # noqa: PLC0415 - palette masks are rare: the common path does not pay for Pillow

    from PIL import Image  # noqa: PLC0415

    try:
        return np.array(Image.open(io.BytesIO(data)), np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{source}: not a readable palette PNG ({error})") from error
