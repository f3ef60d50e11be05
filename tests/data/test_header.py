"""One look at a header: what it says of the pixels, and what is refused before anything is decoded."""

import io
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from panfpn.data.header import read_header
from panfpn.data.images import decode_image, decode_mask

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (24, 31, 3), dtype=np.uint8)
RGBN = RNG.integers(0, 256, (24, 31, 4), dtype=np.uint8)


def saved(picture: Image.Image, form: str, **options: object) -> bytes:
    box = io.BytesIO()
    picture.save(box, form, **options)
    return box.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    box = io.BytesIO()
    tifffile.imwrite(box, pixels, **options)
    return box.getvalue()


@pytest.mark.parametrize(
    ("form", "options", "lossy"),
    [
        ("PNG", {}, False), ("BMP", {}, False), ("TIFF", {}, False), ("PPM", {}, False), ("GIF", {}, False),
        ("TIFF", {"compression": "tiff_lzw"}, False), ("TIFF", {"compression": "jpeg"}, True),
        ("WEBP", {"lossless": True}, False), ("WEBP", {"quality": 80}, True), ("JPEG", {}, True), ("AVIF", {}, True),
        ("JPEG2000", {"irreversible": False}, False), ("JPEG2000", {"irreversible": True}, True),
    ],
)  # fmt: skip
def test_every_format_says_its_size_and_whether_values_are_kept(form: str, options: dict, lossy: bool) -> None:
    data = saved(Image.fromarray(RGB), form, **options)
    header = read_header(data, "x")
    assert (header.height, header.width, header.lossy) == (24, 31, lossy)
    image = decode_image(data, "x")
    assert image.shape == (24, 31, 3)
    if not lossy and form != "GIF":
        np.testing.assert_array_equal(image, RGB)
    elif lossy:
        with pytest.raises(ValueError, match=r"^x: a mask as .*, which changes values when it compresses"):
            decode_mask(data, "x")


@pytest.mark.parametrize(
    ("pixels", "options", "bands", "dtype", "alpha"),
    [
        (RGB, {"photometric": "rgb"}, 3, "uint8", False),
        (RGBN, {"photometric": "rgb", "extrasamples": [0]}, 4, "uint8", False),
        (RGBN, {"photometric": "rgb", "extrasamples": [1]}, 4, "uint8", True),
        (RNG.integers(0, 4096, (24, 31), dtype=np.uint16), {"tile": (16, 16)}, 1, "uint16", False),
        (RNG.random((5, 24, 31), np.float32), {"planarconfig": "separate"}, 5, "float32", False),
        (RNG.random((24, 31, 5), np.float32), {"planarconfig": "contig"}, 5, "float32", False),
        (RNG.integers(0, 9, (24, 31), dtype=np.int16), {"bigtiff": True, "compression": "deflate"}, 1, "int16", False),
    ],
)  # fmt: skip
def test_tiffs_of_every_kind(pixels: np.ndarray, options: dict, bands: int, dtype: str, alpha: bool) -> None:
    options = {"photometric": "minisblack"} | options
    header = read_header(tiff(pixels, **options), "x.tif")
    assert (header.size, header.bands, header.dtype, header.alpha) == ((24, 31), bands, dtype, alpha)
    mask = decode_mask(tiff(pixels, **options), "x.tif") if dtype != "float32" else None
    if mask is not None and mask.ndim == 2:
        np.testing.assert_array_equal(mask, pixels)


def test_thumbnails_and_masks_of_a_page_are_no_pages() -> None:
    box = io.BytesIO()
    with tifffile.TiffWriter(box) as file:
        file.write(RGB, photometric="rgb", subifds=0)
        file.write(RGB[::2, ::2], photometric="rgb", subfiletype=1)
        file.write(RGB[:, :, 0] > 9, subfiletype=4)
    assert read_header(box.getvalue()).pages == 1
    box = io.BytesIO()
    with tifffile.TiffWriter(box) as file:
        file.write(RGB, photometric="rgb")
        file.write(RGB[::-1], photometric="rgb")
    assert read_header(box.getvalue()).pages == 2


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, kind: int = 0, *, body: bytes | None = None, bits: int = 8) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    rest = chunk(b"IDAT", zlib.compress(b"\0" * 1000, 9)) if body is None else body
    return b"\x89PNG\r\n\x1a\n" + head + rest + chunk(b"IEND", b"")


JPEG = saved(Image.fromarray(RGB), "JPEG")
START = JPEG.index(b"\xff\xda")


def without(marker: int) -> bytes:
    """The JPEG without the segments of a marker."""
    data = JPEG
    while (place := data.find(bytes((0xFF, marker)))) >= 0:
        data = data[:place] + data[place + 2 + int.from_bytes(data[place + 2 : place + 4]) :]
    return data


def big_jpeg() -> bytes:
    place = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:place] + struct.pack(">HH", 65_000, 65_000) + JPEG[place + 4 :]


LZW = tiff(RGB, photometric="rgb", compression="lzw")
BAD = {
    "no image": (b"hello", "empty, damaged or of an unknown format"),
    "empty": (b"", "empty, damaged or of an unknown format"),
    "PNG of 100,000²": (png(100_000, 100_000), "GiB; 4 are allowed"),
    "PNG that claims more than it holds": (png(30_000, 30_000), "it claims 30000×30000 pixels of 1 bands, more than"),
    "PNG of no size": (png(0, 5), "a PNG of 0×5 pixels"),
    "PNG with a negative length": (png(5, 5, body=b"\xff\xff\xff\xf0IDAT"), "it is cut short"),
    "PNG without pixels": (png(5, 5, body=b""), "it has no pixels"),
    "PNG of an unknown kind": (png(5, 5, 9), "colour type 9 with 8 bits"),
    "palette PNG without palette": (png(5, 5, 3), "it has no palette"),
    "PNG with a flipped bit": (png(5, 5)[:-20] + b"\x55" + png(5, 5)[-19:], "checksum of its part IDAT is wrong"),
    "PNG without end": (png(5, 5)[:-12], "it is cut short"),
    "JPEG without quantisation tables": (without(0xDB), "its quantisation tables are missing"),
    "JPEG without Huffman tables": (without(0xC4), "its Huffman tables are missing"),
    "JPEG without body": (JPEG[: START + 14] + b"\xff\xd9", "it has no pixels"),
    "JPEG cut in half": (JPEG[: len(JPEG) // 2], "it is cut short"),
    "JPEG that claims more than it holds": (big_jpeg(), "GiB; 4 are allowed|more than its"),
    "TIFF cut in half": (LZW[: len(LZW) // 2], "TIFF"),
    "TIFF of nothing": (b"II*\0\x08\0\0\0\0\0", "TIFF"),
    "WebP of nothing": (b"RIFF\x10\0\0\0WEBPVP8L", "WEBP"),
    "GIF of nothing": (b"GIF89a", "GIF"),
    "BMP of nothing": (b"BM" + bytes(20), "BMP"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_whole_image_is_named_before_memory_is_taken(name: str) -> None:
    data, message = BAD[name]
    for decode in (decode_image, decode_mask):
        tracemalloc.start()
        with pytest.raises(ValueError, match=message) as error:
            decode(data, "bad.png")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert str(error.value).startswith("bad.png: not a readable image (") and "\n" not in str(error.value)
        assert peak < 50e6


SCENE = np.kron(np.random.default_rng(3).integers(0, 256, (12, 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
BODIES = {
    "baseline": saved(Image.fromarray(SCENE), "JPEG"),
    "progressive": saved(Image.fromarray(SCENE), "JPEG", progressive=True),
    "grey": saved(Image.fromarray(SCENE[:, :, 0]), "JPEG"),
    "LZW": tiff(SCENE, photometric="rgb", compression="lzw"),
    "deflate": tiff(SCENE, photometric="rgb", compression="deflate"),
}


@pytest.mark.parametrize("name", BODIES)
def test_damage_in_the_body_is_seen(name: str) -> None:
    data = BODIES[name]
    assert decode_image(data).shape == SCENE.shape
    middle = len(data) * 2 // 3
    with pytest.raises(ValueError, match=r"^x: not a readable image \(a damaged (JPEG|TIFF): ((?!readable)[^\n])+\)$"):
        decode_image(data[:middle] + bytes(range(1, 65)) + data[middle + 64 :], "x")


def test_a_jpeg_that_ends_early_with_an_end_and_one_with_zeros_before_it() -> None:
    data = BODIES["baseline"]
    with pytest.raises(ValueError, match="premature end of data segment"):
        decode_image(data[: len(data) // 2] + data[-2:])
    np.testing.assert_array_equal(decode_image(data[:-2] + bytes(40) + data[-2:]), decode_image(data))


def test_a_photo_of_a_phone_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    with pytest.raises(ImportError, match=r"^p\.heic: a HEIC photo needs pillow-heif; .* 'panfpn\[heic\]'"):
        read_header(heic, "p.heic")


def test_heic_photos_are_read() -> None:
    heif = pytest.importorskip("pillow_heif", reason="extra `heic` is not installed")
    heif.register_heif_opener()
    data = saved(Image.fromarray(np.full((32, 48, 3), (200, 30, 40), np.uint8)), "HEIF")
    assert read_header(data).lossy
    assert np.abs(decode_image(data).astype(int) - (200, 30, 40)).max() < 10


def test_masks_larger_than_opencv_takes(tmp_path: Path) -> None:
    """14,000² of a palette, which Pillow takes for a bomb."""
    picture = Image.new("P", (14_000, 14_000), 1)
    picture.putpalette([0, 0, 0, 128, 0, 0])
    picture.putpixel((5, 7), 0)
    picture.save(tmp_path / "m.png", compress_level=1)
    mask = decode_mask((tmp_path / "m.png").read_bytes())
    assert mask.shape == (14_000, 14_000) and mask.dtype == np.uint8
    assert (mask[7, 5], mask[0, 0], int(mask.sum(dtype=np.int64))) == (0, 1, 14_000**2 - 1)
