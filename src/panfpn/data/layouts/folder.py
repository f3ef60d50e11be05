"""A folder of one's own: images/SPLIT/…, masks/SPLIT/… or instances/SPLIT/… or both, and labels.yaml."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.check import reading_problems
from panfpn.data.dataset import FileDataset
from panfpn.data.images import decode_ids, decode_mask
from panfpn.data.layouts.listing import listed, paired
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
from panfpn.types import Segments


def open_split(request: SplitRequest) -> FileDataset | PanopticDataset:
    """Images with masks of classes, or with segments from maps of instance ids.

    Without masks, the classes too come from the maps. ValueError for a labels.yaml that is missing or does not fit.
    """
    root = request.folder
    labels = root / "labels.yaml"
    if not labels.is_file():
        raise ValueError(f"{labels}: no such file; it must name each raw mask value, its class or `ignore`")
    table = request.fitting(LabelTable.from_yaml(labels))
    has_masks, has_maps = (root / "masks" / request.split).exists(), (root / "instances").exists()
    if has_maps and (request.panoptic or not has_masks):
        return _open_segments(request, root, table)
    request.refuse_panoptic(f"no folder {root / 'instances'}")
    images, masks = listed(request, root / "images" / request.split), listed(request, root / "masks" / request.split)
    return FileDataset(table, paired(request, images, masks))


def _open_segments(request: SplitRequest, root: Path, table: LabelTable) -> PanopticDataset:
    """Of maps of instance ids, and masks of the classes if there are any; else the table must have one thing."""
    images, maps = listed(request, root / "images" / request.split), listed(request, root / "instances" / request.split)
    items = paired(request, images, maps, "map of instance ids")
    masks = None
    if (root / "masks" / request.split).is_dir():
        classes = listed(request, root / "masks" / request.split)
        mask_of = {name: mask for name, _, mask in paired(request, images, classes)}
        items = tuple(item for item in items if item[0] in mask_of)
        masks = tuple(mask_of[name] for name, *_ in items)
    else:
        _check_one_thing(table, root / "labels.yaml")
    source = FolderSegments(table, tuple(item[2] for item in items), masks)
    return PanopticDataset(table, tuple(item[:2] for item in items), source, request.panoptic)


def problems(request: SplitRequest, *, progress: bool) -> Iterator[str]:
    """What is wrong in the split, read as segments if it has maps of instance ids."""
    panoptic = (request.folder / "instances" / request.split).is_dir()
    yield from reading_problems(open_split, replace(request, panoptic=panoptic), progress=progress)


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
        mask = decode_mask(read_bytes(mask_path), mask_path)
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
