"""Files in and out: writes that are whole or not there at all, JSON, digests, and ids in colours.

In: paths, bytes and arrays. Out: the same. Nothing here knows what a pixel value means; data/images.py decodes them.
"""

import contextlib
import errno
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

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


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
    except OSError as error:
        if error.errno in _FULL:  # which names no file, or the temporary one
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
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
    data = _parsed(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def read_json_list(path: Path) -> list[Any]:
    """Read a file that holds one JSON list; ValueError names the file if it does not."""
    data = _parsed(path)
    if not isinstance(data, list):
        raise ValueError(f"{path}: expected a JSON list, found {type(data).__name__}")
    return data


def _parsed(path: Path) -> Any:
    content = read_bytes(path)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_image(path: Path, image: npt.NDArray[Any]) -> None:
    """Write an RGB [H, W, 3] or single-channel [H, W] image of 8 or 16 bits; the suffix chooses the format."""
    data = encoded(image, path.suffix, path)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def encoded(image: npt.NDArray[Any], suffix: str, source: object = "the image") -> bytes:
    """An RGB [H, W, 3] or single-channel [H, W] image of 8 or 16 bits as a file's bytes; ValueError names `source`."""
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{source}: {image.dtype} pixels cannot be written; image files hold 8 or 16 bits")
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done = False
    with contextlib.suppress(cv2.error):  # no encoder for this suffix
        done, data = cv2.imencode(suffix, pixels)
    if not done:
        raise ValueError(f"{source}: OpenCV cannot write an image with suffix {suffix!r}; use .png or .jpg")
    return data.tobytes()


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


def printable(text: str, *, longest: int = 2000) -> str:
    """Text of anyone's as a terminal may show it: control characters escaped, lines cut in their middle."""
    lines = []
    for line in text.split("\n"):
        clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
        lines.append(clean if len(clean) <= longest else f"{clean[: longest // 2]} … {clean[-longest // 2 :]}")
    return "\n".join(lines)


def first_line(error: Exception) -> str:
    """What an error of somebody else's library says first, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_bytes(path: Path) -> bytes:
    """A file's content; ValueError names a file that cannot be read, and why."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
