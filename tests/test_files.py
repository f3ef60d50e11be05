"""Files in and out: a write is whole or not there at all, and what cannot be written or read is named."""

import errno
import json
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from panfpn.data.images import read_image, read_mask
from panfpn.files import (
    ids_to_rgb,
    printable,
    read_json,
    replacing,
    rgb_to_ids,
    sha256,
    write_image,
    write_json,
    write_text,
)


def pixels(*shape: int, dtype: type = np.uint8, largest: int | None = None) -> np.ndarray:
    high = int(np.iinfo(dtype).max if largest is None else largest) + 1
    return np.random.default_rng(0).integers(0, high, shape, dtype=np.int64).astype(dtype)


def test_rgb_keeps_its_channel_order(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    write_image(path, np.full((2, 3, 3), (200, 30, 4), np.uint8))
    assert np.asarray(Image.open(path))[0, 0].tolist() == [200, 30, 4]
    assert read_image(path)[1, 2].tolist() == [200, 30, 4]
    assert read_mask(path)[1, 2].tolist() == [200, 30, 4]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float64])
def test_png_cannot_hold_more_than_16_bits_and_says_so(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "wide.png"
    with pytest.raises(ValueError, match=r"wide\.png"):  # or else the values are clipped to 255
        write_image(path, np.array([[0, 70_000]], dtype))
    assert not path.exists()


@pytest.mark.parametrize("name", ["a.xyz", "a"])
def test_suffix_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: OpenCV cannot write an image with suffix"):
        write_image(tmp_path / name, pixels(2, 2))
    assert list(tmp_path.iterdir()) == []


def test_replacing_makes_folders_and_leaves_only_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "a.txt"
    write_text(path, "grüße")
    assert path.read_bytes() == "grüße".encode()
    assert list(path.parent.iterdir()) == [path]
    write_text(path, "second")
    assert path.read_text() == "second"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_replacing_keeps_the_old_file_when_the_block_raises(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        assert temporary.parent == path.parent  # else the rename could cross file systems
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_shows_no_half_written_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_replacing_gives_the_permissions_of_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_text("")
    write_text(tmp_path / "ours", "")
    ordinary, ours = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "ours"))
    assert ours == ordinary


def test_json_that_cannot_be_written_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, None]})
    assert json.loads(path.read_text()) == {"a": [1, None]}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": [1, None]}
    assert list(tmp_path.iterdir()) == [path]


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "not JSON"), (b"\xff\xfe\x00", "not JSON"), (b"[1]", "expected a JSON object, found list"),
     (b"", "not JSON"), (b"[" * 100_000, "not JSON")],
)  # fmt: skip
def test_json_that_cannot_be_used_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json: {message}"):
        read_json(tmp_path / "a.json")


def test_json_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1, None, 0.1]})
    assert read_json(tmp_path / "a.json") == {"ä": [1, None, 0.1]}
    with pytest.raises(ValueError, match=r"b\.json: cannot be read"):
        read_json(tmp_path / "b.json")


def test_numbers_in_colours_by_hand() -> None:
    rgb = np.array([[[1, 2, 3], [255, 255, 255]], [[0, 0, 0], [0, 1, 0]]], np.uint8)
    ids = np.array([[1 + 256 * 2 + 65536 * 3, (1 << 24) - 1], [0, 256]])
    np.testing.assert_array_equal(rgb_to_ids(rgb), ids)
    np.testing.assert_array_equal(ids_to_rgb(ids), rgb)
    np.testing.assert_array_equal(rgb_to_ids(rgb[:, ::-1]), ids[:, ::-1])  # a view
    for wrong in (np.array([[-1]]), np.array([[0, 1 << 24]])):
        with pytest.raises(ValueError, match=r"segment ids reach from .* a PNG holds 0 to 16777215"):
            ids_to_rgb(wrong)


@settings(deadline=None, max_examples=40)
@given(
    rgb=hnp.arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 7), st.just(3))),
    dtype=st.sampled_from([np.int32, np.int64]),
)
def test_numbers_in_colours_round_trip(rgb: np.ndarray, dtype: type) -> None:
    ids = rgb_to_ids(rgb)
    assert ids.dtype == np.int32 and ids.shape == rgb.shape[:2]
    np.testing.assert_array_equal(ids_to_rgb(ids.astype(dtype).T.copy().T), rgb)  # of any layout


def test_a_full_disk_is_named_by_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(OSError, match=r"No space left on device: .*a\.json") as error, replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(path) and list(tmp_path.iterdir()) == []


def test_what_a_terminal_may_show() -> None:
    assert printable("a\x1b[31mb\x07\u202e\ng") == "a\\x1b[31mb\\x07\\u202e\ng"
    assert len(printable("x" * 100_000)) < 2100 and printable("grüße ×") == "grüße ×"
