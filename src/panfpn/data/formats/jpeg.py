"""JPEG: markers looked at by ourselves; pixels by libjpeg-turbo, whose warnings of damage are errors here."""

import struct

import simplejpeg

from panfpn.data.formats import opencv
from panfpn.data.formats.header import JPEG, Header, HeaderError, Samples, exif_orientation, unreadable

_JPEG_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers that begin a frame


def read_header(data: bytes, _: int) -> Header:
    """What the markers say."""
    start, orientation, tables = 2, 1, set[int]()
    size: tuple[int, int, int, int] | None = None
    frame = 0
    while True:
        start = data.find(b"\xff", start)
        while start >= 0 and data[start + 1 : start + 2] == b"\xff":  # fill bytes
            start += 1
        if start < 0 or start + 4 > len(data):
            raise HeaderError("it is cut short")
        marker, length = data[start + 1], int.from_bytes(data[start + 2 : start + 4])
        content = data[start + 4 : start + 2 + length]
        if marker == 0 or marker == 1 or 0xD0 <= marker <= 0xD8:  # stand alone
            start += 2
            continue
        if marker in _JPEG_SIZES:
            bits, height, width, bands = struct.unpack(">BHHB", content[:6])
            frame, size = marker, (bits, height, width, bands)
        elif marker == 0xE1 and content[:6] == b"Exif\0\0":
            orientation = exif_orientation(content[6:])
        elif marker in (0xDB, 0xC4):
            tables.add(marker)
        elif marker in (0xDA, 0xD9):
            break
        start += 2 + length
    if size is None or marker == 0xD9:
        raise HeaderError("it has no pixels")
    if 0xDB not in tables:
        raise HeaderError("its quantisation tables are missing")
    if 0xC4 not in tables and frame in (0xC0, 0xC1, 0xC2):  # arithmetic coding needs none
        raise HeaderError("its Huffman tables are missing")
    end = data.rfind(b"\xff\xd9")
    if end <= start:
        raise HeaderError("it is cut short: its end is missing")
    if end - start - 2 - length < 1:
        raise HeaderError("it has no pixels")
    bits, height, width, bands = size
    return Header(format=JPEG, height=height, width=width, bands=bands, bits=bits, orientation=orientation, lossy=True)


def pixels(data: bytes, header: Header, source: object, *, rgb: bool = False) -> Samples:
    """RGB [H, W, 3], or grey [H, W] of a grey file unless `rgb`; ValueError of `source` for damaged ones."""
    if header.bands == 4:
        return opencv.decoded(data, opencv.RGB, source)
    space = "RGB" if rgb or header.bands == 3 else "GRAY"
    try:
        decoded: Samples = simplejpeg.decode_jpeg(data, space)
    except ValueError as error:
        try:
            decoded = simplejpeg.decode_jpeg(_without_padding(data), space)
        except ValueError:
            raise unreadable(source, f"a damaged JPEG: {error}") from error
    return decoded if space == "RGB" else decoded[:, :, 0]


def _without_padding(data: bytes) -> bytes:
    """Without the zeros that some cameras write before the end marker, of which libjpeg warns as of damage."""
    end = data.rfind(b"\xff\xd9")
    return data[:end].rstrip(b"\0") + data[end:]
