"""What a pack holds, and of which files. In: the `pack.json` of a pack. Out: an Index, every entry of it checked.

The index is an input file like any other: nothing in it can lead outside the pack or the data set's root.
"""

import re
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from panfpn.choices import LAYOUTS, no_choice
from panfpn.files import read_bytes, sha256, write_json
from panfpn.labels import LabelTable
from panfpn.types import RGB, Reading

FORMAT = "panfpn pack 1"
INDEX = "pack.json"
_MASK_TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "int64")
_ALIGNMENT = 8  # of the mask in its file, which begins after the image


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file of the data set as it was when it was packed."""

    path: str  # below the data set's root, with slashes
    size: int  # bytes
    mtime_ns: int
    sha256: str

    def __post_init__(self) -> None:
        _check_path(self.path)
        _check_digest(self.sha256)

    def unchanged(self, root: Path) -> "Source | None":
        """Itself, with the present time, if the file still has this content; None if it has not, or is missing.

        The hash is computed only where size and time leave doubt.
        """
        path = root / self.path
        try:
            now = path.stat()
            same = now.st_size == self.size and (now.st_mtime_ns == self.mtime_ns or sha256(path) == self.sha256)
        except OSError:
            return None
        return replace(self, mtime_ns=now.st_mtime_ns) if same else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image and its mask: a file with uint8 [H, W, C], then the mask [H, W] or [H, W, 3], little-endian."""

    name: str
    image: Source
    mask: Source
    height: int
    width: int
    mask_type: str
    mask_channels: int
    sha256: str  # of the pixel file
    image_channels: int = 3

    def __post_init__(self) -> None:
        _check_path(self.name)
        _check_digest(self.sha256)
        if min(self.height, self.width, self.image_channels) < 1:
            raise ValueError(f"{self.name!r} has {self.height} rows of {self.width} pixels")
        if self.mask_type not in _MASK_TYPES or self.mask_channels not in (1, 3):
            raise ValueError(f"{self.name!r} has a mask of {self.mask_channels} × {self.mask_type}")

    @property
    def mask_offset(self) -> int:
        """Where the mask begins, in bytes."""
        return -(-self.height * self.width * self.image_channels // _ALIGNMENT) * _ALIGNMENT

    @property
    def num_bytes(self) -> int:
        """Size of the pixel file."""
        pixels = self.height * self.width * self.mask_channels
        return self.mask_offset + pixels * np.dtype(self.mask_type).itemsize

    def file(self, folder: Path, split: str) -> Path:
        """Its pixel file in the pack."""
        return folder / split / f"{self.name}.raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A split of the data set, in the order of its names; not `complete` while it is being packed."""

    complete: bool
    table: dict[str, Any]
    mask_table: dict[str, Any] | None  # reads the masks, where they hold other values than `table`'s
    items: list[Item]

    def __post_init__(self) -> None:
        names = [item.name for item in self.items]
        if len(set(names)) < len(names):
            raise ValueError(f"two items are named {next(n for n in names if names.count(n) > 1)!r}")

    def tables(self) -> tuple[LabelTable, LabelTable | None]:
        """The label table, and the one that reads the masks if it is another; ValueError for a damaged one."""
        other = None if self.mask_table is None else LabelTable.from_dict(self.mask_table)
        return LabelTable.from_dict(self.table), other


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A pack: of which layout its data set is, and its splits."""

    format: str = FORMAT
    dataset: str
    splits: dict[str, Split]
    reading: Reading = RGB  # what was said about what its images' files leave open

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"its format is {self.format!r}; this version reads {FORMAT!r}")
        if self.dataset not in LAYOUTS:
            raise ValueError(no_choice("its data set", self.dataset, LAYOUTS))
        for split in self.splits:
            check_split(split)

    def write(self, folder: Path) -> None:
        """Replace the pack's index, whole or not at all."""
        write_json(folder / INDEX, asdict(self))


def read_index(folder: Path) -> Index:
    """The index of the pack in `folder`; ValueError for one that is not there, or not as panfpn writes it."""
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(f"{folder}: holds no pack ({INDEX} is not there); make one: {command('ROOT', folder)}")
    return parse_index(read_bytes(path), path)


def parse_index(data: bytes, path: object) -> Index:
    """The index that the bytes of `path` are; ValueError for one that is not as panfpn writes it."""
    import pydantic  # noqa: PLC0415 - only where text enters

    try:
        index: Index = pydantic.TypeAdapter(Index).validate_json(data, strict=True)
        for split in index.splits.values():
            split.tables()
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        what = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{path}: {where}: {what}; pack into a new folder") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}; pack into a new folder") from error
    return index


def command(root: object, folder: Path, dataset: str = "", split: str = "") -> str:
    """What to type to bring a pack up to date."""
    words = ["panfpn", "data", "pack", str(root), "-o", str(folder)]
    words += ["--dataset", dataset] if dataset else []
    words += ["--splits", split] if split else []
    return f"`{shlex.join(words)}`"


def check_split(split: str) -> None:
    """ValueError unless `split` can be a folder of a pack."""
    if not re.fullmatch(r"\w[\w.-]*", split):
        raise ValueError(f"split {split!r} cannot be packed: its name must be of letters, digits, '_', '-' and '.'")


def _check_path(path: str) -> None:
    parts = path.split("/")
    if {"", ".", ".."} & set(parts) or "\\" in path or "\0" in path or PureWindowsPath(path).drive:
        raise ValueError(f"{path!r} is not a path below a folder")


def _check_digest(digest: str) -> None:
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(f"{digest!r} is not a SHA-256")
