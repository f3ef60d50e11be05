"""What can be labelled. In: a path, bytes, PIL image, array, folder, pattern, video, URL … Out: images with names."""

import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt

from panfpn.data.images import IMAGE_SUFFIXES, as_channels, decode_image, pillow_pixels, read_image
from panfpn.data.rasters import RASTER_SUFFIXES, is_raster, open_raster
from panfpn.deploy.manifest import Manifest, written_stems
from panfpn.deploy.streams import VIDEO_SUFFIXES, Video
from panfpn.fetch import fetched, is_url, without_password
from panfpn.listing import LeftOut, files_in
from panfpn.types import RGB, Reading

Image = npt.NDArray[np.uint8]
_LARGE_KINDS = frozenset({".tif", ".tiff", ".jp2"})
_LARGE_FILE = 1 << 24  # bytes; smaller ones are not looked at
_MOST_PIXELS = 100e6
_LARGEST = 1 << 29  # bytes of an image from a server or from standard input


def as_image(image: Any, reading: Reading = RGB) -> Image:
    """A uint8 array [H, W, C] of a path, URL, encoded bytes, PIL image or array; ValueError says what it is instead."""
    if isinstance(image, str) and is_url(image):
        return _read_url(image, reading)
    if isinstance(image, str | Path):
        return read_image(Path(image).expanduser(), reading)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image), reading=reading)
    if not isinstance(image, np.ndarray):
        from PIL import Image as Pillow  # noqa: PLC0415 - only who passes PIL images pays for it

        if not isinstance(image, Pillow.Image):
            raise ValueError(
                f"cannot predict a {type(image).__name__}; give a path, bytes, a PIL image or an RGB array"
            )
        image = pillow_pixels(image)
    if image.ndim not in (2, 3) or not image.size:
        raise ValueError(f"an image array must have shape [H, W] or [H, W, bands], this one has {list(image.shape)}")
    return as_channels(image, reading, "the image array")


@dataclass(frozen=True, slots=True)
class Source:
    """One image to be predicted: its name (the stem of what is written) and how to read it."""

    name: str
    read: Callable[[], Image]


@dataclass(frozen=True, slots=True)
class Input:
    """One thing to be labelled: a file, an address, a camera, or standard input."""

    name: str  # of its results: the path of their stem in the folder of results
    address: str
    path: Path | None = None  # of a local file
    video: Video | None = None
    raster: bool = False  # read window by window, by who labels rasters; no `Source`


class Inputs:
    """All images behind paths, folders, patterns, videos, URLs, cameras and "-", as `Source`s; each read at its turn.

    A name is the path below a folder argument without suffix, or a file's stem; where two would clash, more of their
    paths, and then the suffix, tell them apart. A video's frames lie in a folder of its name. What earlier calls wrote
    is no input. `left_out` counts what is not used. `tiles`: every local image is a raster; else only what is too large
    to be read whole, or of a kind that never is. ValueError for an argument behind which there is nothing.
    """

    def __init__(
        self, arguments: Sequence[str | Path], *, out: Path | None = None, reading: Reading = RGB,
        max_frames: int | None = None, tiles: bool = False,
    ) -> None:  # fmt: skip
        self.left_out, self._reading, self._max_frames = LeftOut(), reading, max_frames
        found: dict[str, _Found] = {}
        for argument in arguments:
            for one in _expand(str(argument), out, self.left_out):
                if one.address in found:
                    self.left_out.add("named twice", Path(one.address))
                found.setdefault(one.address, one)
        self.inputs = [_as_raster(one, tiles) for one in _named(list(found.values()))]

    @property
    def files(self) -> list[tuple[str, Path]]:
        """Names and paths of the local files."""
        return [(one.name, one.path) for one in self.inputs if one.path is not None]

    def count(self) -> int | None:
        """How many images there are, as far as containers tell; None for a stream without an end."""
        if self._max_frames is None and any(one.video and one.video.is_live for one in self.inputs):
            return None
        total = 0
        for one in self.inputs:
            if one.raster:
                continue
            frames = one.video.count() if one.video else 1
            total += max(1, frames) if self._max_frames is None else min(max(1, frames), self._max_frames)
        return total

    def keep(self, wanted: Callable[[Input], bool]) -> tuple[str, ...]:
        """Leave out all inputs but these; returns the names of those that were left out."""
        kept = [one for one in self.inputs if wanted(one)]
        names = {one.name for one in kept}
        gone = tuple(one.name for one in self.inputs if one.name not in names)
        self.inputs = kept
        return gone

    def rename(self, names: Sequence[str]) -> None:
        """Write under other names; ValueError if one of the inputs is no image file."""
        for one in self.inputs:
            if one.video or one.raster or one.path is None:
                raise ValueError(f"{one.address}: is no image file; only those can be renamed one by one")
        self.inputs = [
            Input(name, one.address, one.path) for name, one in zip(names, self.inputs, strict=True)
        ]  # fmt: skip

    def __iter__(self) -> Iterator[Source]:
        for one in self.inputs:
            if one.raster:
                continue
            if one.video:
                yield from self._frames(one.name, one.video)
            elif one.path is not None:
                yield Source(one.name, partial(read_image, one.path, self._reading))
            elif one.address == "-":
                yield Source(one.name, partial(_read_standard_input, self._reading))
            else:
                yield Source(one.name, partial(_read_url, one.address, self._reading))

    def _frames(self, name: str, video: Video) -> Iterator[Source]:
        frames = video.frames()
        try:
            for number, frame in enumerate(frames):
                if number == self._max_frames:
                    return
                yield Source(f"{name}/{number:06d}", partial(as_channels, frame, self._reading, video.shown))
        except ValueError as error:  # after the last frame
            yield Source(name, partial(_raise, str(error)))
        finally:
            frames.close()  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class _Found:
    """An input before it is named: `parts` are those of its path, the last without suffix."""

    address: str
    parts: tuple[str, ...]
    wanted: int  # so many of the last parts make its name, if that is free
    suffix: str = ""
    path: Path | None = None
    video: Video | None = None


def _expand(argument: str, out: Path | None, left_out: LeftOut) -> Iterator[_Found]:
    if not argument:
        raise ValueError("an input is empty; name images, folders, patterns, videos, URLs, a camera's number or -")
    if argument == "-":
        yield _Found("-", ("stdin",), 1)
        return
    if "://" in argument:
        yield _address(argument)
        return
    path = Path(argument).expanduser()
    if path.is_dir() and not is_raster(path):
        files = list(_in_folder(path, out, left_out))
        if not files:
            lost = f"; left out: {left_out}" if left_out.counts else ""
            raise ValueError(f"{path}: holds no images or videos{lost}")
        for file in files:
            yield _of_file(file, len(file.relative_to(path).parts))
        return
    if path.exists():
        yield _of_file(path, 1)
        return
    if argument.isdecimal():
        yield _Found(argument, (f"camera{argument}",), 1, video=Video(argument))
        return
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = [Path(match) for match in matches if Path(match).is_file() or is_raster(Path(match))]
    for match in matches:
        if Path(match).is_dir() and not is_raster(Path(match)):
            left_out.add("folders that a pattern matches", Path(match))
    if not files:
        raise ValueError(f"{argument}: no such file or folder, and no file matches it as a pattern")
    for file in files:
        yield _of_file(file, 1)


def _in_folder(folder: Path, out: Path | None, left_out: LeftOut) -> Iterator[Path]:
    """Images and videos below a folder, without what this call or an earlier one writes there."""
    whole: set[Path] = set()
    own = None if out is None or out.resolve() == folder.resolve() else out.resolve()
    manifests: dict[Path, Manifest | None] = {}
    arrays: dict[Path, bool] = {}  # which folders are one raster each
    for file in files_in(folder, left_out):
        path = file
        for parent in [parent for parent in file.parents if parent.is_relative_to(folder) and parent != folder]:
            if arrays.setdefault(parent, is_raster(parent)):
                path = parent  # the outermost
        if path != file:
            if path in whole:
                continue
            whole.add(path)
        written = False
        for parent in [parent for parent in path.parents if parent.is_relative_to(folder)]:
            if parent not in manifests:
                manifests[parent] = Manifest.of(parent)
            known = manifests[parent]
            written |= known is not None and known.holds(path.relative_to(parent).as_posix())
        if written or (own is not None and path.resolve().is_relative_to(own)):
            left_out.add("results of earlier calls", path)
        elif path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES | RASTER_SUFFIXES:
            yield path
        else:
            left_out.add(f"neither image nor video ({path.suffix or 'no suffix'})", path)


def _of_file(path: Path, wanted: int) -> _Found:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - links stay as they are named
    stem = absolute.stem if absolute.stem.strip(".") else absolute.name.strip(".") or "image"
    parts = (*absolute.parent.parts[1:], stem)
    video = Video(str(path)) if path.suffix.lower() in VIDEO_SUFFIXES else None
    return _Found(str(absolute), parts, wanted, absolute.suffix[1:], path, video)


def _address(url: str) -> _Found:
    if not (is_url(url) or Video(url).is_live):
        raise ValueError(f"{without_password(url)}: cannot be read; http, https and rtsp addresses can")
    split = urlsplit(url)
    inside = PurePosixPath(unquote(split.path))
    parts = tuple(part for part in inside.parts[1:] if part.strip(".")) or ("image",)
    parts = (split.hostname or "host", *parts[:-1], PurePosixPath(parts[-1]).stem)
    moving = Video(url).is_live or inside.suffix.lower() in VIDEO_SUFFIXES
    return _Found(url, parts, 1, inside.suffix[1:], video=Video(url) if moving else None)


def _as_raster(one: Input, tiles: bool) -> Input:
    """The same, as a raster if it is one."""
    if one.path is None or one.video:
        return one
    return replace(one, raster=tiles or is_raster(one.path) or _is_large(one.path))


def _is_large(path: Path) -> bool:
    """Whether an image has more pixels than are labelled in one piece."""
    if path.suffix.lower() not in _LARGE_KINDS or path.stat().st_size < _LARGE_FILE:
        return False
    try:
        with closing(open_raster(path)) as raster:
            return raster.height * raster.width > _MOST_PIXELS
    except (ValueError, ImportError, OSError):  # whoever reads it will say so
        return False


def _named(found: Sequence[_Found]) -> list[Input]:
    """Every input under a name of its own: as many parts of its path as tell it from the others, then its suffix."""
    names = ["/".join(one.parts[-one.wanted :]) for one in found]
    for name in [name for name, count in Counter(names).items() if count > 1]:
        same = [i for i in range(len(found)) if names[i] == name]
        longest = max(len(found[i].parts) for i in same)
        for length in range(min(found[i].wanted for i in same), longest + 1):
            if len({(found[i].parts[-length:], found[i].suffix) for i in same}) == len(same):
                break
        for i in same:
            names[i] = "/".join(found[i].parts[-length:])
    counts = Counter(names)
    taken: set[str] = set()
    inputs = []
    for one, name in zip(found, names, strict=True):
        base = f"{name}_{one.suffix}" if one.suffix else name
        unique, k = name if counts[name] == 1 else base, 2
        while not _free(unique, one.video is not None, taken):
            unique, k = (base, k) if unique != base and k == 2 else (f"{base}_{k}", k + 1)
        taken.update(written_stems(unique))
        if one.video:
            taken.add(f"{unique}/")
        taken.update(f"{parent.as_posix()}/*" for parent in PurePosixPath(unique).parents)  # it lies in these
        inputs.append(Input(unique, one.address, one.path, one.video))
    return inputs


def _free(name: str, is_video: bool, taken: set[str]) -> bool:
    """Whether results of this name lie beside those of the names that are taken, and not on or among them."""
    if not taken.isdisjoint(written_stems(name)) or (is_video and f"{name}/*" in taken):
        return False
    return not any(f"{parent.as_posix()}/" in taken for parent in PurePosixPath(name).parents)


def _read_url(url: str, reading: Reading) -> Image:
    try:
        content = b"".join(block for block, _ in fetched(url, limit=_LARGEST))
    except OSError as error:
        raise ValueError(f"{without_password(url)}: cannot be fetched ({error})") from error
    return decode_image(content, without_password(url), reading)


def _read_standard_input(reading: Reading) -> Image:
    content = sys.stdin.buffer.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"standard input: more than {_LARGEST >> 20} MiB")
    return decode_image(content, "standard input", reading)


def _raise(reason: str) -> Image:
    raise ValueError(reason)
