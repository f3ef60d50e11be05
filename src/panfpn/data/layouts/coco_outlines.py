"""Instances as COCO draws them. In: instances_SPLIT.json, polygons and run lengths. Out: the Instances of a crop.

Unlike segments, outlines overlap and have no pixels of their own: they are moved to the crop and rasterised there once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from panfpn.data.targets import no_instances
from panfpn.data.transforms import Geometry, cut_map, source_window
from panfpn.files import read_json
from panfpn.labels import LabelTable
from panfpn.types import Instances

Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CocoOutlines:
    """The instances of a split, flattened: their million lists would be copied into every worker."""

    file: Path
    first: npt.NDArray[np.int64]  # [images + 1] image n has the instances first[n]..first[n + 1]
    classes: npt.NDArray[np.int16]  # [instances]
    crowd: npt.NDArray[np.bool_]  # [instances] given by run lengths, not by polygons
    parts: npt.NDArray[np.int64]  # [instances + 1] instance i has the polygons parts[i]..parts[i + 1]
    starts: npt.NDArray[np.int64]  # [polygons + 1] where the numbers of each begin
    numbers: npt.NDArray[np.float32]  # x, y, x, y, … of a polygon in pixels of its image; lengths of runs, by columns

    def instances(self, index: int, size: tuple[int, int], geometry: Geometry, shown: tuple[int, int]) -> Instances:
        """What a geometry shows of the instances of an image of `size`, in a crop of `shown` pixels; crowds last.

        ValueError for run lengths that do not fill the image.
        """
        boxes, kept, bits = [], [], []
        numbers = range(*self.first[index : index + 2])
        for i in sorted(numbers, key=lambda i: (bool(self.crowd[i]), int(self.classes[i]))):
            parts = [self.numbers[slice(*self.starts[k : k + 2])] for k in range(*self.parts[i : i + 2])]
            if self.crowd[i]:
                mask = cut_map(self._decode(parts[0], size), geometry).astype(np.bool_)
            else:
                mask = rasterised([_moved(part, size, geometry, shown) for part in parts], shown)
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            if len(rows):
                top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
                boxes.append((left, top, right, bottom))
                bits.append(mask[top:bottom, left:right].ravel())
                kept.append(i)
        if not kept:
            return no_instances()
        return Instances(
            boxes=torch.from_numpy(np.array(boxes, np.float32)),
            classes=torch.from_numpy(self.classes[kept].astype(np.int64)),
            bits=torch.from_numpy(np.concatenate(bits).view(np.uint8)),
            num_crowds=int(self.crowd[kept].sum()),
        )

    def _decode(self, lengths: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.int16]:
        counts = lengths.astype(np.int64)
        if counts.sum() != size[0] * size[1]:
            raise ValueError(f"{self.file}: run lengths of a crowd fill {counts.sum()} pixels of an image of "
                             f"{size[1]}×{size[0]}")  # fmt: skip
        runs = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.int16)
        return np.ascontiguousarray(runs.reshape(size[1], size[0]).T)


def _moved(
    polygon: npt.NDArray[np.float32], size: tuple[int, int], geometry: Geometry, shown: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Points [P, 2] of a polygon (x, y, x, y, …) where the crop shows them, as `cut` moves its pixels."""
    rows, columns = source_window(size, geometry.size, geometry.window)
    start, factor = (columns.start, rows.start), (geometry.size[1] / size[1], geometry.size[0] / size[0])
    points: npt.NDArray[np.float64] = (polygon.reshape(-1, 2).astype(np.float64) - start) * factor
    if geometry.flip:
        points[:, 0] = shown[1] - points[:, 0]
    return points


def rasterised(polygons: list[npt.NDArray[np.float64]], size: tuple[int, int]) -> Bits:
    """Pixels [H, W] whose centre lies in an odd number of windings of any of the polygons (points [P, 2]).

    COCO's own rasteriser snaps the outline to a grid of 1/5 pixel and so moves a few pixels of the border.
    cv2.fillPoly would fill every pixel that the outline touches: half a pixel more all around.
    """
    height, width = size
    filled = np.zeros(size, np.bool_)
    for points in polygons:
        (x0, y0), (x1, y1) = points.T, np.roll(points, -1, 0).T
        x0, y0, x1, y1 = np.where(y0 <= y1, (x0, y0, x1, y1), (x1, y1, x0, y0))  # every edge downwards
        # Row r belongs to an edge if its centre r + 1/2 is from y0 to below y1; every row so meets an even number.
        first, last = (np.ceil(y - 0.5).clip(0, height).astype(np.int64) for y in (y0, y1))
        counts = last - first
        if not counts.sum():
            continue
        edge = np.repeat(np.arange(len(counts)), counts)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
        x = x0[edge] + (row + 0.5 - y0[edge]) / (y1 - y0)[edge] * (x1 - x0)[edge]
        column = np.ceil(x - 0.5).clip(0, width).astype(np.int64)  # the first whose centre is not left of the edge
        top, bottom, left, right = row.min(), row.max() + 1, column.min(), column.max()
        box = bottom - top, right - left + 1
        crossings = np.bincount((row - top) * box[1] + column - left, minlength=box[0] * box[1]).reshape(box)
        filled[top:bottom, left:right] |= (np.cumsum(crossings[:, :-1] & 1, 1, np.int16) & 1).astype(np.bool_)
    return filled


def read_outlines(file: Path, images: list[str], table: LabelTable) -> CocoOutlines:
    """The instances of the images of these file names; one that the file does not know has none.

    ValueError for another format, an unknown category, or compressed run lengths.
    """
    data = read_json(file)
    try:
        number = {name: n for n, name in enumerate(images)}
        image_of = {entry["id"]: number.get(entry["file_name"]) for entry in data["images"]}
        mine = [a for a in data["annotations"] if image_of[a["image_id"]] is not None]
        mine.sort(key=lambda annotation: image_of[annotation["image_id"]] or 0)
        things = {value: k for k, c in enumerate(table.classes) if c.thing for value in c.values}
        for annotation in mine:
            if annotation["category_id"] not in things:
                raise ValueError(f"{file}: instance {annotation['id']} has category {annotation['category_id']!r}, "
                                 f"which is no thing of label table {table.name!r}")  # fmt: skip
        parts = [_parts(annotation, file) for annotation in mine]
        owners = np.array([image_of[annotation["image_id"]] for annotation in mine], np.int64)
        lengths = [len(part) for several in parts for part in several]
        return CocoOutlines(
            file=file,
            first=np.searchsorted(owners, np.arange(len(images) + 1)),
            classes=np.array([things[annotation["category_id"]] for annotation in mine], np.int16),
            crowd=np.array([isinstance(annotation["segmentation"], dict) for annotation in mine], np.bool_),
            parts=np.cumsum([0, *map(len, parts)]),
            starts=np.cumsum([0, *lengths]),
            numbers=np.concatenate([np.empty(0, np.float32), *(part for several in parts for part in several)]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: not in COCO's instance format ({type(error).__name__}: {error}); that has images "
                         "and annotations with segmentation and category_id") from error  # fmt: skip


def _parts(annotation: dict[str, Any], file: Path) -> list[npt.NDArray[np.float32]]:
    """The polygons of an instance, or its run lengths."""
    shape = annotation["segmentation"]
    runs = [shape["counts"]] if isinstance(shape, dict) else shape
    if not all(isinstance(part, list) for part in runs):
        raise ValueError(f"{file}: instance {annotation['id']} has compressed run lengths; write polygons, or "
                         "counts as a list of numbers")  # fmt: skip
    parts = [np.array(part, np.float32) for part in runs]
    if any(part.ndim != 1 or (len(part) % 2 and not isinstance(shape, dict)) for part in parts):
        raise ValueError(f"{file}: instance {annotation['id']} has a polygon that is no list of x, y, x, y, …")
    return parts
