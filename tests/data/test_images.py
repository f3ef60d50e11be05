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
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from panfpn.data import images
from panfpn.data.images import decode_image, decode_mask, read_image, read_mask
from panfpn.files import (
    write_image,
)

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
    np.testing.assert_array_equal(read_mask(tmp_path / "la.png"), np.stack([grey[:, :, 0]] * 3, -1))


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
    by_depth = {color_type: images._decode_plain_png(data, color_type) is not None for color_type in (0, 2)}
    assert by_depth == {0: fast and len(shape) == 2, 2: fast and len(shape) == 3}
    image, mask = decode_image(data), decode_mask(data)
    monkeypatch.setattr(images, "_png_decoder", lambda: None)
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
    monkeypatch.setattr(images, "_png_decoder", lambda: None)
    assert found == judged(data)


def test_without_the_fast_decoder_png_is_read_by_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia_rs.io", None)  # importing it fails
    images._png_decoder.cache_clear()
    try:
        image = pixels(9, 7, 3)
        np.testing.assert_array_equal(decode_image(png(image)), image)
        assert images._png_decoder() is None
    finally:
        images._png_decoder.cache_clear()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("shape", [(20, 31), (20, 31, 3), (20, 31, 4)])
def test_rgb_is_opencvs_bgr_turned_round(suffix: str, shape: tuple[int, ...]) -> None:
    data = cv2.imencode(suffix, pixels(*shape))[1]
    np.testing.assert_array_equal(decode_image(data.tobytes()), cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])
