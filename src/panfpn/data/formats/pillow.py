"""All other formats, by Pillow: BMP, WebP, GIF, JPEG 2000, AVIF, PPM; HEIC where the extra `heic` is installed."""

import io
import re
from typing import Any

import numpy as np

from panfpn.data.formats.header import HEIC, ORIENTATION, Header, HeaderError, Samples, format_of, unreadable
from panfpn.extras import optional

_PILLOW_MODES = {  # bands, type, alpha
    "1": (1, "uint8", False), "L": (1, "uint8", False), "P": (1, "uint8", False), "PA": (2, "uint8", True),
    "LA": (2, "uint8", True), "RGB": (3, "uint8", False), "RGBA": (4, "uint8", True), "CMYK": (4, "uint8", False),
    "YCbCr": (3, "uint8", False), "RGBX": (3, "uint8", False), "I": (1, "int32", False), "F": (1, "float32", False),
    **{f"I;16{end}": (1, "uint16", False) for end in ("", "B", "L", "N")},
}  # fmt: skip


def _opened(data: bytes) -> Any:
    """A file as Pillow sees it, without its limit of pixels: ours stands above."""
    from PIL import Image  # noqa: PLC0415 - PNG and JPEG do not pay for it

    Image.init()
    form = format_of(data) or ""
    if form == HEIC:
        optional("pillow_heif", "heic", "a HEIC photo needs").register_heif_opener()
        form = "HEIF"
    return Image.OPEN[form][0](io.BytesIO(data), "")


def read_header(data: bytes, index: int) -> Header:
    """What Pillow says of a page."""
    with _opened(data) as picture:
        pages = int(getattr(picture, "n_frames", 1))
        picture.seek(min(index, pages - 1))
        if picture.mode not in _PILLOW_MODES:
            raise HeaderError(f"pixels of the form {picture.mode}")
        bands, dtype, alpha = _PILLOW_MODES[picture.mode]
        orientation = picture.getexif().get(ORIENTATION, 1)
        _check_depth(data, picture.format)
        palette = None
        if picture.mode in ("P", "PA"):
            palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        return Header(
            format=picture.format, height=picture.height, width=picture.width, bands=bands, dtype=dtype, alpha=alpha,
            bits=1 if picture.mode == "1" else 8 * np.dtype(dtype).itemsize, palette=palette,
            pages=pages, orientation=orientation if orientation in range(1, 9) else 1,
            lossy=_is_lossy(data, picture.format),
        )  # fmt: skip


def _check_depth(data: bytes, form: str) -> None:
    """ValueError for values of a number of bits that Pillow stretches to 8 or 16."""
    if form == "JPEG2000" and (place := data.find(b"\xff\x51")) >= 0:  # SIZ: 36 bytes on, the depth of each band
        depths = data[place + 40 :: 3][: int.from_bytes(data[place + 38 : place + 40])]
        if odd := [depth for depth in depths if depth not in (7, 15)]:
            sign = "signed " * (odd[0] >= 128)
            raise HeaderError(f"its values have {sign}{odd[0] % 128 + 1} bits; save it as TIFF")
    if form == "PPM" and data[:2] not in (b"P1", b"P4"):
        words = re.sub(rb"#[^\n]*\n", b" ", data[2:4096]).split(maxsplit=3)
        if len(words) > 2 and words[2] not in (b"255", b"65535"):
            largest = words[2].decode("ascii", "replace")[:9]
            raise HeaderError(f"its largest value is {largest}, and not 255 or 65535; save it as PNG")


def _is_lossy(data: bytes, form: str) -> bool:
    """Whether pixels may be others than were saved: WebP and JPEG 2000 can keep them, AVIF and HEIC do not say."""
    if form == "WEBP":
        return b"VP8L" not in data[12:16] and (data[12:16] != b"VP8X" or b"VP8 " in data)
    if form == "JPEG2000":
        style = data.find(b"\xff\x52")  # COD: Scod, progression, layers, transform, levels, block, …, wavelet
        return style < 0 or data[style + 13 : style + 14] != b"\x01"
    return form in ("AVIF", "HEIF")


def pixels(data: bytes, header: Header, index: int, source: object, *, rgb: bool = False) -> Samples:
    """A page's samples [H, W] or [H, W, B] as stored, or made `rgb`; ValueError of `source`: damaged."""
    try:
        with _opened(data) as picture:
            picture.seek(index)
            stored = np.array(picture.convert("RGB") if rgb else picture)
    except Exception as error:  # its decoders raise whatever they stumble over
        raise unreadable(source, f"a damaged {header.format}: {error}") from error
    return np.asarray(stored, np.uint8) if stored.dtype == np.bool_ else stored
