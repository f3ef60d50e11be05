"""A folder of one's own: images/SPLIT/…, masks/SPLIT/… or instances/SPLIT/… or both, and labels.yaml.

Masks may be called as their images with an ending (a_mask.png), and may lie beside them (also as PNGs beside JPEGs), or
in `labels`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.dataset import FileDataset
from panfpn.data.images import IMAGE_SUFFIXES, decode_ids, decode_mask
from panfpn.data.layouts.listing import (
    SPLITS,
    alike,
    beside,
    by_form,
    divided,
    first_existing,
    listed,
    names_of_split,
    paired,
)
from panfpn.data.layouts.request import SplitRequest
from panfpn.data.segments import (
    Ids,
    PanopticDataset,
    check_count,
    different_sizes,
    first_pixel,
    ids_in,
    indices_of,
    things_in,
)  # fmt: skip
from panfpn.files import read_bytes
from panfpn.labels import IGNORE, LabelTable
from panfpn.listing import LeftOut, files_in
from panfpn.types import Segments

_OTHERS = ("val", "valid", "validation", "test")


def open_split(request: SplitRequest) -> FileDataset | PanopticDataset:
    """Images with masks of classes, or with segments from maps of instance ids.

    Without masks, the classes too come from the maps. ValueError for a labels.yaml that is missing or does not fit.
    """
    root = request.folder
    own = request.own_table()
    if own is None:
        raise ValueError(
            f"{root / 'labels.yaml'}: no such file; it must name each raw mask value, its class or `ignore` (panfpn "
            f"data check {root} proposes one)"
        )
    table = request.fitting(own)
    has_masks, has_maps = _place(root, "masks", request.split).exists(), (root / "instances").exists()
    if has_maps and (request.panoptic or not has_masks):
        return _open_segments(request, root, table)
    place = _place(root, "images", request.split)
    both = None if has_masks else by_form(request, place)
    if both is None:
        images = listed(request, place)
        masks = listed(request, _place(root, "masks", request.split)) if has_masks else None
        both = beside(images, root / "masks" / request.split) if masks is None else alike(images, masks)
    return of_masks(request, table, paired(request, *both), f"no folder {root / 'instances'}")


def of_masks(
    request: SplitRequest, table: LabelTable, items: tuple[tuple[str, Path, Path], ...], reason: str = ""
) -> FileDataset | PanopticDataset:
    """Of (name, image, mask). Where a thing has the values 1, 2, …, and 0 is all else, each is one of its instances.

    NoInstancesError, with a `reason`, if the samples shall be panoptic, and all values are those of classes.
    """
    if not request.panoptic:
        return FileDataset(table, items)
    numbers = [c.values for c in table.classes if c.thing]
    ground = {value for c in table.classes if not c.thing for value in c.values}
    counted = len(numbers) == 1 and len(numbers[0]) > 1 and sorted(numbers[0]) == [*range(1, len(numbers[0]) + 1)]
    if not counted or not table.knows(0) or ground - {0}:
        request.refuse_panoptic(reason or "a value of these masks is a class, and no number of a thing")
    masks = tuple(mask for *_, mask in items)  # which say the class, and by their values which thing
    source = FolderSegments(table, masks, masks)
    return PanopticDataset(table, tuple(item[:2] for item in items), source, panoptic=True)


def _open_segments(request: SplitRequest, root: Path, table: LabelTable) -> PanopticDataset:
    """Of maps of instance ids, and masks of the classes if there are any; else the table must have one thing."""
    images, maps = (listed(request, _place(root, part, request.split)) for part in ("images", "instances"))
    items = paired(request, *alike(images, maps), "map of instance ids")
    masks = None
    if _place(root, "masks", request.split).is_dir():
        classes = listed(request, _place(root, "masks", request.split))
        mask_of = {name: mask for name, _, mask in paired(request, *alike(images, classes))}
        items = tuple(item for item in items if item[0] in mask_of)
        masks = tuple(mask_of[name] for name, *_ in items)
    else:
        _check_one_thing(table, root / "labels.yaml")
    source = FolderSegments(table, tuple(item[2] for item in items), masks)
    return PanopticDataset(table, tuple(item[:2] for item in items), source, request.panoptic)


def splits(root: Path) -> list[str]:
    """The splits that lie there."""
    folder = root / "images"
    if not folder.is_dir() and (root / "labels.yaml").is_file() and (root / "masks").is_dir():
        return [split for split in SPLITS if _place(root, "images", split).is_dir()]
    if not folder.is_dir():
        return []
    if not any((root / part).exists() for part in ("masks", "instances")):
        alone = not any(p.is_dir() for p in root.iterdir() if p != folder and not p.name.startswith("."))
        if not (root / "labels.yaml").is_file() or not (alone or (root / "labels").is_dir() or _holds_masks(folder)):
            return []
    there = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return sorted(there, key=lambda name: (name != "train", name != "val", name)) or ["train"]


def _holds_masks(folder: Path) -> bool:
    """Whether masks lie beside the images of a folder."""
    files = [p for p in files_in(folder, LeftOut()) if p.suffix.lower() in IMAGE_SUFFIXES]
    names = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
    return len(names) < len(files) or bool(divided(names)[1])


def mask_files(root: Path, splits: Sequence[str]) -> list[Path]:
    """All masks of splits, whatever their values mean."""
    folders = {_place(root, "masks", split) for split in splits}
    files = (path for folder in sorted(folders) if folder.is_dir() for path in files_in(folder, LeftOut()))
    return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]


def _place(root: Path, part: str, split: str) -> Path:
    """root/PART/SPLIT, or root/SPLIT for images; for `train` root/PART itself, where there are no splits.

    Masks may lie in `labels`, where there is no folder `masks`.
    """
    folder = root / part
    if part == "masks" and not folder.exists() and (root / "labels").is_dir():
        folder = root / "labels"
    named = first_existing(folder / name for name in names_of_split(split))
    if named is None and part == "images":
        named = first_existing(root / name for name in names_of_split(split))
    undivided = split == "train" and folder.is_dir() and not any((folder / name).is_dir() for name in _OTHERS)
    return named or (folder if undivided else folder / split)


@dataclass(frozen=True, eq=False)
class FolderSegments:
    """Maps of instance ids (0: none), with masks of the classes, or alone where one class is a thing."""

    table: LabelTable
    instances: tuple[Path, ...]
    masks: tuple[Path, ...] | None = None

    def file(self, index: int) -> Path:
        """The map of an image."""
        return self.instances[index]

    def segments(self, index: int) -> Segments:
        """Of one image; ValueError for an instance of two classes, or of one that is no thing: file, id, pixel."""
        path = self.instances[index]
        ids = decode_ids(read_bytes(path), path)
        numbers = ids_in(ids)
        numbers = numbers[numbers > 0]
        index_map = indices_of(ids, numbers, path)  # [H, W]
        if self.masks is None:
            labels, classes = self._one_class(index_map, len(numbers))
        else:
            labels = self._read_mask(self.masks[index], path, ids.shape)
            index_map[labels == IGNORE] = IGNORE  # a mask's void wins, as around the objects of Pascal VOC
            classes = self._classes_of(index_map, labels, numbers, ids, path)
            there = classes != IGNORE  # void has an id of its own in Pascal VOC's maps
            index_map = np.append(np.where(there, np.cumsum(there) - 1, IGNORE), IGNORE).astype(np.int16)[index_map]
            numbers, classes = numbers[there], classes[there]
        # What no instance claims: a segment of each class, with the ids after the largest one.
        present = np.zeros(self.table.num_classes + 1, np.bool_)
        free = index_map == IGNORE
        present[labels[free]] = True
        others = np.flatnonzero(present[:-1]).astype(np.int16)
        check_count(len(numbers) + len(others), path)
        number = np.full(self.table.num_classes + 1, IGNORE, np.int16)
        number[others] = len(numbers) + np.arange(len(others))
        largest = int(numbers.max(initial=0))
        return Segments(
            index=np.where(free, number[labels], index_map),
            classes=np.concatenate([classes, others]),
            crowd=np.concatenate([np.zeros(len(numbers), np.bool_), things_in(self.table)[others]]),
            ids=np.concatenate([numbers, largest + 1 + np.arange(len(others))]),
        )

    def _one_class(self, index_map: npt.NDArray[np.int16], count: int) -> tuple[npt.NDArray[np.int16], Any]:
        thing = next(k for k, c in enumerate(self.table.classes) if c.thing)
        rest = next((k for k, c in enumerate(self.table.classes) if 0 in c.values), IGNORE)
        return np.where(index_map == IGNORE, np.int16(rest), np.int16(thing)), np.full(count, thing, np.int16)

    def _read_mask(self, mask_path: Path, path: Path, size: tuple[int, ...]) -> npt.NDArray[np.int16]:
        mask = decode_mask(read_bytes(mask_path), mask_path, colors=self.table.masks == "colors")
        if mask.shape[:2] != size:
            raise ValueError(different_sizes(path, size, mask_path, mask.shape[:2]))
        labels: npt.NDArray[np.int16] = self.table.encode(mask, mask_path)
        return labels

    def _classes_of(
        self, index_map: npt.NDArray[np.int16], labels: npt.NDArray[np.int16], numbers: npt.NDArray[np.int64], ids: Ids,
        path: Path,
    ) -> npt.NDArray[np.int16]:  # fmt: skip
        """The class of each instance: that of its pixels."""
        classes = np.full(len(numbers) + 1, IGNORE, np.int16)
        classes[index_map] = labels  # the last pixel of each wins; the rest must agree
        classes[-1] = IGNORE
        two = (classes[index_map] != labels) & (index_map != IGNORE)
        if two.any():
            k, names = index_map[two][0], self.table.names
            raise ValueError(f"{path}: instance {numbers[k]} has pixels of {names[labels[two][0]]!r} "
                             f"({first_pixel(two)}) and of {names[classes[k]]!r} in its mask; "
                             "an instance has one class")  # fmt: skip
        stuff = ~things_in(self.table)[classes[:-1]] & (classes[:-1] != IGNORE)
        if stuff.any():
            number, name = numbers[stuff][0], self.table.names[classes[:-1][stuff][0]]
            raise ValueError(f"{path}: instance {number} ({first_pixel(ids == number)}) is {name!r} in its mask, which "
                             "is stuff; give its pixels the id 0, or declare `thing: true` in labels.yaml")  # fmt: skip
        return classes[:-1]


def _check_one_thing(table: LabelTable, file: Path) -> None:
    """ValueError names the table's `file`, if maps of instances alone leave the class of a pixel open."""
    things = [c for c in table.classes if c.thing]
    if len(things) != 1:
        raise ValueError(f"{file}: declares {len(things)} things; without masks/, instances are known to be of a class "
                         "only if there is exactly one")  # fmt: skip
    if 0 in things[0].values or not table.knows(0):
        raise ValueError(f"{file}: value 0 must be a class of stuff, or ignored: it is what pixels without an instance "
                         "are where there are no masks/")  # fmt: skip
