"""Segments painted from shapes. In: polygons and bit masks, one or more of an object. Out: the Segments of an image.

Shapes may overlap, pixels belong to one: crowds are painted first, then from the largest to the smallest, so that what
lies on another stays to be seen. What no shape claims is background.
"""

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from panfpn.data.segments import check_count, things_in
from panfpn.labels import IGNORE, LabelTable
from panfpn.types import Segments

BACKGROUND = "background"
_GRID = 5  # steps in a pixel to which COCO's rasteriser rounds
_LONGEST = 1 << 22  # steps of an outline
_FAR = 1e6  # beyond it no corner of a polygon lies

Bits = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Pixels of an image: bits [h, w] whose first is at `top`, `left`."""

    top: int
    left: int
    bits: Bits


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Shape:
    """One object: the pixels in any of its polygons (points [P, 2], x and y in pixels) and patches."""

    label: int  # train id, or IGNORE
    polygons: Sequence[Points] = ()
    patches: Sequence[Patch] = ()
    crowd: bool = False  # a group that nobody told apart


class ShapeSource(Protocol):
    """Shapes of the images of a split, by number."""

    def shapes(self, index: int) -> tuple[tuple[int, int], list[Shape]]:
        """Height and width of one image, and its shapes; ValueError names the file and the shape that is wrong."""

    def file(self, index: int) -> Path:
        """Where they stand."""


@dataclass(frozen=True, eq=False)
class PaintedSegments:
    """A `SegmentSource` of shapes; train id `rest` is what no shape claims, IGNORE: nothing is known of it."""

    table: LabelTable
    source: ShapeSource
    rest: int = 0

    def file(self, index: int) -> Path:
        """Where the shapes of an image stand."""
        return self.source.file(index)

    def segments(self, index: int) -> Segments:
        """Of one image: a segment for each thing and crowd, and for each class of stuff."""
        size, shapes = self.source.shapes(index)
        return painted(shapes, size, self.table, self.rest, self.file(index))


def table_of(names: Sequence[str], name: str, values: Sequence[int] = (), stuff: Sequence[str] = ()) -> LabelTable:
    """Background and things of these names, with the values of masks 1, 2, … or those given; `stuff` are no things.

    A class that is called background already is it. ValueError for a name of `stuff` that is no class.
    """
    unknown = [s for s in stuff if s not in names]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of the classes ({', '.join(names[:12])}{', …' * (len(names) > 12)})")
    things = [n for n in names if n.casefold() != BACKGROUND]
    values = values or range(1, len(things) + 1)
    described = [{"name": n, "value": v, "thing": n not in stuff} for n, v in zip(things, values, strict=True)]
    rest = next((n for n in names if n.casefold() == BACKGROUND), BACKGROUND)
    plain = {"name": name, "ignore": [255 if 255 not in values else 65535],
             "classes": [{"name": rest, "value": 0, "color": "#000000"}, *described]}  # fmt: skip
    return LabelTable.from_dict(plain, name)


def painted(shapes: Sequence[Shape], size: tuple[int, int], table: LabelTable, rest: int, source: object) -> Segments:
    """The segments [H, W] of an image of `size`; `source` is named where there are too many."""
    patches = [joined([*(rasterised(p, size) for p in shape.polygons), *shape.patches]) for shape in shapes]
    areas = [int(patch.bits.sum()) for patch in patches]
    order = sorted(range(len(shapes)), key=lambda i: (not shapes[i].crowd, -areas[i]))
    things = things_in(table)
    number_of: dict[int, int] = {}  # of the segment of a class of stuff
    classes: list[int] = []
    crowd: list[bool] = []
    index = np.full(size, IGNORE, np.int16)
    if rest != IGNORE:
        number_of[rest] = 0
        classes.append(rest)
        crowd.append(False)
        index[:] = 0
    for i in order:
        label, patch = shapes[i].label, patches[i]
        height, width = patch.bits.shape
        view = index[patch.top : patch.top + height, patch.left : patch.left + width]
        if label == IGNORE:
            view[patch.bits] = IGNORE
            continue
        number = number_of.get(label, len(classes)) if not things[label] else len(classes)
        if number == len(classes):
            check_count(number + 1, source)
            classes.append(label)
            crowd.append(shapes[i].crowd and bool(things[label]))
            if not things[label]:
                number_of[label] = number
        view[patch.bits] = number
    return Segments(
        index=index, classes=np.array(classes, np.int16), crowd=np.array(crowd, np.bool_),
        ids=np.arange(1, len(classes) + 1),
    )  # fmt: skip


def joined(patches: Sequence[Patch]) -> Patch:
    """The pixels of any of the patches."""
    patches = [p for p in patches if p.bits.size] or [Patch(0, 0, np.zeros((0, 0), np.bool_))]
    if len(patches) == 1:
        return patches[0]
    top, left = min(p.top for p in patches), min(p.left for p in patches)
    bottom, right = (max(getattr(p, side) + p.bits.shape[axis] for p in patches)
                     for axis, side in enumerate(("top", "left")))  # fmt: skip
    bits = np.zeros((bottom - top, right - left), np.bool_)
    for p in patches:
        height, width = p.bits.shape
        bits[p.top - top : p.top - top + height, p.left - left : p.left - left + width] |= p.bits
    return Patch(top, left, bits)


def rasterised(polygon: Points, size: tuple[int, int]) -> Patch:
    """The pixels of a polygon [P, 2] as COCO's own rasteriser has them, bit for bit (cocoapi, maskApi.c, rleFrPoly).

    It rounds corners to a fifth of a pixel, walks along the outline in such steps, and fills each column between the
    rows where the walk crosses its middle.
    """
    height, width = size
    corners = np.trunc(_GRID * polygon + 0.5).astype(np.int64)
    start, end = corners, np.roll(corners, -1, 0)
    steps = np.abs(end - start)
    if int(steps.max(1).sum()) > _LONGEST:
        raise ValueError(f"a polygon's outline is {steps.max(1).sum() / _GRID:.0f} pixels long, in an image of "
                         f"{width}×{height}")  # fmt: skip
    count = steps.max(1) + 1
    edge = np.repeat(np.arange(len(count)), count)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    long = (steps[:, 0] < steps[:, 1]).astype(np.int64)  # the axis along which the walk goes by one
    rows = np.arange(len(long))
    low = np.where((start[rows, long] > end[rows, long])[:, None], end, start)  # a walk begins at the smaller end
    high = np.where((start[rows, long] > end[rows, long])[:, None], start, end)
    run = (high - low)[rows, long]
    slope = (high - low)[rows, 1 - long] / np.maximum(run, 1)
    backwards = (start[rows, long] > end[rows, long])[edge]
    t = np.where(backwards, run[edge] - step, step)
    along = low[rows, long][edge] + t
    across = np.trunc(low[rows, 1 - long][edge] + slope[edge] * t + 0.5).astype(np.int64)
    upright = long[edge] == 1
    x, y = np.where(upright, across, along), np.where(upright, along, across)
    turn = np.flatnonzero(x[1:] != x[:-1]) + 1
    column = np.minimum(x[turn], x[turn - 1])
    middle = (column % _GRID == _GRID // 2) & (column >= 0) & (column < _GRID * width)
    turn, column = turn[middle], column[middle] // _GRID
    if not len(turn):
        return Patch(0, 0, np.zeros((0, 0), np.bool_))
    row = np.ceil(((np.minimum(y[turn], y[turn - 1]) + 0.5) / _GRID - 0.5).clip(0, height)).astype(np.int64)
    top, bottom, left, right = int(row.min()), int(row.max()), int(column.min()), int(column.max()) + 1
    box = (right - left, bottom - top + 1)
    crossings = np.bincount((column - left) * box[1] + row - top, minlength=math.prod(box)).reshape(box)
    inside = (np.cumsum(crossings, 1)[:, :-1] & 1).astype(np.bool_)
    return Patch(top, left, np.ascontiguousarray(inside.T))


def patch_of_runs(runs: npt.NDArray[np.int64], size: tuple[int, int]) -> Patch:
    """The pixels of run lengths by columns, of nothing and of the object in turn."""
    bits = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.bool_).reshape(size[1], size[0]).T
    return trimmed(bits)


def trimmed(bits: Bits) -> Patch:
    """The pixels of a whole image, in their box."""
    rows, columns = np.flatnonzero(bits.any(1)), np.flatnonzero(bits.any(0))
    if not len(rows):
        return Patch(0, 0, np.zeros((0, 0), np.bool_))
    top, left = int(rows[0]), int(columns[0])
    return Patch(top, left, np.ascontiguousarray(bits[top : rows[-1] + 1, left : columns[-1] + 1]))


def background_of(table: LabelTable, taken: Container[int] = ()) -> int:
    """The train id of what no shape claims: the class of that name, or of value 0 unless shapes have it; or IGNORE."""
    named = next((k for k, name in enumerate(table.names) if name.casefold() == BACKGROUND), None)
    zero = next((k for k, c in enumerate(table.classes) if 0 in c.values and 0 not in taken), IGNORE)
    return zero if named is None else named


def train_ids(table: LabelTable) -> dict[int, int]:
    """Train ids by the values of a table of the user's own, IGNORE for those that it ignores."""
    known = {value: k for k, c in enumerate(table.classes) for value in c.values}
    return {**known, **dict.fromkeys(table.ignore, IGNORE)}


def checked_polygon(numbers: object, where: str) -> Points:
    """Points [P, 2] of x, y, x, y, …; ValueError, beginning with `where`, for what is no polygon."""
    try:
        points = np.array(numbers, np.float64)
        fits = points.ndim == 1 and len(points) % 2 == 0 and bool((np.abs(points) < _FAR).all())  # false of NaN
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"{where} has a polygon that is no list of x, y, x, y, …")
    if len(points) < 6:
        raise ValueError(f"{where} has a polygon of {len(points) // 2} points; three at least enclose something")
    return points.reshape(-1, 2)
