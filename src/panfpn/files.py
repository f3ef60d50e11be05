"""Files in and out: pixels decoded with clear errors, and writes that are whole or not there at all.

In: paths and bytes. Out: RGB images, raw masks, digests. Nothing here knows what a pixel value means.
"""

import contextlib
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
_PNG = b"\x89PNG\r\n\x1a\n"
_PLAIN_CHUNKS = frozenset({b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"tEXt"})


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and vanishes when it does not.

    The content is on disk (fsync) before the rename, so a crash leaves the old file or the new one, never half of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: object) -> None:
    """Write plain data as JSON, whole or not at all."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object; ValueError names the file if it does not."""
    content = read_bytes(path)
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_image(path: Path, image: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
    """Write an RGB [H, W, 3] or single-channel [H, W] image of 8 or 16 bits; the suffix chooses the format."""
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{path}: {image.dtype} pixels cannot be written; image files hold 8 or 16 bits")
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done = False
    with contextlib.suppress(cv2.error):  # no encoder for this suffix
        done, data = cv2.imencode(path.suffix, pixels)
    if not done:
        raise ValueError(f"{path}: OpenCV cannot write an image with suffix {path.suffix!r}; use .png or .jpg")
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _decode(data: bytes, flags: int, source: object) -> npt.NDArray[np.generic]:
    image = None
    if data:
        # A broken header raises; a truncated body gives None, with a warning on stderr that says less than we do.
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ValueError(f"{source}: not a readable image (empty, damaged or of an unknown format)")
    return np.asarray(image)


def decode_image(data: bytes, source: object = "image bytes") -> npt.NDArray[np.uint8]:
    """Decode image bytes to RGB uint8 [H, W, 3]; ValueError names `source` if that fails."""
    image = _decode_plain_png(data, color_type=2)
    if image is None:
        image = _decode(data, cv2.IMREAD_COLOR_RGB, source)  # [H, W, 3], EXIF orientation applied
    return image  # type: ignore[return-value]


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image file as RGB uint8 [H, W, 3]."""
    return decode_image(read_bytes(path), path)


def decode_mask(data: bytes, source: object = "mask bytes") -> npt.NDArray[np.generic]:
    """Decode a mask file's bytes as they were stored: [H, W] of 8, 16 or 32 bits, or RGB uint8 [H, W, 3].

    A palette PNG gives its indices, which OpenCV would expand to colours; Pillow reads that one kind. A grey PNG of
    1, 2 or 4 bits gives its own values, which OpenCV stretches to 0..255.
    """
    depth, color_type = data[24:26] if data[:8] == _PNG and len(data) > 26 else (8, 0)  # in IHDR
    if color_type == 3:
        return _palette_indices(data, source)
    mask = _decode_plain_png(data, color_type)
    if mask is not None:
        return mask
    mask = _decode(data, cv2.IMREAD_UNCHANGED, source)
    if color_type == 0 and depth < 8:
        mask = np.asarray(mask, np.uint8) // (255 // (2**depth - 1))
    if mask.ndim == 3:
        if mask.shape[2] == 4:
            mask = mask[:, :, :3]
        mask = mask[:, :, 0] if mask.shape[2] == 1 else mask[:, :, ::-1]
    return np.ascontiguousarray(mask)


def read_mask(path: Path) -> npt.NDArray[np.generic]:
    """Read a mask file; see `decode_mask`."""
    return decode_mask(read_bytes(path), path)


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


def rgb_to_ids(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Numbers [H, W] that COCO's panoptic PNGs hold as colours [H, W, 3]: R + 256 G + 65536 B."""
    if not rgb.size:  # OpenCV takes none
        return np.zeros(rgb.shape[:2], np.int32)
    four = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2RGBA)  # so that a pixel is one word
    ids = four.view("<i4")[:, :, 0]
    ids &= 0xFFFFFF  # without the fourth channel
    return np.asarray(ids, np.int32)


def ids_to_rgb(ids: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Colours [H, W, 3] of numbers [H, W]; inverse of `rgb_to_ids`, ValueError for a number beyond 24 bits."""
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < 1 << 24:
        raise ValueError(f"segment ids reach from {ids.min()} to {ids.max()}; a PNG holds 0 to {(1 << 24) - 1}")
    return np.ascontiguousarray(ids.astype("<i4", order="C").view(np.uint8).reshape(*ids.shape, 4)[:, :, :3])


@functools.cache
def _png_decoder() -> Callable[..., npt.NDArray[np.uint8]] | None:
    """Where it is installed (extra `fast`), kornia-rs decodes PNG 2 (photographs) to 9 (masks) times as fast."""
    try:
        from kornia_rs.io import decode_image_png_u8  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return decode_image_png_u8  # type: ignore[no-any-return]


def _decode_plain_png(data: bytes, color_type: int) -> npt.NDArray[np.generic] | None:
    """Grey [H, W] (`color_type` 0) or RGB [H, W, 3] (2) of an 8-bit PNG; None for whatever OpenCV shall look at.

    That are all files with a chunk that may change pixels (transparency, EXIF, animation), and damaged ones.
    """
    decoder = _png_decoder()
    wanted = bytes((8, color_type, 0, 0, 0))  # IHDR: 8 bits, not interlaced
    if decoder is None or color_type not in (0, 2) or data[:8] != _PNG or data[24:29] != wanted:
        return None
    place = 8
    while place < len(data):
        if data[place + 4 : place + 8] not in _PLAIN_CHUNKS:
            return None
        place += 12 + int.from_bytes(data[place : place + 4])
    size = int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
    try:
        pixels = decoder(data, size, "rgb" if color_type else "mono")  # [H, W, 3 or 1]
    except Exception:  # it raises nothing more special; OpenCV then reads the file, or says that it cannot be read
        return None
    return pixels if color_type else pixels[:, :, 0]


def _palette_indices(data: bytes, source: object) -> npt.NDArray[np.uint8]:
    import io  # noqa: PLC0415 - palette masks are rare: the common path does not pay for Pillow

    from PIL import Image  # noqa: PLC0415

    try:
        return np.array(Image.open(io.BytesIO(data)), np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{source}: not a readable palette PNG ({error})") from error


def is_hidden(path: Path, root: Path) -> bool:
    """Whether a part of `path` below `root` begins with a dot: editors' and systems' own files, not data."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def read_bytes(path: Path) -> bytes:
    """A file's content; ValueError names a file that cannot be read, and why."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
