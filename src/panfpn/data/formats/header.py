"""What a file says of its pixels, and what all formats need to say it."""

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PNG, JPEG, TIFF, HEIC = "PNG", "JPEG", "TIFF", "HEIC"
_FORMATS = (  # (where, bytes there, format)
    (0, b"\x89PNG\r\n\x1a\n", PNG), (0, b"\xff\xd8\xff", JPEG), (0, b"II*\0", TIFF), (0, b"MM\0*", TIFF),
    (0, b"II+\0", TIFF), (0, b"MM\0+", TIFF), (0, b"BM", "BMP"), (0, b"GIF8", "GIF"), (8, b"WEBP", "WEBP"),
    (0, b"\0\0\0\x0cjP  ", "JPEG2000"), (0, b"\xff\x4f\xff\x51", "JPEG2000"), (4, b"ftypavi", "AVIF"),
    *((4, b"ftyp" + brand, HEIC) for brand in (b"hei", b"hev", b"mif1", b"msf1")),
    *((0, b"P" + digit + end, "PPM") for digit in (b"1", b"2", b"3", b"4", b"5", b"6") for end in (b"\n", b" ", b"\r")),
)  # fmt: skip
ORIENTATION = 0x0112  # the EXIF tag

Samples = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Header:
    """What a file says of its pixels."""

    format: str
    height: int  # as stored, before `orientation`
    width: int
    bands: int = 3  # values of a pixel, alpha among them; a palette's index is one
    dtype: str = "uint8"  # of a value
    bits: int = 8  # of a value, as stored
    alpha: bool = False  # the last band is no colour: how much of the pixel is there
    colors: bool = True  # the bands are grey, or begin with red, green and blue
    palette: npt.NDArray[np.uint8] | None = None  # [N, 3] RGB; values are its indices
    pages: int = 1
    orientation: int = 1  # EXIF's 1..8
    lossy: bool = False  # values are not those that were saved
    inverted: bool = False  # 0 is white, where it is shown
    converted: bool = False  # of another colour space, which Pillow makes RGB of
    plain: bool = False  # a PNG with nothing that could change its pixels

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright picture."""
        return (self.width, self.height) if self.orientation > 4 else (self.height, self.width)

    @property
    def num_bytes(self) -> int:
        """Of the decoded pixels."""
        return self.height * self.width * self.bands * np.dtype(self.dtype).itemsize

    @property
    def stored_bytes(self) -> int:
        """Of the pixels before they were compressed."""
        return self.height * self.width * self.bands * self.bits // 8


class HeaderError(ValueError):
    """What is wrong with a header, in words."""


def format_of(data: bytes) -> str | None:
    """Of a file's first bytes, whatever its name says."""
    return next((name for start, magic, name in _FORMATS if data[start : start + len(magic)] == magic), None)


def unreadable(source: object, reason: str) -> ValueError:
    """The error of a file that no image can be read of."""
    return ValueError(f"{source}: not a readable image ({reason})")


def exif_orientation(exif: bytes) -> int:
    """Of an EXIF block (a TIFF header and its first directory), 1 where there is none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 10:
        return 1
    (start,) = struct.unpack(f"{order}I", exif[4:8])
    if start + 2 > len(exif):
        return 1
    (count,) = struct.unpack(f"{order}H", exif[start : start + 2])
    for place in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, _, _, value = struct.unpack(f"{order}HHIH", exif[place : place + 10])
        if tag == ORIENTATION:
            return int(value) if 1 <= value <= 8 else 1
    return 1
