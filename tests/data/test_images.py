"""Image files decoded: what is written is what is read, and damage is named."""

import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from panfpn.data import images
from panfpn.data.formats import png as png_format
from panfpn.data.header import read_header
from panfpn.data.images import decode_image, decode_mask, read_image, read_mask
from panfpn.files import write_image
from panfpn.types import Reading

ORIENTATION = 0x0112  # the EXIF tag


def pixels(*shape: int, dtype: type = np.uint8, largest: int | None = None) -> np.ndarray:
    high = int(np.iinfo(dtype).max if largest is None else largest) + 1
    return np.random.default_rng(0).integers(0, high, shape, dtype=np.int64).astype(dtype)


def palette_image(indices: np.ndarray) -> Image.Image:
    picture = Image.fromarray(indices).copy()
    picture.putpalette([(37 * k + 11) % 256 for k in range(768)])
    assert picture.mode == "P"
    return picture


@settings(deadline=None, max_examples=30)
@given(
    image=st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: hnp.arrays(dtype, st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.just((3, 5, 3)))
    )
)
def test_png_round_trip(tmp_path_factory: pytest.TempPathFactory, image: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("png") / "m.png"
    write_image(path, image)
    found = read_mask(path)
    assert found.dtype == image.dtype
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"])
def test_every_image_suffix_is_written_and_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, np.full((8, 16, 3), (200, 30, 40), np.uint8))
    found = read_image(path)
    assert (found.shape, found.dtype) == ((8, 16, 3), np.uint8)
    assert np.abs(found.astype(int) - (200, 30, 40)).max() <= 8  # the lossy ones


def test_tiff_of_32_bits_is_read(tmp_path: Path) -> None:
    mask = np.array([[0, 70_000], [2**31 - 1, 5]], np.int32)
    Image.fromarray(mask).save(tmp_path / "wide.tif")
    np.testing.assert_array_equal(read_mask(tmp_path / "wide.tif"), mask)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_png_gives_its_indices(tmp_path: Path, bits: int) -> None:
    indices = pixels(5, 7, largest=2**bits - 1)
    palette_image(indices).save(tmp_path / "p.png", bits=bits)
    assert (tmp_path / "p.png").read_bytes()[24:26] == bytes([bits, 3])  # bit depth, colour type palette
    found = read_mask(tmp_path / "p.png")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, indices)
    assert read_image(tmp_path / "p.png").shape == (5, 7, 3)


def test_one_bit_png_gives_zeros_and_ones(tmp_path: Path) -> None:
    bits = pixels(5, 9, largest=1)
    Image.fromarray(bits.astype(bool)).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "bits.png"), bits)  # as stored, not stretched to 255


def test_alpha_of_a_mask_is_dropped(tmp_path: Path) -> None:
    rgba = pixels(4, 5, 4)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "rgba.png"), rgba[:, :, :3])
    grey = pixels(4, 5, 2)
    Image.fromarray(grey, mode="LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "la.png"), grey[:, :, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_jpeg_is_applied(tmp_path: Path, orientation: int) -> None:
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :16] = (250, 0, 0)  # one red quarter shows where the corner went
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(stored).save(tmp_path / "e.jpg", exif=exif, quality=95)
    upright = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.transpose(1, 0, 2), 6: np.rot90(stored, -1), 7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]  # fmt: skip
    found = read_image(tmp_path / "e.jpg")
    assert found.shape == upright.shape
    np.testing.assert_array_equal(found[:, :, 0] > 125, upright[:, :, 0] > 125)


def encoded(suffix: str) -> bytes:
    file = io.BytesIO()
    picture = palette_image(pixels(40, 40)) if suffix == ".palette.png" else Image.fromarray(pixels(40, 40, 3))
    picture.save(file, format="JPEG" if suffix == ".jpg" else "PNG")
    return file.getvalue()


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("suffix", [".png", ".palette.png", ".jpg"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.9])
def test_truncated_file_is_named(tmp_path: Path, read: object, suffix: str, share: float) -> None:
    whole = encoded(suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError) as error:
        read(path)  # type: ignore[operator]
    assert str(error.value).startswith(f"{path}: not a readable")


@pytest.mark.parametrize("suffix", [".png", ".palette.png"])
def test_damaged_mask_is_never_read_as_another(tmp_path: Path, suffix: str) -> None:
    whole = encoded(suffix)
    path = tmp_path / f"m{suffix}"
    path.write_bytes(whole)
    wanted = read_mask(path)
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 40):
        broken = bytearray(whole)
        broken[place] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        try:
            np.testing.assert_array_equal(read_mask(path), wanted)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_file_that_is_no_image_missing_or_a_folder_is_named(tmp_path: Path, read: object) -> None:
    text = tmp_path / "notes.png"
    text.write_text("not an image")
    for path, message in (
        (text, "not a readable image"),
        (tmp_path / "gone.png", "No such file"),
        (tmp_path, "folder|Is a"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            read(path)  # type: ignore[operator]
        assert str(error.value).startswith(f"{path}: ")


def test_bytes_that_are_no_image_name_their_source() -> None:
    with pytest.raises(ValueError, match=r"^upload 7: not a readable image"):
        decode_image(b"GIF89a", "upload 7")


def png(pixels: np.ndarray, *chunks: tuple[bytes, bytes], **options: object) -> bytes:
    """A PNG as Pillow writes it, with more chunks right after its header."""
    box = io.BytesIO()
    Image.fromarray(pixels).save(box, "PNG", **options)
    data = box.getvalue()
    more = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return data[:33] + more + data[33:]


# Orientation 6: to be turned by 90°.
EXIF = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"


GAMMA = (b"gAMA", struct.pack(">I", 220_000))


TURNED_TEXT = b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(EXIF) + 6, (b"Exif\0\0" + EXIF).hex().encode())


@pytest.mark.parametrize(
    ("chunks", "shape", "fast"),
    [
        ((), (37, 53, 3), True), ((), (37, 53), True), ((), (1, 1, 3), True),
        ((GAMMA, (b"tEXt", b"Software\0me"), (b"tEXt", TURNED_TEXT)), (37, 53, 3), True),
        ((GAMMA, (b"pHYs", bytes(9))), (37, 53), True),
        (((b"eXIf", EXIF),), (37, 53, 3), False), (((b"tRNS", bytes(6)),), (37, 53, 3), False),
        (((b"tRNS", bytes(2)),), (37, 53), False), ((), (37, 53, 4), False),
    ],
)  # fmt: skip
def test_the_fast_decoder_gives_opencvs_pixels(
    chunks: tuple[tuple[bytes, bytes], ...], shape: tuple[int, ...], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kornia_rs.io", reason="kornia-rs (extra `fast`) is not installed")
    data = png(pixels(*shape), *chunks)
    assert (png_format.decode_plain(data, read_header(data)) is not None) == fast
    image, mask = decode_image(data), decode_mask(data)
    monkeypatch.setattr(png_format, "fast_decoder", lambda: None)
    np.testing.assert_array_equal(image, decode_image(data))
    np.testing.assert_array_equal(mask, decode_mask(data))
    assert mask.dtype == np.uint8 and mask.flags.c_contiguous


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: d[:-12], lambda d: d[:90] + b"\0" + d[91:]])
def test_damaged_png_is_opencvs_to_judge(damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(data: bytes) -> object:
        try:
            return decode_image(data, "x.png").tolist()
        except ValueError as error:
            return str(error)

    data = damage(png(pixels(40, 50, 3)))
    found = judged(data)
    monkeypatch.setattr(png_format, "fast_decoder", lambda: None)
    assert found == judged(data)


def test_without_the_fast_decoder_png_is_read_by_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia_rs.io", None)  # importing it fails
    png_format.fast_decoder.cache_clear()
    try:
        image = pixels(9, 7, 3)
        np.testing.assert_array_equal(decode_image(png(image)), image)
        assert png_format.fast_decoder() is None
    finally:
        png_format.fast_decoder.cache_clear()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("shape", [(20, 31), (20, 31, 3), (20, 31, 4)])
def test_rgb_is_opencvs_bgr_turned_round(suffix: str, shape: tuple[int, ...]) -> None:
    data = cv2.imencode(suffix, pixels(*shape))[1]
    np.testing.assert_array_equal(decode_image(data.tobytes()), cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])


SCENE = np.random.default_rng(1).integers(0, 256, (20, 30, 5), dtype=np.uint8)


def tif(samples: np.ndarray, **options: object) -> bytes:
    box = io.BytesIO()
    photometric = "rgb" if samples.ndim == 3 and samples.shape[2] in (3, 4) else "minisblack"
    tifffile.imwrite(box, samples, **{"photometric": photometric, "planarconfig": "contig"} | options)
    return box.getvalue()


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "packbits"])
@pytest.mark.parametrize("bands", [1, 3, 4, 5])
def test_bands_as_they_are_stored(bands: int, compression: str | None) -> None:
    samples = SCENE[:, :, :bands] if bands > 1 else SCENE[:, :, 0]
    data = tif(samples, compression=compression)
    found = decode_image(data, reading=Reading(channels=bands))
    np.testing.assert_array_equal(found, samples.reshape(20, 30, bands))
    if bands > 1:
        chosen = decode_image(data, reading=Reading(channels=2, bands=(bands, 1)))
        np.testing.assert_array_equal(chosen, samples[:, :, [bands - 1, 0]])


@pytest.mark.parametrize("extra", [0, 1, 2])  # unspecified, premultiplied, straight
@pytest.mark.parametrize("form", ["tif", "png", "webp"])
def test_a_fourth_band_changes_none_of_the_three(form: str, extra: int) -> None:
    rgbn = SCENE[:, :, :4]
    if form == "tif":
        data = tif(rgbn, extrasamples=[extra])
    else:
        box = io.BytesIO()
        Image.fromarray(rgbn).save(box, form, **({"lossless": True, "exact": True} if form == "webp" else {}))
        data = box.getvalue()
    np.testing.assert_array_equal(decode_image(data), rgbn[:, :, :3])
    np.testing.assert_array_equal(decode_image(data, reading=Reading(channels=4)), rgbn)


def test_one_band_of_a_photo_is_its_grey() -> None:
    grey = decode_image(png(SCENE[:, :, :3]), reading=Reading(channels=1))
    wanted = cv2.cvtColor(SCENE[:, :, :3], cv2.COLOR_RGB2GRAY)
    assert grey.shape == (20, 30, 1) and np.abs(grey[:, :, 0].astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(
    ("data", "reading", "message"),
    [
        (tif(SCENE), Reading(), r"x: has 5 bands, and the network sees 3; name those .* data.bands 1 2 3"),
        (tif(SCENE[:, :, :2]), Reading(), r"has 2 bands, and the network sees 3"),
        (tif(SCENE[:, :, :3]), Reading(channels=4), r"has 3 bands, and the network sees 4"),
        (tif(SCENE), Reading(bands=(1, 2, 7)), r"has 5 bands; data.bands names band 7"),
        (tif(SCENE[:, :, 0].astype(np.uint16) * 16), Reading(), r"uint16 pixels from .* data.range 0 65535, data"),
        (tif(SCENE.astype(np.float32)[:, :, 0]), Reading(), r"float32 pixels from .*or data.range percentile"),
        (tif(np.full((4, 4), np.nan, np.float32)), Reading(range=(0, 1)), r"x: nan in row 0, column 0 of band 1"),
        (tif(np.zeros((4, 4), np.complex64)), Reading(range=(0, 1)), r"complex64 pixels"),
    ],
)  # fmt: skip
def test_what_is_left_open_is_named(data: bytes, reading: Reading, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_image(data, "x", reading)


def test_a_range_says_what_is_black_and_white() -> None:
    grey = SCENE[:, :, 0]
    repeated = np.repeat(grey[:, :, None], 3, 2)
    for samples, limits in (
        (grey.astype(np.uint16) * 257, (0, 65535)), (grey.astype(np.uint16) * 16, (0, 255 * 16)),
        (51241 + grey.astype(np.uint16) * 4, (51241, 51241 + 255 * 4)), (grey / np.float32(255), (0, 1)),
    ):  # fmt: skip
        np.testing.assert_array_equal(decode_image(tif(samples), reading=Reading(range=limits)), repeated)
        found = images.as_channels(samples, Reading(range=limits), "array")
        np.testing.assert_array_equal(found, repeated)
    spread = decode_image(tif(grey.astype(np.uint16) * 3 + 1000), reading=Reading(range="percentile"))
    assert spread.min() == 0 and spread.max() == 255 and len(np.unique(spread)) > 200
    np.testing.assert_array_equal(decode_image(png(grey), reading=Reading(range=(0, 9))), repeated)  # 8 bits: as it is
    assert decode_image(tif(np.full((4, 4), 7, np.uint16)), reading=Reading(range="percentile")).max() == 0


TRUTH = np.zeros((48, 64), bool)
TRUTH[10:30, 20:50] = True


def black_and_white(order: list[int]) -> Image.Image:
    picture = Image.fromarray(TRUTH.astype(np.uint8)).copy()
    picture.putpalette(order)
    return picture


@pytest.mark.parametrize(
    ("picture", "form", "options"),
    [
        *((Image.fromarray(TRUTH), form, {}) for form in ("PNG", "TIFF", "BMP", "GIF", "PPM")),
        (Image.fromarray(TRUTH), "TIFF", {"compression": "group4"}),
        *((black_and_white([0, 0, 0, 255, 255, 255]), form, {}) for form in ("PNG", "TIFF", "GIF")),
        (black_and_white([0, 0, 0, 255, 255, 255]), "PNG", {"bits": 1}),
    ],
)  # fmt: skip
def test_a_mask_of_one_bit_has_zeros_and_ones_in_every_format(
    picture: Image.Image, form: str, options: dict[str, object]
) -> None:
    box = io.BytesIO()
    picture.save(box, form, **options)
    mask = decode_mask(box.getvalue())
    if form == "GIF" and picture.mode == "1":
        mask = mask // 255  # it has no bits, only 256 greys
    np.testing.assert_array_equal(mask, TRUTH)


def test_white_is_zero_in_some_tiffs() -> None:
    data = tif(TRUTH, photometric="miniswhite")  # stored 1 is black
    np.testing.assert_array_equal(decode_mask(data), TRUTH)  # what is stored, as tifffile writes truth values
    np.testing.assert_array_equal(decode_image(data)[:, :, 0] > 0, ~TRUTH)
    grey = tif(SCENE[:, :, 0], photometric="miniswhite")
    np.testing.assert_array_equal(decode_image(grey)[:, :, 0], 255 - SCENE[:, :, 0])


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "GIF"])
def test_a_palette_gives_indices_or_colours(form: str) -> None:
    indices = pixels(20, 30, largest=7)
    picture = palette_image(indices)
    box = io.BytesIO()
    picture.save(box, form)
    np.testing.assert_array_equal(decode_mask(box.getvalue(), colors=True), np.array(picture.convert("RGB")))
    np.testing.assert_array_equal(decode_image(box.getvalue()), np.array(picture.convert("RGB")))
    if form != "GIF":  # which sorts its palette
        np.testing.assert_array_equal(decode_mask(box.getvalue()), indices)


def test_a_mask_of_floats_must_be_whole() -> None:
    whole = pixels(8, 9, largest=20).astype(np.float32)
    np.testing.assert_array_equal(decode_mask(tif(whole)), whole.astype(np.int32))
    for value in (1.5, np.nan, np.inf):
        whole[3, 4] = value
        with pytest.raises(ValueError, match=rf"m.tif: {value} in row 3, column 4; a mask has whole numbers"):
            decode_mask(tif(whole), "m.tif")


@pytest.mark.parametrize("form", ["TIFF", "GIF", "PNG", "WEBP"])
def test_pages_are_named_not_guessed(form: str) -> None:
    first, second = (Image.fromarray(np.full((12, 16, 3), value, np.uint8)) for value in (40, 200))
    box = io.BytesIO()
    lossless = {"lossless": True} if form == "WEBP" else {}
    first.save(box, form, save_all=True, append_images=[second], **lossless)
    for decode in (decode_image, decode_mask):
        with pytest.raises(ValueError, match=r"^x: has 2 pages; say which is meant, as in data\.pages 1"):
            decode(box.getvalue(), "x")
    assert decode_image(box.getvalue(), reading=Reading(page=1))[0, 0, 0] == 40
    if form != "PNG":
        assert decode_image(box.getvalue(), reading=Reading(page=2))[0, 0, 0] == 200
    with pytest.raises(ValueError, match=r"has 2 pages; data\.pages is 3"):
        decode_image(box.getvalue(), reading=Reading(page=3))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_in_every_format(form: str, orientation: int) -> None:
    stored = pixels(12, 20, 3)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    box = io.BytesIO()
    Image.fromarray(stored).save(box, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    upright = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(box.getvalue()))).convert("RGB"))
    np.testing.assert_array_equal(decode_image(box.getvalue()), upright)


def test_other_colour_spaces_become_rgb_or_are_refused() -> None:
    rgb = cv2.resize(SCENE[:2, :3, :3], (30, 20), interpolation=cv2.INTER_LINEAR)
    for mode, form in (("CMYK", "TIFF"), ("CMYK", "JPEG"), ("YCbCr", "TIFF")):
        box = io.BytesIO()
        Image.fromarray(rgb).convert(mode).save(box, form, **({"quality": 98} if form == "JPEG" else {}))
        assert np.abs(decode_image(box.getvalue()).astype(int) - rgb).max() < 12, (mode, form)
        grey = decode_image(box.getvalue(), reading=Reading(channels=1))[:, :, 0]
        assert np.abs(grey.astype(int) - cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)).max() < 12
        with pytest.raises(ValueError, match=r"a mask in other colours than RGB|which changes values"):
            decode_mask(box.getvalue())
    box = io.BytesIO()
    Image.fromarray(rgb, mode="LAB").save(box, "TIFF")
    with pytest.raises(ValueError, match=r"^x: .*its colours are CIE"):
        decode_image(box.getvalue(), "x")


def test_values_that_a_decoder_would_stretch_are_refused() -> None:
    codecs = pytest.importorskip("imagecodecs", reason="extra `tiff` is not installed")
    for bits in (12, 15):
        data = codecs.jpeg2k_encode(SCENE[:, :, 0].astype(np.uint16) % 4, codecformat="jp2", reversible=True, level=0,
                                    bitspersample=bits)  # fmt: skip
        with pytest.raises(ValueError, match=f"its values have {bits} bits; save it as TIFF"):
            decode_mask(data)
    for largest in (b"10", b"127", b"4095"):
        with pytest.raises(ValueError, match="its largest value is"):
            decode_mask(b"P5\n# made by hand\n30 20\n" + largest + b"\n" + bytes(1200))
    plain = b"P5\n30 20\n255\n" + SCENE[:, :, 0].tobytes()
    np.testing.assert_array_equal(decode_mask(plain), SCENE[:, :, 0])


def test_an_index_beyond_the_palette_is_named() -> None:
    picture = Image.fromarray(np.array([[0, 1], [3, 1]], np.uint8)).copy()
    picture.putpalette([0, 0, 0, 9, 9, 9, 20, 20, 20, 30, 30, 30])
    box = io.BytesIO()
    picture.save(box, "PNG", bits=8)
    data = box.getvalue()
    start = data.index(b"PLTE")
    body = b"PLTE" + data[start + 4 : start + 10]
    short = (
        data[: start - 4]
        + struct.pack(">I", 6)
        + body
        + struct.pack(">I", zlib.crc32(body))
        + data[data.index(b"IDAT") - 4 :]
    )
    assert decode_mask(short).tolist() == [[0, 1], [3, 1]]
    with pytest.raises(ValueError, match=r"^x: index 3 in row 1, column 0 is beyond its palette of 2 colours"):
        decode_mask(short, "x", colors=True)


def test_blank_tiles_and_large_blank_masks_are_read() -> None:
    tile = np.full((16, 16), 5, np.uint8)
    box = io.BytesIO()
    with tifffile.TiffWriter(box) as file:
        tiles = (None if i == 2 else tile for i in range(4))
        file.write(tiles, shape=(32, 32), dtype=np.uint8, tile=(16, 16), compression="zlib")
    mask = decode_mask(box.getvalue())
    assert mask[20, 0] == 0 and mask[0, 20] == mask[0, 0] == mask[20, 20] == 5
    box = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(box, "PNG")
    assert decode_mask(box.getvalue()).shape == (12_000, 12_000)


def test_a_band_behind_alpha_is_not_taken_for_it() -> None:
    samples = SCENE[:, :, :5]
    data = tif(samples, photometric="rgb", extrasamples=["unassalpha", "unspecified"])
    with pytest.raises(ValueError, match="has 5 bands, and the network sees 4"):
        decode_image(data, reading=Reading(channels=4))
    found = decode_image(data, reading=Reading(channels=4, bands=(1, 2, 3, 5)))
    np.testing.assert_array_equal(found, samples[:, :, [0, 1, 2, 4]])
