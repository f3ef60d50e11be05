"""Segments from maps of ids. In: an image and a map that tells its segments apart. Out: a data set of Segments.

What an id means is the affair of layouts (coco.py, cityscapes.py, folder.py); here are the parts they share.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from panfpn.data.images import decode_with_header, fit_mask
from panfpn.data.transforms import Geometry
from panfpn.files import read_bytes
from panfpn.labels import LabelTable
from panfpn.listing import LeftOut
from panfpn.types import RGB, Instances, Reading, Sample, Segments

Ids = npt.NDArray[np.integer[Any]]
_DENSE = 1 << 24  # ids below this (all that RGB can hold) are looked up in an array that memory backs where it is used
_MAX_SEGMENTS = 2**15 - 1  # a segment's index is int16


class SegmentSource(Protocol):
    """Segments of the images of a split, by number."""

    def segments(self, index: int) -> Segments:
        """Of one image; ValueError names the file, the id or pixel, and what is wrong."""

    def file(self, index: int) -> Path:
        """Where they stand."""


class InstanceSource(Protocol):
    """Instances of the images of a split, by number."""

    def instances(self, index: int, size: tuple[int, int], geometry: Geometry, shown: tuple[int, int]) -> Instances:
        """What a geometry shows of an image of `size` (height, width), in a crop of `shown` pixels."""


@dataclass(frozen=True, eq=False)
class PanopticDataset:
    """Images on disk and their segments; with `panoptic` False, of the segments only the classes."""

    table: LabelTable
    images: tuple[tuple[str, Path], ...]  # (name, file), in the order of `source`
    source: SegmentSource
    panoptic: bool = True
    outlines: InstanceSource | None = None  # what training takes things from in place of the segments
    reading: Reading = RGB
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: tuple[str, ...] = ()  # what whoever trains on it should know

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """The sample's name, unique in its split."""
        return self.images[index][0]

    def open(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16] | Segments]:
        """Decode one image and its segments; see `Dataset.open`."""
        image, segments = self._decode(index)
        return image, segments if self.panoptic else segments.labels

    def read(self, index: int) -> Sample:
        """Decode one image and its segments; see `Dataset.read`."""
        image, segments = self._decode(index)
        kept = segments if self.panoptic else None
        return Sample(image=image, target=segments.labels, name=self.name(index), segments=kept)

    def labels(self, index: int) -> npt.NDArray[np.int16]:
        """The train ids of one image as they are stored [H, W]; the image is not looked at."""
        return self.source.segments(index).labels

    def _decode(self, index: int) -> tuple[npt.NDArray[np.uint8], Segments]:
        path = self.images[index][1]
        image, header = decode_with_header(read_bytes(path), path, self.reading)
        segments, source = self.source.segments(index), self.source.file(index)
        if header.orientation > 1:
            segments = replace(segments, index=fit_mask(segments.index, header, self.reading, path, source))
        if image.shape[:2] != segments.shape:
            raise ValueError(different_sizes(path, image.shape[:2], source, segments.shape))
        return image, segments


def different_sizes(image: Path, size: tuple[int, ...], mask: Path, other: tuple[int, ...]) -> str:
    """The sentence for an image and a mask of other sizes (height, width)."""
    return f"{image} is {size[1]}×{size[0]} pixels but its mask {mask} is {other[1]}×{other[0]} pixels; they must agree"


def ids_in(ids: Ids) -> npt.NDArray[np.int64]:
    """The ids that occur in a map, rising."""
    size = int(ids.max(initial=0)) + 1
    if size > _DENSE:
        return np.unique(ids).astype(np.int64)
    present = np.zeros(size, np.bool_)
    present[ids] = True
    return np.flatnonzero(present)


def check_count(count: int, source: object) -> None:
    """ValueError names `source` if there are more segments than can be counted in 16 bits."""
    if count > _MAX_SEGMENTS:
        raise ValueError(f"{source}: {count} segments; {_MAX_SEGMENTS} are possible in one image")


def indices_of(ids: Ids, numbers: npt.NDArray[np.int64], source: object) -> npt.NDArray[np.int16]:
    """Of each pixel of an id map [H, W] the index of its id in `numbers` (distinct), IGNORE where it is not there.

    ValueError names `source` if there are more than can be counted in 16 bits.
    """
    check_count(len(numbers), source)
    size = max(int(ids.max(initial=0)), int(numbers.max(initial=0))) + 1
    if size > _DENSE:
        order = np.argsort(numbers, kind="stable")
        index = order[np.searchsorted(numbers[order], ids).clip(max=len(numbers) - 1)].astype(np.int16)
        return np.where(numbers[index] == ids, index, np.int16(-1))
    table = np.zeros(size, np.int16)  # 0: unknown, which so needs no writing of what may be 32 MB
    table[numbers] = np.arange(1, len(numbers) + 1)
    return table.take(ids) - np.int16(1)


def things_in(table: LabelTable) -> npt.NDArray[np.bool_]:
    """Whether each class is a thing; False once more at the end, for IGNORE."""
    return np.array([*(c.thing for c in table.classes), False])


def first_pixel(where: npt.NDArray[np.bool_]) -> str:
    """The first pixel of a mask, in words."""
    row, column = np.unravel_index(np.argmax(where), where.shape)
    return f"row {row}, column {column}"
