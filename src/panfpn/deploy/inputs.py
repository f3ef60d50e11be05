"""What can be labelled. In: a path, bytes, PIL image, array, folder, glob or video. Out: RGB images with names."""

import glob
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.data.images import IMAGE_SUFFIXES, decode_image, read_image
from panfpn.files import is_hidden

WRITTEN_SUFFIXES = (".png", ".jpg", ".json")  # of results
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})

Image = npt.NDArray[np.uint8]


def as_image(image: Any) -> Image:
    """An RGB uint8 array [H, W, 3] of a path, encoded bytes, PIL image or array; ValueError says what it is instead."""
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image))
    if not isinstance(image, np.ndarray):
        from PIL import Image as Pillow  # noqa: PLC0415 - only who passes PIL images pays for it
        from PIL import ImageOps  # noqa: PLC0415

        if not isinstance(image, Pillow.Image):
            raise ValueError(
                f"cannot predict a {type(image).__name__}; give a path, bytes, a PIL image or an RGB array"
            )
        image = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if image.dtype != np.uint8:
        raise ValueError(f"an image array must be uint8 (0 to 255), this one is {image.dtype}")
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] not in (3, 4) or not image.size:
        raise ValueError(f"an image array must have shape [H, W, 3], this one has {list(image.shape)}")
    return np.asarray(image[:, :, :3])


@dataclass(frozen=True, slots=True)
class Source:
    """One image to be predicted: its name (the stem of what is written) and how to read it."""

    name: str
    read: Callable[[], Image]


class Inputs:
    """All images behind paths, folders, globs and videos, as `Source`s; nothing is decoded before its turn.

    Names are unique: the path below a folder argument without suffix, with the suffix where two would clash; a video's
    frames lie in a folder of its name. What lies in the folder `out` is not taken as input. ValueError for an argument
    behind which there is nothing.
    """

    def __init__(self, arguments: Sequence[str | Path], *, out: Path | None = None) -> None:
        listed: list[tuple[str, Path]] = []
        for argument in arguments:
            listed += _expand(str(argument), out)
        stems = Counter(name for name, _ in listed)
        self.files: list[tuple[str, Path]] = []
        taken: set[str] = set()
        for stem, path in listed:
            name = base = stem if stems[stem] == 1 else f"{stem}_{path.suffix[1:]}"
            k = 2
            while not taken.isdisjoint(written_stems(name)):
                name, k = f"{base}_{k}", k + 1
            taken.update(written_stems(name))
            self.files.append((name, path))
        self.count = sum(_num_frames(path) if _is_video(path) else 1 for _, path in self.files)

    def rename(self, names: Sequence[str]) -> None:
        """Write under other names; ValueError if one of the inputs is a video, which has many."""
        for _, path in self.files:
            if _is_video(path):
                raise ValueError(f"{path}: is a video; only images can be renamed one by one")
        self.files = [(name, path) for name, (_, path) in zip(names, self.files, strict=True)]

    def __iter__(self) -> Iterator[Source]:
        for name, path in self.files:
            if _is_video(path):
                yield from _frames(name, path)
            else:
                yield Source(name, partial(read_image, path))


def written_stems(name: str) -> tuple[str, ...]:
    """Stems of the files that may be written for an image: two images must not share one."""
    return name, *(f"{name}_{output}" for output in ("overlay", "confidence", "labels", "instances"))


def _expand(argument: str, out: Path | None) -> list[tuple[str, Path]]:
    path = Path(argument).expanduser()
    if path.is_dir():
        wanted = (p for p in sorted(path.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES)
        files = [p for p in wanted if p.is_file() and not is_hidden(p, path) and not _below(p, out, path)]
        if not files:
            raise ValueError(f"{path}: holds no images or videos")
        return [(p.relative_to(path).with_suffix("").as_posix(), p) for p in files]
    if path.is_file():
        return [(path.stem, path)]
    paths = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    matches = [p for p in map(Path, paths) if p.is_file()]
    if not matches:
        raise ValueError(f"{argument}: no such file or folder, and no file matches it as a pattern")
    return [(p.stem, p) for p in matches]


def _below(path: Path, out: Path | None, root: Path) -> bool:
    """Whether `path` is a result of an earlier run: in `out`, where that lies inside the input folder `root`."""
    return out is not None and out.resolve() != root.resolve() and path.resolve().is_relative_to(out.resolve())


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _num_frames(path: Path) -> int:
    """As the container claims: for the progress bar only."""
    capture = cv2.VideoCapture(str(path))
    try:
        return max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        capture.release()


def _frames(name: str, path: Path) -> Iterator[Source]:
    capture = cv2.VideoCapture(str(path))
    try:
        number = 0
        while True:
            more, frame = capture.read()
            if not more:
                break
            yield Source(f"{name}/{number:06d}", partial(cv2.cvtColor, frame, cv2.COLOR_BGR2RGB))
            number += 1
        if number == 0:
            yield Source(name, partial(_no_frames, path))
    finally:
        capture.release()


def _no_frames(path: Path) -> Image:
    raise ValueError(f"{path}: not a readable video (no frame could be decoded)")
