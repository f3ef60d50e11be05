"""One look at an image file's header, before anything is decoded. In: a file's bytes. Out: what its pixels mean.

PNG and JPEG, which training reads by the million, are looked at here, TIFF by tifffile, all others by Pillow.
"""

import io
import itertools
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.extras import optional

PNG, JPEG, TIFF, HEIC = "PNG", "JPEG", "TIFF", "HEIC"
_FORMATS = (  # (where, bytes there, format)
    (0, b"\x89PNG\r\n\x1a\n", PNG), (0, b"\xff\xd8\xff", JPEG), (0, b"II*\0", TIFF), (0, b"MM\0*", TIFF),
    (0, b"II+\0", TIFF), (0, b"MM\0+", TIFF), (0, b"BM", "BMP"), (0, b"GIF8", "GIF"), (8, b"WEBP", "WEBP"),
    (0, b"\0\0\0\x0cjP  ", "JPEG2000"), (0, b"\xff\x4f\xff\x51", "JPEG2000"), (4, b"ftypavi", "AVIF"),
    *((4, b"ftyp" + brand, HEIC) for brand in (b"hei", b"hev", b"mif1", b"msf1")),
    *((0, b"P" + digit + end, "PPM") for digit in (b"1", b"2", b"3", b"4", b"5", b"6") for end in (b"\n", b" ", b"\r")),
)  # fmt: skip
_LARGEST = 1 << 32  # bytes of decoded pixels; a mask of 33,000² has a quarter of that
_EASY = 1 << 26  # so many take no one's memory, whatever the file
_DENSEST = 1100  # bytes of a byte; deflate reaches 1032
_DENSEST_OTHER = 30_000  # blank pages of other codecs
_DENSEST_JPEG = 4096  # an empty block of 64 pixels in three colours takes a bit of each of a progressive file's scans
_MOST_PAGES = 10_000  # that are looked at
_ORIENTATION = 0x0112  # the EXIF tag
_PLAIN_CHUNKS = frozenset({b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"tEXt"})
_CRITICAL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})


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


def read_header(data: bytes, source: object = "image bytes", page: int = 1) -> Header:
    """What the bytes of an image file say of the pixels of a page; nothing is decoded, and no memory taken.

    Raises:
        ValueError: of `source`: no image of a known format, one that is cut short, without a part that is needed, or
            that claims more pixels than its bytes can hold.
        ImportError: a HEIC file, and the extra `heic` is not installed.
    """
    form = next((name for start, magic, name in _FORMATS if data[start : start + len(magic)] == magic), None)
    if form is None:
        raise unreadable(source, "empty, damaged or of an unknown format")
    try:
        header = {PNG: _png, JPEG: _jpeg, TIFF: _tiff}.get(form, _by_pillow)(data, page - 1)
    except ImportError as error:
        raise ImportError(f"{source}: {error}") from error
    except Exception as error:  # whatever a parser stumbles over
        reason = str(error) if isinstance(error, _HeaderError) else "its header cannot be parsed"
        raise unreadable(source, f"a damaged {form}: {reason}") from error
    if 1 < header.pages < page:
        raise ValueError(f"{source}: has {header.pages} pages; data.pages is {page}")
    if not header.height or not header.width:
        raise unreadable(source, f"a {form} of {header.width}×{header.height} pixels")
    _check_memory(header, len(data), source)
    return header


def unreadable(source: object, reason: str) -> ValueError:
    """The error of a file that no image can be read of."""
    return ValueError(f"{source}: not a readable image ({reason})")


class _HeaderError(ValueError):
    """What is wrong with a header, in words."""


def _check_memory(header: Header, num_bytes: int, source: object) -> None:
    shape = f"{header.width}×{header.height} pixels of {header.bands} bands"
    if header.num_bytes > _LARGEST:
        raise unreadable(source, f"{shape} take {header.num_bytes / 2**30:.1f} GiB; {_LARGEST >> 30} are allowed")
    densest = {JPEG: _DENSEST_JPEG, PNG: _DENSEST}.get(header.format, _DENSEST_OTHER)
    if header.stored_bytes > max(_EASY, densest * num_bytes):
        raise unreadable(source, f"it claims {shape}, more than its {num_bytes} bytes can hold")


def _png(data: bytes, _: int) -> Header:
    chunks: dict[bytes, bytes] = {}
    for name, content in _png_chunks(data):
        if name not in chunks:  # of the pixels' data, the first part is enough
            chunks[name] = b"" if name == b"IDAT" else content
    if not chunks.keys() >= {b"IHDR", b"IDAT"}:
        raise _HeaderError("it has no pixels")
    width, height, bits, kind, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if kind not in (0, 2, 3, 4, 6) or bits not in (1, 2, 4, 8, 16):
        raise _HeaderError(f"colour type {kind} with {bits} bits")
    palette = None
    if kind == 3:
        if b"PLTE" not in chunks:
            raise _HeaderError("it has no palette")
        colors = chunks[b"PLTE"]
        palette = np.frombuffer(colors[: len(colors) // 3 * 3], np.uint8).reshape(-1, 3)
    frames = struct.unpack(">I", chunks[b"acTL"][:4])[0] if len(chunks.get(b"acTL", b"")) >= 4 else 1
    return Header(
        format=PNG, height=height, width=width, bands={0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind], bits=bits,
        dtype="uint16" if bits == 16 else "uint8", alpha=kind in (4, 6), palette=palette, pages=max(1, frames),
        orientation=_exif_orientation(chunks.get(b"eXIf", b"")),
        plain=chunks.keys() <= _PLAIN_CHUNKS and kind in (0, 2) and bits == 8 and rest == [0, 0, 0],
    )  # fmt: skip


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each; of those that pixels depend on, the checksum is held against the content."""
    view, start = memoryview(data), 8
    while True:
        length, name = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8]
        end = start + 12 + length
        if end > len(data):
            raise _HeaderError("it is cut short")
        content = view[start + 8 : end - 4]
        if name in _CRITICAL_CHUNKS and zlib.crc32(content, zlib.crc32(name)) != int.from_bytes(data[end - 4 : end]):
            raise _HeaderError(f"the checksum of its part {name.decode()} is wrong")
        yield name, b"" if name == b"IDAT" else bytes(content)
        if name == b"IEND":
            return
        start = end


def grey_png(data: bytes) -> bytes:
    """A palette PNG as a grey one of the same bits: what decodes to its indices."""
    parts = [data[:8]]
    start = 8
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4])
        name = data[start + 4 : start + 8]
        if name == b"IHDR":
            content = data[start + 8 : start + 17] + b"\0" + data[start + 18 : start + 21]  # colour type grey
            parts.append(data[start : start + 8] + content + zlib.crc32(name + content).to_bytes(4))
        elif name in (b"IDAT", b"IEND"):
            parts.append(data[start:end])
        start = end
    return b"".join(parts)


_JPEG_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers that begin a frame


def _jpeg(data: bytes, _: int) -> Header:
    start, orientation, tables = 2, 1, set[int]()
    size: tuple[int, int, int, int] | None = None
    frame = 0
    while True:
        start = data.find(b"\xff", start)
        while start >= 0 and data[start + 1 : start + 2] == b"\xff":  # fill bytes
            start += 1
        if start < 0 or start + 4 > len(data):
            raise _HeaderError("it is cut short")
        marker, length = data[start + 1], int.from_bytes(data[start + 2 : start + 4])
        content = data[start + 4 : start + 2 + length]
        if marker == 0 or marker == 1 or 0xD0 <= marker <= 0xD8:  # stand alone
            start += 2
            continue
        if marker in _JPEG_SIZES:
            bits, height, width, bands = struct.unpack(">BHHB", content[:6])
            frame, size = marker, (bits, height, width, bands)
        elif marker == 0xE1 and content[:6] == b"Exif\0\0":
            orientation = _exif_orientation(content[6:])
        elif marker in (0xDB, 0xC4):
            tables.add(marker)
        elif marker in (0xDA, 0xD9):
            break
        start += 2 + length
    if size is None or marker == 0xD9:
        raise _HeaderError("it has no pixels")
    if 0xDB not in tables:
        raise _HeaderError("its quantisation tables are missing")
    if 0xC4 not in tables and frame in (0xC0, 0xC1, 0xC2):  # arithmetic coding needs none
        raise _HeaderError("its Huffman tables are missing")
    end = data.rfind(b"\xff\xd9")
    if end <= start:
        raise _HeaderError("it is cut short: its end is missing")
    if end - start - 2 - length < 1:
        raise _HeaderError("it has no pixels")
    bits, height, width, bands = size
    return Header(format=JPEG, height=height, width=width, bands=bands, bits=bits, orientation=orientation, lossy=True)


def _exif_orientation(exif: bytes) -> int:
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
        if tag == _ORIENTATION:
            return int(value) if 1 <= value <= 8 else 1
    return 1


def full_pages(file: Any) -> list[Any]:
    """The pages of a TIFF that are pictures of their own: no thumbnails, no masks of another page."""
    pages: list[Any] = []
    for page in itertools.islice(file.pages, _MOST_PAGES):
        if not int(page.subfiletype) & 5 or not pages:
            pages.append(page)
    return pages


def open_tiff(data: bytes) -> Any:
    """A TIFF as tifffile sees it."""
    import logging  # noqa: PLC0415

    import tifffile  # noqa: PLC0415 - only who has TIFFs pays for it

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # we say what is wrong
    return tifffile.TiffFile(io.BytesIO(data))


_LOSSY_TIFF = frozenset({6, 7, 33003, 33004, 33005, 34712, 34892, 34933, 50001, 50002, 52546})


def _tiff(data: bytes, index: int) -> Header:
    with open_tiff(data) as file:
        pages = full_pages(file)
        slices = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
        if slices > len(pages):
            raise _HeaderError(f"ImageJ's stack of {slices} slices in one page; save it as a TIFF of pages")
        return _tiff_page(pages[min(index, len(pages) - 1)], len(data), len(pages))


def _tiff_page(page: Any, num_bytes: int, num_pages: int) -> Header:
    photometric, samples = int(page.photometric), int(page.samplesperpixel)
    if photometric == 8:
        raise _HeaderError("its colours are CIE L*a*b*; save it as RGB")
    if page.dtype is None:
        raise _HeaderError(f"values of {page.bitspersample} bits are of an unknown kind")
    ends = [start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=False)]
    sparse = page.is_tiled and any(page.databytecounts)  # tiles of no bytes are blank
    if not ends or not (all(page.databytecounts) or sparse):
        raise _HeaderError("it has no pixels, or only a part of them")
    if max(ends) > num_bytes:
        raise _HeaderError("it is cut short")
    orientation = page.tags.valueof(_ORIENTATION, default=1)
    palette = (np.asarray(page.colormap).T >> 8).astype(np.uint8) if photometric == 3 else None
    return Header(
        format=TIFF, height=page.imagelength, width=page.imagewidth, bands=samples, pages=num_pages,
        dtype="uint8" if page.dtype == np.bool_ else page.dtype.name,
        bits=int(page.bitspersample), alpha=bool(page.extrasamples) and int(page.extrasamples[-1]) in (1, 2),
        colors=photometric in (2, 5, 6) or samples == 1 or (samples == 2 and bool(page.extrasamples)),
        palette=palette, inverted=photometric == 0 and page.dtype.kind in "bu",
        converted=photometric == 5 or (photometric == 6 and int(page.compression) not in (6, 7)),
        orientation=orientation if orientation in range(1, 9) else 1, lossy=int(page.compression) in _LOSSY_TIFF,
    )  # fmt: skip


_PILLOW_MODES = {  # bands, type, alpha
    "1": (1, "uint8", False), "L": (1, "uint8", False), "P": (1, "uint8", False), "PA": (2, "uint8", True),
    "LA": (2, "uint8", True), "RGB": (3, "uint8", False), "RGBA": (4, "uint8", True), "CMYK": (4, "uint8", False),
    "YCbCr": (3, "uint8", False), "RGBX": (3, "uint8", False), "I": (1, "int32", False), "F": (1, "float32", False),
    **{f"I;16{end}": (1, "uint16", False) for end in ("", "B", "L", "N")},
}  # fmt: skip


def open_by_pillow(data: bytes) -> Any:
    """A file as Pillow sees it, without its limit of pixels: ours stands above."""
    from PIL import Image  # noqa: PLC0415 - PNG and JPEG do not pay for it

    Image.init()
    form = next(name for start, magic, name in _FORMATS if data[start : start + len(magic)] == magic)
    if form == HEIC:
        optional("pillow_heif", "heic", "a HEIC photo needs").register_heif_opener()
        form = "HEIF"
    return Image.OPEN[form][0](io.BytesIO(data), "")


def _by_pillow(data: bytes, index: int) -> Header:
    with open_by_pillow(data) as picture:
        pages = int(getattr(picture, "n_frames", 1))
        picture.seek(min(index, pages - 1))
        if picture.mode not in _PILLOW_MODES:
            raise _HeaderError(f"pixels of the form {picture.mode}")
        bands, dtype, alpha = _PILLOW_MODES[picture.mode]
        orientation = picture.getexif().get(_ORIENTATION, 1)
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
            raise _HeaderError(f"its values have {sign}{odd[0] % 128 + 1} bits; save it as TIFF")
    if form == "PPM" and data[:2] not in (b"P1", b"P4"):
        words = re.sub(rb"#[^\n]*\n", b" ", data[2:4096]).split(maxsplit=3)
        if len(words) > 2 and words[2] not in (b"255", b"65535"):
            largest = words[2].decode("ascii", "replace")[:9]
            raise _HeaderError(f"its largest value is {largest}, and not 255 or 65535; save it as PNG")


def _is_lossy(data: bytes, form: str) -> bool:
    """Whether pixels may be others than were saved: WebP and JPEG 2000 can keep them, AVIF and HEIC do not say."""
    if form == "WEBP":
        return b"VP8L" not in data[12:16] and (data[12:16] != b"VP8X" or b"VP8 " in data)
    if form == "JPEG2000":
        style = data.find(b"\xff\x52")  # COD: Scod, progression, layers, transform, levels, block, …, wavelet
        return style < 0 or data[style + 13 : style + 14] != b"\x01"
    return form in ("AVIF", "HEIF")
