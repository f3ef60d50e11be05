"""PNG: chunks and their checksums, looked at by ourselves; pixels by OpenCV, plain ones by kornia-rs where it is."""

import functools
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from panfpn.data.formats import opencv
from panfpn.data.formats.header import PNG, Header, HeaderError, Samples, exif_orientation

_PLAIN_CHUNKS = frozenset({b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"tEXt"})
_CRITICAL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})


def read_header(data: bytes, _: int) -> Header:
    """What the chunks say."""
    chunks: dict[bytes, bytes] = {}
    for name, content in _png_chunks(data):
        if name not in chunks:  # of the pixels' data, the first part is enough
            chunks[name] = b"" if name == b"IDAT" else content
    if not chunks.keys() >= {b"IHDR", b"IDAT"}:
        raise HeaderError("it has no pixels")
    width, height, bits, kind, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if kind not in (0, 2, 3, 4, 6) or bits not in (1, 2, 4, 8, 16):
        raise HeaderError(f"colour type {kind} with {bits} bits")
    palette = None
    if kind == 3:
        if b"PLTE" not in chunks:
            raise HeaderError("it has no palette")
        colors = chunks[b"PLTE"]
        palette = np.frombuffer(colors[: len(colors) // 3 * 3], np.uint8).reshape(-1, 3)
    frames = struct.unpack(">I", chunks[b"acTL"][:4])[0] if len(chunks.get(b"acTL", b"")) >= 4 else 1
    return Header(
        format=PNG, height=height, width=width, bands={0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind], bits=bits,
        dtype="uint16" if bits == 16 else "uint8", alpha=kind in (4, 6), palette=palette, pages=max(1, frames),
        orientation=exif_orientation(chunks.get(b"eXIf", b"")),
        plain=chunks.keys() <= _PLAIN_CHUNKS and kind in (0, 2) and bits == 8 and rest == [0, 0, 0],
    )  # fmt: skip


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each; of those that pixels depend on, the checksum is held against the content."""
    view, start = memoryview(data), 8
    while True:
        length, name = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8]
        end = start + 12 + length
        if end > len(data):
            raise HeaderError("it is cut short")
        content = view[start + 8 : end - 4]
        if name in _CRITICAL_CHUNKS and zlib.crc32(content, zlib.crc32(name)) != int.from_bytes(data[end - 4 : end]):
            raise HeaderError(f"the checksum of its part {name.decode()} is wrong")
        yield name, b"" if name == b"IDAT" else bytes(content)
        if name == b"IEND":
            return
        start = end


def _grey_png(data: bytes) -> bytes:
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


def pixels(data: bytes, header: Header, source: object) -> Samples:
    """The first picture's samples [H, W] or [H, W, B] as stored: palette indices, RGB in this order."""
    plain = decode_plain(data, header)
    if plain is not None:
        return plain
    stored = opencv.decoded(data if header.palette is None else _grey_png(data), opencv.AS_STORED, source)
    if header.bits < 8:
        stored = np.asarray(stored, np.uint8) // (255 // (2**header.bits - 1))
    if header.bands == 2:
        return stored[:, :, 2:4]  # grey is repeated
    return stored if stored.ndim == 2 else np.concatenate([stored[:, :, 2::-1], stored[:, :, 3:]], 2)


@functools.cache
def fast_decoder() -> Callable[..., npt.NDArray[np.uint8]] | None:
    """Where it is installed (extra `fast`), kornia-rs decodes PNG 2 (photographs) to 9 (masks) times as fast."""
    try:
        from kornia_rs.io import decode_image_png_u8  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return decode_image_png_u8  # type: ignore[no-any-return]


def decode_plain(data: bytes, header: Header) -> Samples | None:
    """Grey [H, W] or RGB [H, W, 3] of a PNG whose header is plain; None for whatever OpenCV shall look at."""
    decoder = fast_decoder()
    if decoder is None or not header.plain:
        return None
    try:
        decoded = decoder(data, (header.height, header.width), "rgb" if header.bands == 3 else "mono")  # [H, W, B]
    except BaseException as error:  # a decoder in Rust may panic, which is no Exception; OpenCV then reads the file
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return None
    return decoded if header.bands == 3 else decoded[:, :, 0]
