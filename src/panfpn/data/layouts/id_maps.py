"""Segments from maps of instance ids, without a list beside them. In: Cityscapes' instanceIds, or a folder's maps.

Out: sources of Segments. A thing's pixels that no instance claims are one crowd segment of its class.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.images import decode_ids, decode_mask
from panfpn.data.segments import Ids, check_count, different_sizes, first_pixel, places_of, present_ids
from panfpn.files import read_bytes
from panfpn.labels import IGNORE, LabelTable
from panfpn.types import Segments


@dataclass(frozen=True, eq=False)
class CityscapesSegments:
    """`*_instanceIds.png`: class · 1000 + number, or the class alone for stuff and groups of things."""

    table: LabelTable
    files: tuple[Path, ...]

    def file(self, index: int) -> Path:
        """The map of an image."""
        return self.files[index]

    def segments(self, index: int) -> Segments:
        """Of one image; ValueError for a value of an unknown class, or a number in a class of stuff."""
        path = self.files[index]
        ids = decode_ids(read_bytes(path), path)
        found = present_ids(ids)
        counted = found >= 1000
        values = np.where(counted, found // 1000, found)
        classes = encoded(self.table, values, ids, found, path)
        thing = things_in(self.table)[classes]  # IGNORE is -1: the last entry
        wrong = counted & ~thing & (classes != IGNORE)
        if wrong.any():
            number, name = found[wrong][0], self.table.names[classes[wrong][0]]
            raise ValueError(f"{path}: id {number} in {first_pixel(ids == number)} counts an instance of {name!r}, "
                             f"which is stuff; its pixels are {number // 1000}")  # fmt: skip
        kept = classes != IGNORE
        return Segments(
            index=places_of(ids, found[kept], path), classes=classes[kept], crowd=(thing & ~counted)[kept],
            ids=found[kept],
        )  # fmt: skip


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
        found = present_ids(ids)
        found = found[found > 0]
        places = places_of(ids, found, path)
        if self.masks is None:
            labels, classes = self._one_class(places, len(found))
        else:
            labels = self._read_mask(self.masks[index], path, ids.shape)
            places[labels == IGNORE] = IGNORE  # a mask's void wins, as around the objects of Pascal VOC
            classes = self._classes_of(places, labels, found, ids, path)
        # What no instance claims: a segment of each class, with the ids after the largest one.
        seen = np.zeros(self.table.num_classes + 1, np.bool_)
        free = places == IGNORE
        seen[labels[free]] = True
        others = np.flatnonzero(seen[:-1]).astype(np.int16)
        check_count(len(found) + len(others), path)
        number = np.full(self.table.num_classes + 1, IGNORE, np.int16)
        number[others] = len(found) + np.arange(len(others))
        largest = int(found.max(initial=0))
        return Segments(
            index=np.where(free, number[labels], places),
            classes=np.concatenate([classes, others]),
            crowd=np.concatenate([np.zeros(len(found), np.bool_), things_in(self.table)[others]]),
            ids=np.concatenate([found, largest + 1 + np.arange(len(others))]),
        )

    def _one_class(self, places: npt.NDArray[np.int16], count: int) -> tuple[npt.NDArray[np.int16], Any]:
        thing = next(k for k, c in enumerate(self.table.classes) if c.thing)
        rest = next((k for k, c in enumerate(self.table.classes) if 0 in c.values), IGNORE)
        return np.where(places == IGNORE, np.int16(rest), np.int16(thing)), np.full(count, thing, np.int16)

    def _read_mask(self, mask_path: Path, path: Path, size: tuple[int, ...]) -> npt.NDArray[np.int16]:
        mask = decode_mask(read_bytes(mask_path), mask_path)
        if mask.shape[:2] != size:
            raise ValueError(different_sizes(path, size, mask_path, mask.shape[:2]))
        labels: npt.NDArray[np.int16] = self.table.encode(mask, mask_path)
        return labels

    def _classes_of(
        self, places: npt.NDArray[np.int16], labels: npt.NDArray[np.int16], found: npt.NDArray[np.int64], ids: Ids,
        path: Path,
    ) -> npt.NDArray[np.int16]:  # fmt: skip
        """The class of each instance: that of its pixels."""
        classes = np.full(len(found) + 1, IGNORE, np.int16)
        classes[places] = labels  # the last pixel of each wins; the rest must agree
        classes[-1] = IGNORE
        two = (classes[places] != labels) & (places != IGNORE)
        if two.any():
            k, names = places[two][0], self.table.names
            raise ValueError(f"{path}: instance {found[k]} has pixels of {names[labels[two][0]]!r} "
                             f"({first_pixel(two)}) and of {names[classes[k]]!r} in its mask; "
                             "an instance has one class")  # fmt: skip
        stuff = ~things_in(self.table)[classes[:-1]] & (classes[:-1] != IGNORE)
        if stuff.any():
            number, name = found[stuff][0], self.table.names[classes[:-1][stuff][0]]
            raise ValueError(f"{path}: instance {number} ({first_pixel(ids == number)}) is {name!r} in its mask, which "
                             "is stuff; give its pixels the id 0, or declare `thing: true` in labels.yaml")  # fmt: skip
        return classes[:-1]


def check_one_thing(table: LabelTable, file: Path) -> None:
    """ValueError names the table's `file`, if maps of instances alone leave the class of a pixel open."""
    things = [c for c in table.classes if c.thing]
    if len(things) != 1:
        raise ValueError(f"{file}: declares {len(things)} things; without masks/, instances are known to be of a class "
                         "only if there is exactly one")  # fmt: skip
    if 0 in things[0].values or not table.knows(0):
        raise ValueError(f"{file}: value 0 must be a class of stuff, or ignored: it is what pixels without an instance "
                         "are where there are no masks/")  # fmt: skip


def things_in(table: LabelTable) -> npt.NDArray[np.bool_]:
    """Whether each class is a thing; False once more at the end, for IGNORE."""
    return np.array([*(c.thing for c in table.classes), False])


def encoded(
    table: LabelTable, values: npt.NDArray[np.int64], ids: Ids, found: npt.NDArray[np.int64], path: Path
) -> npt.NDArray[np.int16]:
    """Train ids of the raw values of `found` ids; ValueError finds an unknown one in the map."""
    for number, value in zip(found.tolist(), values.tolist(), strict=True):
        if not table.knows(value):
            raise ValueError(f"{path}: id {number} in {first_pixel(ids == number)} is of class {value}, which label "
                             f"table {table.name!r} does not know")  # fmt: skip
    classes: npt.NDArray[np.int16] = table.encode(values[None])[0]
    return classes
