"""Instances as COCO draws them. In: instances_SPLIT.json, polygons and run lengths. Out: the Instances of a crop.

Unlike segments, outlines overlap and have no pixels of their own: they are moved to the crop and rasterised there once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from panfpn.data.layouts.coco_names import as_coco, same_name
from panfpn.data.layouts.painting import checked_polygon
from panfpn.data.targets import no_instances
from panfpn.data.transforms import Geometry, cut_map, source_window
from panfpn.files import read_json
from panfpn.labels import LabelTable
from panfpn.types import Instances

Bits = npt.NDArray[np.bool_]
_LONGEST_RUN = 1 << 23


@dataclass(frozen=True, eq=False)
class CocoOutlines:
    """The instances of a split, flattened: their million lists would be copied into every worker."""

    file: Path
    first: npt.NDArray[np.int64]  # [images + 1] image n has the instances first[n]..first[n + 1]
    classes: npt.NDArray[np.int16]  # [instances]
    crowd: npt.NDArray[np.bool_]  # [instances] a group that nobody told apart
    runs: npt.NDArray[np.bool_]  # [instances] given by run lengths, not by polygons
    parts: npt.NDArray[np.int64]  # [instances + 1] instance i has the polygons parts[i]..parts[i + 1]
    starts: npt.NDArray[np.int64]  # [polygons + 1] where the numbers of each begin
    numbers: npt.NDArray[np.floating]  # x, y, x, y, … of a polygon in pixels of its image; lengths of runs, by columns
    without: int = 0  # images of which the file knows no instance

    def summary(self) -> str:
        """How many there are, in words."""
        crowds = int(self.crowd.sum())
        return (f"{self.file}: {len(self.crowd) - crowds} things and {crowds} crowds; {self.without} of "
                f"{len(self.first) - 1} images have none")  # fmt: skip

    def instances(self, index: int, size: tuple[int, int], geometry: Geometry, shown: tuple[int, int]) -> Instances:
        """What a geometry shows of the instances of an image of `size`, in a crop of `shown` pixels; crowds last.

        ValueError for run lengths that do not fill the image.
        """
        boxes, kept, bits = [], [], []
        numbers = range(*self.first[index : index + 2])
        for i in sorted(numbers, key=lambda i: (bool(self.crowd[i]), int(self.classes[i]))):
            parts = [self.numbers[slice(*self.starts[k : k + 2])] for k in range(*self.parts[i : i + 2])]
            if self.runs[i]:
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

    def num_pixels(self, instance: int) -> int:
        """How many pixels the run lengths of an instance fill."""
        part = self.parts[instance]
        return int(self.numbers[slice(*self.starts[part : part + 2])].astype(np.int64).sum())

    def whole_runs(self, lengths: npt.NDArray[np.floating], size: tuple[int, int]) -> npt.NDArray[np.int64]:
        """Run lengths as whole numbers; ValueError if they do not fill an image of `size`."""
        counts = lengths.astype(np.int64)
        if counts.sum() != size[0] * size[1]:
            raise ValueError(f"{self.file}: run lengths fill {counts.sum()} pixels of an image of "
                             f"{size[1]}×{size[0]}")  # fmt: skip
        return counts

    def _decode(self, lengths: npt.NDArray[np.floating], size: tuple[int, int]) -> npt.NDArray[np.int16]:
        counts = self.whole_runs(lengths, size)
        runs = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.int16)
        return np.ascontiguousarray(runs.reshape(size[1], size[0]).T)


def _moved(
    polygon: npt.NDArray[np.floating], size: tuple[int, int], geometry: Geometry, shown: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Points [P, 2] of a polygon (x, y, x, y, …) where the crop shows them, as `cut` moves its pixels."""
    rows, columns = source_window(size, geometry.size, geometry.window)
    start, factor = (columns.start, rows.start), (geometry.size[1] / size[1], geometry.size[0] / size[0])
    points: npt.NDArray[np.float64] = (polygon.reshape(-1, 2).astype(np.float64) - start) * factor
    height, width = shown[::-1] if geometry.turns % 2 else shown
    if geometry.flip:
        points[:, 0] = width - points[:, 0]
    for _ in range(geometry.turns):
        points = np.stack([height - points[:, 1], points[:, 0]], 1)
        height, width = width, height
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


def read_outlines(
    file: Path, images: Sequence[str], table: LabelTable, ids: Sequence[Any] | None = None
) -> CocoOutlines:
    """The instances of images, known by their file names and by their `ids` in the panoptic JSON.

    Raises:
        ValueError: another format, an id or category that stands for different things in the two files, a category that
            is no thing, a shape that is neither polygons nor run lengths.
    """
    data = read_json(file)
    with as_coco(file, "images, annotations with segmentation and category_id, and categories"):
        image_of = _images(data["images"], images, ids or (), file)
        class_of = things_by_category(data.get("categories"), table, file)
        for annotation in data["annotations"]:
            known = image_of[annotation["image_id"]] is None or annotation["category_id"] in class_of
            if not known:
                raise ValueError(f"{file}: instance {annotation['id']} has category {annotation['category_id']!r}, "
                                 f"which is no thing of label table {table.name!r}")  # fmt: skip
        return flattened(data["annotations"], image_of, class_of, len(images), file, np.dtype(np.float32))


def flattened(
    annotations: Sequence[dict[str, Any]], image_of: Mapping[Any, int | None], class_of: Mapping[Any, int], count: int,
    file: Path, dtype: np.dtype[Any],
) -> CocoOutlines:  # fmt: skip
    """The instances of `count` images, of the annotations whose image has a number, with numbers of a `dtype`.

    ValueError for a shape that is neither polygons nor run lengths.
    """
    mine = [a for a in annotations if image_of[a["image_id"]] is not None]
    mine.sort(key=lambda annotation: image_of[annotation["image_id"]] or 0)
    parts = [_parts(annotation, file, dtype) for annotation in mine]
    owners = np.array([image_of[annotation["image_id"]] for annotation in mine], np.int64)
    lengths = [len(part) for several in parts for part in several]
    runs = [isinstance(annotation["segmentation"], dict) for annotation in mine]
    return CocoOutlines(
        file=file,
        first=np.searchsorted(owners, np.arange(count + 1)),
        classes=np.array([class_of[annotation["category_id"]] for annotation in mine], np.int16),
        crowd=np.array([bool(a.get("iscrowd", run)) for a, run in zip(mine, runs, strict=True)], np.bool_),
        runs=np.array(runs, np.bool_),
        parts=np.cumsum([0, *map(len, parts)]),
        starts=np.cumsum([0, *lengths]),
        numbers=np.concatenate([np.empty(0, dtype), *(part for several in parts for part in several)]),
        without=count - len(np.unique(owners)),
    )


def _images(
    entries: Sequence[dict[str, Any]], names: Sequence[str], ids: Sequence[Any], file: Path
) -> dict[Any, int | None]:
    """Which of our images each id of the file is: by name, or where the file has other names, by id."""
    by_name, by_id = ({key: n for n, key in enumerate(keys)} for keys in (names, ids))
    found: dict[Any, int | None] = {}
    for entry in entries:
        number, same = by_name.get(entry["file_name"]), by_id.get(entry["id"])
        if number is not None and same is not None and number != same:
            raise ValueError(f"{file}: image {entry['id']!r} is {entry['file_name']} there, and {names[same]} in the "
                             "panoptic JSON; number the images alike")  # fmt: skip
        if entry["id"] in found:
            raise ValueError(f"{file}: lists two images with id {entry['id']!r}; an id is unique")
        found[entry["id"]] = same if number is None else number
    if entries and all(number is None for number in found.values()):
        raise ValueError(f"{file}: none of its images ({entries[0]['file_name']}, …) is one of the panoptic JSON's "
                         f"({', '.join(names[:1])}, …), neither by name nor by id")  # fmt: skip
    return found


def things_by_category(categories: Any, table: LabelTable, file: Path) -> dict[int, int]:
    """Train ids of things by category id; ValueError where the file calls one of them otherwise than the table."""
    things = {value: k for k, c in enumerate(table.classes) if c.thing for value in c.values}
    for category in categories or ():
        k = things.get(category["id"])
        if k is not None and not same_name(category["name"], table.names[k]):
            raise ValueError(f"{file}: category {category['id']} is {category['name']!r} there, and "
                             f"{table.names[k]!r} in label table {table.name!r}")  # fmt: skip
    return things


def _parts(annotation: dict[str, Any], file: Path, dtype: np.dtype[Any]) -> list[npt.NDArray[np.floating]]:
    """The polygons of an instance, or its run lengths."""
    shape, where = annotation["segmentation"], f"{file}: instance {annotation['id']}"
    if isinstance(shape, dict):
        counts = shape["counts"]
        runs = unpacked(counts, where) if isinstance(counts, str) else np.array(counts, np.float64)
        if runs.ndim != 1 or not ((runs >= 0) & (runs == np.rint(runs))).all():
            raise ValueError(f"{where} has run lengths that are no list of numbers of pixels")
        return [_exact(runs).astype(dtype)]
    polygons = [shape] if shape and not isinstance(shape[0], list) else shape  # a single one may stand by itself
    return [checked_polygon(part, where).ravel().astype(dtype) for part in polygons]


def _exact(runs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Runs as float32, which holds whole numbers up to 2^24: longer ones become several with nothing between."""
    while (runs > _LONGEST_RUN).any():
        place = int(np.argmax(runs > _LONGEST_RUN))
        runs = np.concatenate([runs[:place], [_LONGEST_RUN, 0, runs[place] - _LONGEST_RUN], runs[place + 1 :]])
    return runs


def unpacked(text: str, where: str = "run lengths") -> npt.NDArray[np.float64]:
    """COCO's compressed run lengths: 5 bits a character from '0' on, with sign, from the third on as differences.

    ValueError, beginning with `where`, for text that is none. Source: cocoapi, maskApi.c, rleFrString.
    """
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    if not text.isascii() or not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError(f"{where} has compressed run lengths that are damaged")
    last = np.flatnonzero(codes & 32 == 0)  # character of each number
    first = np.concatenate([[0], last[:-1] + 1])
    if (last - first).max() > 7:
        raise ValueError(f"{where} has compressed run lengths that are damaged")
    position = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    numbers = np.add.reduceat((codes & 31) << (5 * position), first)
    numbers -= np.where(codes[last] & 16, 1 << 5 * (last - first + 1), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])  # the second and the third are whole
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers.astype(np.float64)
