"""Files in and out: pixels decoded with clear errors, and writes that are whole or not there at all.

In: paths and bytes. Out: RGB images, raw masks, digests. Nothing here knows what a pixel value means.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})


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
    content = _read(path)
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
    image = _decode(data, cv2.IMREAD_COLOR, source)  # [H, W, 3] BGR, EXIF orientation applied
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[no-any-return]


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image file as RGB uint8 [H, W, 3]."""
    return decode_image(_read(path), path)


def read_mask(path: Path) -> npt.NDArray[np.generic]:
    """Read a mask file as it was stored: [H, W] of 8, 16 or 32 bits, or RGB uint8 [H, W, 3].

    A palette PNG gives its indices, which OpenCV would expand to colours; Pillow reads that one kind. A grey PNG of
    1, 2 or 4 bits gives its own values, which OpenCV stretches to 0..255.
    """
    data = _read(path)
    depth, color_type = data[24:26] if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 26 else (8, 0)  # in IHDR
    if color_type == 3:
        return _palette_indices(data, path)
    mask = _decode(data, cv2.IMREAD_UNCHANGED, path)
    if color_type == 0 and depth < 8:
        mask = np.asarray(mask, np.uint8) // (255 // (2**depth - 1))
    if mask.ndim == 3:
        if mask.shape[2] == 4:
            mask = mask[:, :, :3]
        mask = mask[:, :, 0] if mask.shape[2] == 1 else mask[:, :, ::-1]
    return np.ascontiguousarray(mask)


def _palette_indices(data: bytes, path: Path) -> npt.NDArray[np.uint8]:
    import io  # noqa: PLC0415 - palette masks are rare: the common path does not pay for Pillow

    from PIL import Image  # noqa: PLC0415

    try:
        return np.array(Image.open(io.BytesIO(data)), np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable palette PNG ({error})") from error


def is_hidden(path: Path, root: Path) -> bool:
    """Whether a part of `path` below `root` begins with a dot: editors' and systems' own files, not data."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
