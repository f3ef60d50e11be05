"""A data set as raw pixels, read through memory maps. In: a data set's files. Out: a pack, and the data set in it.

A sample then costs reading the rows that its window shows, and no decoding. Each item has a file of its own, which is
only ever replaced as a whole: a kill leaves no half of one, and a pack can be refreshed in place.
"""

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from panfpn.data.dataset import FileDataset, open_dataset
from panfpn.data.pack_index import INDEX, Index, Item, Source, Split, check_split, command, read_index
from panfpn.files import read_bytes, replacing, sha256
from panfpn.labels import LabelTable
from panfpn.progress import progress_bar
from panfpn.types import RGB, RawMask, Reading, Sample

_SAVE_EVERY = 10.0  # seconds between two states of the index while a pack is written


class Store(Protocol):
    """Brings items of a pack to this machine."""

    def path(self, split: str, item: Item) -> Path:
        """The item's pixel file; it may be gone again by the time that it is opened."""


@dataclass(frozen=True, eq=False)
class PackedDataset:
    """A split of a pack; the same samples, bit for bit, as from the files that were packed."""

    table: LabelTable
    mask_table: LabelTable
    folder: Path
    split: str
    items: tuple[Item, ...]
    store: "Store | None" = None  # where the items' files are, if not in `folder`

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """The sample's name, as in the data set."""
        return self.items[index].name

    def open(self, index: int) -> tuple[npt.NDArray[np.uint8], RawMask]:
        """Views of one item's pixels, read from disk where they are looked at; see `WindowedDataset.open`."""
        item = self.items[index]
        pixels = self._mapped(item)
        height, width, dtype = item.height, item.width, np.dtype(item.mask_type).newbyteorder("<")
        channels = item.image_channels
        image = pixels[: height * width * channels].reshape(height, width, channels)
        mask = pixels[item.mask_offset :].view(dtype).reshape(height, width, *(3,) * (item.mask_channels == 3))
        return image, RawMask(mask, self.mask_table, f"{item.mask.path} (packed in {self.folder})")

    def _mapped(self, item: Item) -> npt.NDArray[np.uint8]:
        """The bytes of an item, which stay readable when its file is taken away."""
        while True:
            path = self.store.path(self.split, item) if self.store else item.file(self.folder, self.split)
            try:
                if self.store is None:
                    _check_size(path, item)
                return np.asarray(np.memmap(path, np.uint8, "r"))
            except FileNotFoundError:
                if self.store is None:
                    raise  # else another process needed its room

    def read(self, index: int) -> Sample:
        """A copy of one whole sample."""
        image, mask = self.open(index)
        return Sample(image=image.copy(), target=mask[:, :], name=self.name(index))


def _check_size(path: Path, item: Item) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size != item.num_bytes:
        fault = "is missing" if size is None else f"has {size} bytes instead of {item.num_bytes}"
        raise ValueError(f"{path}: damaged pack: the file {fault}; `panfpn data pack` writes it again")


def open_pack(
    folder: Path, layout: str, split: str, root: Path | None = None, *, reading: Reading = RGB
) -> PackedDataset:
    """A split of the pack in `folder`, of a data set in this layout.

    With `root`, the files that were packed must lie there.

    Raises:
        ValueError: not a pack, one of another data set, one that is unfinished or damaged; a file under `root` that is
            new, missing or changed (by size and time, and by hash where only the time differs). It names the file, and
            the command that brings the pack up to date.
    """
    index = read_index(folder)
    check_layout(folder, index, layout, reading)
    again = command(root or "ROOT", folder, layout, split)
    part = index.splits.get(split)
    if part is None or not part.complete:
        fault = "is not in the pack" if part is None else "is not packed to its end"
        raise ValueError(f"{folder}: split {split!r} {fault}; go on with {again}")
    for item in part.items:
        _check_size(item.file(folder, split), item)
    table, mask_table = part.tables()
    if root is not None:
        _check_sources(
            part, _dataset(layout, root, split, reading), root, f"the pack {folder}; bring it up to date: {again}"
        )
    return PackedDataset(table, mask_table or table, folder, split, tuple(part.items))


def check_layout(folder: object, index: Index, layout: str, reading: Reading) -> None:
    """ValueError for the pack in `folder`, if it is of another layout, or was read in another way."""
    if index.dataset != layout:
        raise ValueError(f"{folder}: packs a data set {index.dataset!r}, but data.dataset is {layout!r}")
    _check_reading(folder, index, reading)


def _check_reading(folder: object, index: Index, reading: Reading) -> None:
    for field in fields(Reading):
        packed, wanted = getattr(index.reading, field.name), getattr(reading, field.name)
        if packed != wanted:
            key = {"channels": "model.in_channels", "page": "data.pages"}.get(field.name, f"data.{field.name}")
            raise ValueError(f"{folder}: was packed with {key} {packed!r}, but it is {wanted!r} here; set that, or "
                             "pack into another folder")  # fmt: skip


def _dataset(layout: str, root: Path, split: str, reading: Reading) -> FileDataset:
    data = open_dataset(layout, root, split, reading=reading)
    if not isinstance(data, FileDataset):
        raise ValueError(f"data set {layout!r} under {root} cannot be packed: only images with masks of classes are")
    return data


def _check_sources(part: Split, data: FileDataset, root: Path, pack: str) -> None:
    """ValueError for the first file that differs from what was packed, ending in `pack`."""
    empty = _empty_split(data)
    if (part.table, part.mask_table) != (empty.table, empty.mask_table):
        raise ValueError(f"{root}: its label table is not the one in {pack}")
    packed = {item.name: item for item in part.items}
    for name, *paths in data.items:
        item = packed.pop(name, None)
        for path, source in zip(paths, (item.image, item.mask) if item else (None, None), strict=True):
            if source is None or root / source.path != path:
                raise ValueError(f"{path}: not in {pack}")
            if source.unchanged(root) is None:
                raise ValueError(f"{path}: has changed since it was copied into {pack}")
    if packed:
        gone = next(iter(packed.values()))
        raise ValueError(f"{root / gone.image.path}: no longer there, but in {pack}")


def _empty_split(data: FileDataset) -> Split:
    mask_table = data.mask_table.to_dict() if data.mask_table else None
    return Split(complete=False, table=data.table.to_dict(), mask_table=mask_table, items=[])


@dataclass(frozen=True, kw_only=True)
class PackResult:
    """What `write_pack` did with the items of a split."""

    split: str
    packed: int
    kept: int
    removed: int
    num_bytes: int  # of all pixel files of the split


def write_pack(
    layout: str, root: Path, folder: Path, splits: Sequence[str], *, reading: Reading = RGB, progress: bool = True
) -> list[PackResult]:
    """Pack splits of the data set under `root`, or bring its pack up to date; a pack that was stopped goes on.

    Raises:
        ValueError: a data set that cannot be read, a folder that holds anything else, too little disk space (nothing
            has been written then), an image or mask that cannot be used.
    """
    splits = tuple(dict.fromkeys(splits))
    if not splits:
        raise ValueError("name at least one split to pack")
    for split in splits:
        check_split(split)
    data = {split: _dataset(layout, root, split, reading) for split in splits}
    index = _index_to_write(folder, layout, reading)
    kept = {split: _kept(index.splits.get(split), data[split], folder, split, root) for split in splits}
    _check_space(folder, reading.channels, [
        (image, mask) for split in splits for name, image, mask in data[split].items if name not in kept[split]
    ])  # fmt: skip
    return [_write_split(index, folder, split, data[split], kept[split], root, progress) for split in splits]


def _index_to_write(folder: Path, layout: str, reading: Reading) -> Index:
    if not (folder / INDEX).exists():
        if folder.is_dir():
            for left in folder.glob(".pack.json.*.json"):  # of a call that was killed before its first index was there
                left.unlink()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder}: is not a pack, and not empty; choose a folder for the pack alone")
        return Index(dataset=layout, splits={}, reading=reading)
    index = read_index(folder)
    if index.dataset != layout:
        raise ValueError(f"{folder}: packs a data set {index.dataset!r}, not {layout!r}; choose another folder")
    _check_reading(folder, index, reading)
    return index


def _kept(old: Split | None, data: FileDataset, folder: Path, split: str, root: Path) -> dict[str, Item]:
    """Items of an earlier pack whose files are as they were, by name."""
    tables = None if old is None else old.tables()
    if old is None or tables is None or (tables[1] or tables[0]).masks != (data.mask_table or data.table).masks:
        return {}  # whether masks hold numbers or colours decides how they are stored
    packed, kept = {item.name: item for item in old.items}, {}
    for name, image_path, mask_path in data.items:
        item = packed.get(name)
        if item is None or (root / item.image.path, root / item.mask.path) != (image_path, mask_path):
            continue
        image, mask = item.image.unchanged(root), item.mask.unchanged(root)
        file = item.file(folder, split)
        if image and mask and file.is_file() and file.stat().st_size == item.num_bytes:
            kept[name] = replace(item, image=image, mask=mask)
    return kept


def _check_space(folder: Path, channels: int, pairs: list[tuple[Path, Path]]) -> None:
    """ValueError if the pixels of these images and masks do not fit on the disk of `folder`."""
    needed = sum(_raw_bytes(image, channels) + _raw_bytes(mask) for image, mask in pairs)
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ValueError(f"{folder}: {needed / 1e9:.1f} GB are needed there, and {free / 1e9:.1f} GB are free; "
                         "nothing was written")  # fmt: skip


def _raw_bytes(path: Path, channels: int | None = None) -> int:
    """Bytes of a file's pixels, by its header; 0 if Pillow cannot tell: decoding will say what is wrong."""
    from PIL import Image  # noqa: PLC0415 - it reads a header alone

    try:
        with Image.open(path) as picture:
            each = channels or {"1": 1, "L": 1, "P": 1, "I;16": 2, "RGB": 3}.get(picture.mode, 4)
            return picture.width * picture.height * each
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 0


def _write_split(
    index: Index, folder: Path, split: str, data: FileDataset, items: dict[str, Item], root: Path, progress: bool
) -> PackResult:
    old, names, kept = index.splits.get(split), [name for name, *_ in data.items], len(items)
    present = set(names)
    gone = [item for item in (old.items if old else ()) if item.name not in present]
    saved = time.monotonic()

    def save(*, complete: bool) -> None:
        done = [items[name] for name in names if name in items]
        index.splits[split] = replace(_empty_split(data), complete=complete, items=done)
        index.write(folder)

    if (folder / split).is_symlink():
        raise ValueError(f"{folder / split}: is a link; a pack's split is a folder of its own")
    if gone or kept < len(names):
        save(complete=False)  # from now on, files and index may differ
    for item in gone:
        item.file(folder, split).unlink(missing_ok=True)
    for left in (folder / split).rglob(".*.raw.*.raw"):  # what `replacing` had begun when a call was killed
        left.unlink()
    try:
        with progress_bar(f"packing {split}", len(names), show=progress) as advance:
            for i, name in enumerate(names):
                if name not in items:
                    items[name] = _write_item(folder, split, data, i, root)
                advance(i + 1)
                if time.monotonic() - saved > _SAVE_EVERY:
                    save(complete=False)
                    saved = time.monotonic()
    finally:  # whatever stops it, the next call goes on from here
        save(complete=len(items) == len(names))
    num_bytes = sum(item.num_bytes for item in items.values())
    return PackResult(split=split, packed=len(names) - kept, kept=kept, removed=len(gone), num_bytes=num_bytes)


def _write_item(folder: Path, split: str, data: FileDataset, index: int, root: Path) -> Item:
    name, *paths = data.items[index]
    sources, contents = [], []
    for path in paths:
        before = path.stat().st_mtime_ns  # so that a change while it is read is noticed later
        contents.append(read_bytes(path))
        digest = hashlib.sha256(contents[-1]).hexdigest()
        below = path.relative_to(root).as_posix()
        sources.append(Source(path=below, size=len(contents[-1]), mtime_ns=before, sha256=digest))
    image, mask = data.decode(index, *contents)
    mask[:, :]  # a value that the table does not know is an error now, not in the middle of a training
    item = Item(
        name=name, image=sources[0], mask=sources[1],
        height=image.shape[0], width=image.shape[1], image_channels=image.shape[2],
        mask_type=mask.values.dtype.name, mask_channels=3 if mask.values.ndim == 3 else 1, sha256="0" * 64,
    )  # fmt: skip
    values = mask.values.astype(mask.values.dtype.newbyteorder("<"))
    pixels = image.tobytes().ljust(item.mask_offset, b"\0") + values.tobytes()
    with replacing(item.file(folder, split)) as temporary:
        temporary.write_bytes(pixels)
    return replace(item, sha256=hashlib.sha256(pixels).hexdigest())


def check_pack(folder: Path, root: Path | None = None, *, progress: bool = True) -> int:
    """Compare every byte of a pack (and of the files under `root`) with the hashes of its index; returns the items.

    ValueError names the first file that differs; see also `open_pack`.
    """
    index = read_index(folder)
    for split, part in index.splits.items():
        open_pack(folder, index.dataset, split, root, reading=index.reading)
        with progress_bar(f"checking {split}", len(part.items), show=progress) as advance:
            for i, item in enumerate(part.items):
                file = item.file(folder, split)
                if sha256(file) != item.sha256:
                    raise ValueError(f"{file}: damaged pack: not the bytes that were packed; remove the file, then "
                                     f"{command(root or 'ROOT', folder, index.dataset, split)}")  # fmt: skip
                for source in (item.image, item.mask):
                    if root and replace(source, mtime_ns=-1).unchanged(root) is None:  # no such time: hashed
                        raise ValueError(f"{root / source.path}: has changed since it was copied into {folder}, but "
                                         "kept its size and time; touch it and pack again")  # fmt: skip
                advance(i + 1)
    return sum(len(part.items) for part in index.splits.values())
