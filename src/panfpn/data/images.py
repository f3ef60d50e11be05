"""Image files decoded, with errors that name them. In: paths and bytes. Out: images, raw masks, maps of ids.

header.py says what a file's pixels mean. What it leaves open is a setting (`Reading`), or refused: nothing is guessed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.formats import jpeg, opencv, pillow, png, tiff
from panfpn.data.formats.header import JPEG, PNG, TIFF, Header, Samples
from panfpn.data.header import read_header
from panfpn.files import read_bytes, rgb_to_ids
from panfpn.types import RGB, Reading

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".j2k", ".avif",
    ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm",
})  # fmt: skip
_PLAIN_MODES = frozenset({"L", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
_PERCENTILES = (2, 98)
_BY_OPENCV = frozenset({PNG, "BMP", "WEBP", "PPM"})


def decode_image(data: bytes, source: object = "image bytes", reading: Reading = RGB) -> npt.NDArray[np.uint8]:
    """Decode image bytes to uint8 [H, W, C], upright: RGB, or the bands that `reading` names.

    Raises:
        ValueError: of `source`: not a readable image, or one whose pixels can mean several things; it names the setting
            that says which.
        ImportError: a format that needs an extra, which it names.
    """
    return decode_with_header(data, source, reading)[0]


def decode_with_header(
    data: bytes, source: object = "image bytes", reading: Reading = RGB
) -> tuple[npt.NDArray[np.uint8], Header]:
    """`decode_image`, and what the file says of its pixels."""
    header = read_header(data, source, reading.page or 1)
    index = _page_index(header, reading.page, source)
    rgb = header.dtype == "uint8" and header.colors and reading.channels == 3 and not reading.bands and not index
    image: Samples
    if header.converted:
        image = as_channels(pillow.pixels(data, header, index, source, rgb=True), reading, source)
    elif rgb and header.format == JPEG:
        image = jpeg.pixels(data, header, source, rgb=True)  # [H, W, 3]
    elif rgb and header.format in _BY_OPENCV and header.height * header.width < opencv.MOST_PIXELS:
        plain = png.decode_plain(data, header) if header.bands == 3 else None
        image = opencv.decoded(data, opencv.RGB, source) if plain is None else plain  # [H, W, 3]
    else:
        samples = _samples(data, header, index, source)
        if header.inverted:
            samples = np.asarray(2**header.bits - 1 - samples, samples.dtype)
        if header.palette is not None and not reading.bands:
            samples = _colored(samples, header.palette, source)
        elif header.bits < 8:
            samples = np.asarray(samples * (255 // (2**header.bits - 1)), np.uint8)
        image = as_channels(samples, reading, source, alpha=header.alpha, colors=header.colors)
    return np.ascontiguousarray(turned(image, header.orientation), np.uint8), header


def read_image(path: Path, reading: Reading = RGB) -> npt.NDArray[np.uint8]:
    """Read an image file; see `decode_image`."""
    return decode_image(read_bytes(path), path, reading)


def as_channels(
    samples: Samples, reading: Reading, source: object, *, alpha: bool = False, colors: bool | None = None
) -> npt.NDArray[np.uint8]:
    """The bands of samples [H, W] or [H, W, B] that the network sees, as uint8 [H, W, C].

    Raises:
        ValueError: of `source`: as of `chosen_bands`; values of more than 8 bits without a range.
    """
    chosen = chosen_bands(samples, reading, source, alpha=alpha, colors=colors)
    return np.ascontiguousarray(in_range(chosen, reading.range, source))


def chosen_bands(
    samples: Samples, reading: Reading, source: object, *, alpha: bool = False, colors: bool | None = None
) -> Samples:
    """The bands of samples [H, W] or [H, W, B] that the network sees, as they are: [H, W, C].

    `alpha`: the last band is none. `colors`: the bands are grey, or begin with RGB; None: one, three and four do.

    Raises:
        ValueError: of `source`: bands that could be meant in several ways.
    """
    if samples.ndim == 2:
        samples = samples[:, :, None]
    bands, wanted = samples.shape[2], reading.channels
    colors = bands in (1, 3, 4) if colors is None else colors
    if reading.bands:
        if max(reading.bands) > bands:
            raise ValueError(f"{source}: has {bands} bands; data.bands names band {max(reading.bands)}")
        samples = samples[:, :, [band - 1 for band in reading.bands]]
    elif bands - alpha in (wanted, 1) and (bands - alpha == wanted or wanted == 3):
        samples = np.repeat(samples[:, :, :1], 3, axis=2) if bands - alpha < wanted else samples[:, :, :wanted]
    elif colors and wanted == 3 and bands > 3:
        samples = samples[:, :, :3]
    elif colors and wanted == 1 and bands in (3, 4):
        samples = _grey(samples[:, :, :3])
    elif bands != wanted:
        numbers = " ".join(map(str, range(1, wanted + 1)))
        raise ValueError(f"{source}: has {bands} bands, and the network sees {wanted}; name those that are meant, as "
                         f"in data.bands {numbers}, or set model.in_channels")  # fmt: skip
    return samples


def _grey(rgb: Samples) -> Samples:
    weights = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as OpenCV
    return np.asarray(np.round(rgb.astype(np.float32) @ weights), rgb.dtype)[:, :, None]


def in_range(samples: Samples, limits: Any, source: object) -> npt.NDArray[np.uint8]:
    """Samples [H, W, C] as uint8: black at the lower limit, white at the upper one, of all bands or of each.

    ValueError of `source`, for values of more than 8 bits without limits, and for those that are not finite.
    """
    if samples.dtype in (np.uint8, np.bool_):
        return np.asarray(samples, np.uint8)
    if samples.dtype.kind not in "iuf":
        raise ValueError(f"{source}: {samples.dtype} pixels; an image has whole or floating-point numbers")
    finite = np.isfinite(samples)
    if not finite.all():
        row, column, band = np.unravel_index(np.argmin(finite), samples.shape)
        raise ValueError(f"{source}: {samples[row, column, band]} in row {row}, column {column} of band {band + 1}; "
                         "give such pixels a number")  # fmt: skip
    if limits is None:
        low, high = samples.min(), samples.max()
        bits = {"u": 8 * samples.itemsize, "i": 8 * samples.itemsize - 1}.get(samples.dtype.kind, 1)
        ranges = dict.fromkeys((f"data.range 0 {2**bits - 1}", f"data.range {low} {high}"))
        raise ValueError(f"{source}: {samples.dtype} pixels from {low} to {high}; say what is black and what is white: "
                         f"{', '.join(ranges)}, or data.range percentile")  # fmt: skip
    values = samples.astype(np.float32)
    if limits == "percentile":
        low, high = percentiles(values)
    else:
        low, high = (np.asarray(limit, np.float32) for limit in limits)
    values -= low
    values *= np.float32(255) / (high - low)
    np.rint(values, out=values)
    return values.clip(0, 255, out=values).astype(np.uint8)


def percentiles(samples: Samples) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What is black and white in samples [..., C] whose range is "percentile": [C] each."""
    values = samples.reshape(-1, samples.shape[-1]).astype(np.float32)
    low, high = np.percentile(values, _PERCENTILES, axis=0).astype(np.float32)
    return low, np.maximum(high, np.nextafter(low, np.float32(np.inf)))


def turned(pixels: Samples, orientation: int) -> Samples:
    """Pixels [H, W, …] as stored under an EXIF orientation (1..8), upright."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def decode_mask(
    data: bytes, source: object = "mask bytes", *, colors: bool = False, page: int | None = None
) -> npt.NDArray[np.generic]:
    """Decode a mask file's bytes: [H, W] of 8, 16 or 32 bits as they were stored, or RGB uint8 [H, W, 3].

    A palette file gives its indices, with `colors` its colours. Values of 1, 2 or 4 bits stay as small as they are
    stored, in every format, also where 0 is shown as white. Alpha is left out.

    Raises:
        ValueError: of `source`: not a readable image, one whose compression changes values, or of several pages.
        ImportError: a format that needs an extra, which it names.
    """
    return mask_of(read_header(data, source, page or 1), data, source, colors=colors, page=page)


def mask_of(
    header: Header, data: bytes, source: object, *, colors: bool = False, page: int | None = None
) -> npt.NDArray[np.generic]:
    """`decode_mask` of bytes whose header has been looked at."""
    if header.converted:
        raise ValueError(f"{source}: a mask in other colours than RGB; save it as RGB, or with one number a pixel")
    if header.lossy:
        raise ValueError(f"{source}: a mask as {header.format}, which changes values when it compresses, and so "
                         "classes; save masks as PNG")  # fmt: skip
    index = _page_index(header, page, source)
    mask = _samples(data, header, index, source)
    if header.palette is not None and colors:
        mask = _colored(mask, header.palette, source)
    if mask.ndim == 3 and header.alpha:
        mask = mask[:, :, :-1]
    if mask.ndim == 3 and mask.shape[2] == 1:
        mask = mask[:, :, 0]
    if mask.ndim == 3 and mask.shape[2] > 3 and header.colors:
        mask = mask[:, :, :3]
    mask = _whole_numbers(mask, source) if mask.dtype.kind == "f" else mask
    return np.ascontiguousarray(turned(mask, header.orientation))


def read_mask(path: Path, *, colors: bool = False) -> npt.NDArray[np.generic]:
    """Read a mask file; see `decode_mask`."""
    return decode_mask(read_bytes(path), path, colors=colors)


def _whole_numbers(mask: Samples, source: object) -> Samples:
    whole = (mask == np.rint(mask)) & (np.abs(mask) < 2**31)  # false of NaN
    if not whole.all():
        row, column = np.unravel_index(np.argmin(whole), whole.shape)[:2]
        raise ValueError(f"{source}: {mask[row, column]} in row {row}, column {column}; a mask has whole numbers")
    return mask.astype(np.int32)


def fit_mask(
    mask: Samples, header: Header, reading: Reading, image: object, source: object
) -> npt.NDArray[Any]:  # fmt: skip
    """A mask [H, W, …] turned as its photo is by EXIF, if it was drawn on the stored pixels.

    `data.mask_orientation` says so; "auto" looks at the sizes, and ValueError names the photo whose sizes do not tell.
    """
    drawn, stored = reading.mask_orientation, (header.height, header.width)
    if header.orientation == 1 or drawn == "turned":
        return mask
    if drawn == "auto":
        if mask.shape[:2] not in (stored, header.size):
            return mask  # whoever compares sizes will say so
        if stored == header.size:
            raise ValueError(f"{image}: EXIF turns this photo (orientation {header.orientation}), and its mask "
                             f"{source} fits either way; say what masks were drawn on: data.mask_orientation turned "
                             "(as viewers show the photo), or stored")  # fmt: skip
        if mask.shape[:2] == header.size:
            return mask
    return np.ascontiguousarray(turned(mask, header.orientation))


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


def _colored(indices: Samples, palette: npt.NDArray[np.uint8], source: object) -> Samples:
    """The colours of a palette's indices."""
    if int(indices.max(initial=0)) >= len(palette):
        place = np.unravel_index(np.argmax(indices), indices.shape)
        raise ValueError(f"{source}: index {indices.max()} in row {place[0]}, column {place[1]} is beyond its palette "
                         f"of {len(palette)} colours")  # fmt: skip
    return np.asarray(palette[indices])


def pillow_pixels(picture: Any) -> Samples:
    """The pixels of a Pillow image, upright: as they are if they are numbers, grey or RGB (with alpha), else as RGB."""
    from PIL import ImageOps  # noqa: PLC0415 - only who passes Pillow's images pays for it

    upright = ImageOps.exif_transpose(picture)
    return np.array(upright if upright.mode in _PLAIN_MODES else upright.convert("RGB"))


def _page_index(header: Header, page: int | None, source: object) -> int:
    """Of the page that is read, from 0 on; ValueError for a file of several where nothing says which."""
    if page is None and header.pages > 1:
        raise ValueError(f"{source}: has {header.pages} pages; say which is meant, as in data.pages 1")
    return 0 if page is None or header.pages == 1 else page - 1


def _samples(data: bytes, header: Header, index: int, source: object) -> Samples:
    """The pixels of a page as stored, [H, W] or [H, W, B]: palette indices, 0 and 1 of one bit, RGB in this order."""
    if header.format == TIFF:
        return tiff.pixels(data, header, index, source)
    if header.format == JPEG:
        return jpeg.pixels(data, header, source)
    if header.format == PNG and not index and header.height * header.width < opencv.MOST_PIXELS:
        return png.pixels(data, header, source)
    return pillow.pixels(data, header, index, source)
