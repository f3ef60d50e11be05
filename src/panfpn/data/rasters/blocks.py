"""Rasters and their labels as a data set. In: files. Out: blocks, of which training cuts its crops.

Labels are a raster of the same size and place, or polygons in the raster's coordinates.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.rasters.bands import Bands
from panfpn.data.rasters.raster import Geography, Raster
from panfpn.data.rasters.sources import open_raster
from panfpn.extras import optional
from panfpn.labels import IGNORE, LabelTable
from panfpn.types import RGB, Reading, Sample

SIDE = 1024  # of a block in pixels; those at the right and below may be smaller
_SMALLEST = 64  # what is left over and smaller is a part of the block before
VECTORS = frozenset({".gpkg", ".geojson", ".json", ".shp", ".fgb"})
_SLACK = 1e-6  # of a pixel, by which places may differ
_BACKGROUND = "background"  # the class, if there is one, of what no polygon covers


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a raster."""

    name: str
    image: Path
    labels: Path
    rows: tuple[int, int]
    columns: tuple[int, int]


@dataclass(frozen=True, eq=False)
class RasterBlocks:
    """A `WindowedDataset` of blocks; pixels without data are ignored."""

    table: LabelTable
    items: tuple[Block, ...]
    reading: Reading = RGB

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """The raster's name, and the block's first row and column."""
        return self.items[index].name

    def open(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]:
        """See `WindowedDataset.open`."""
        block = self.items[index]
        rows, columns = slice(*block.rows), slice(*block.columns)
        image, valid = _opened(os.getpid(), block.image, self.reading).read(rows, columns)
        target = self.labels(index)
        return image, target if valid is None else np.where(valid, target, np.int16(IGNORE))

    def labels(self, index: int) -> npt.NDArray[np.int16]:
        """Train ids [h, w] of a block, where the image has data and where it has none."""
        block = self.items[index]
        rows, columns = slice(*block.rows), slice(*block.columns)
        raster = _opened(os.getpid(), block.image, self.reading).raster
        if block.labels.suffix.lower() in VECTORS:
            return _drawn(block.labels, raster, self.table, rows, columns)
        labels = _labels(os.getpid(), block.labels)
        values, valid = labels.read(rows, columns)
        source = f"{block.labels} (rows from {rows.start}, columns from {columns.start})"
        if valid is None:
            return self.table.encode(values[:, :, 0] if values.shape[2] == 1 else values, source)
        target = np.full(valid.shape, IGNORE, np.int16)
        target[valid] = self.table.encode(values[valid][None], source)[0] if values.shape[2] == 3 else (
            self.table.encode(values[valid].T, source)[0])  # fmt: skip
        return target

    def read(self, index: int) -> Sample:
        """One whole block; see `Dataset.read`."""
        image, target = self.open(index)
        return Sample(image=image, target=target, name=self.name(index))


@lru_cache(maxsize=8)
def _opened(process: int, path: Path, reading: Reading) -> Bands:
    """A raster, opened once in each process: files and locks do not survive a fork."""
    return Bands(open_raster(path), reading)


@lru_cache(maxsize=8)
def _labels(process: int, path: Path) -> Raster:
    return open_raster(path)


def blocks_of(name: str, image: Path, labels: Path) -> list[Block]:
    """The blocks of a raster; ValueError for labels of another size or place."""
    raster = open_raster(image)
    try:
        if labels.suffix.lower() not in VECTORS:
            _check_place(image, raster, labels)
        return [
            Block(f"{name}/{rows[0]:06}_{columns[0]:06}", image, labels, rows, columns)
            for rows in _cut(raster.height) for columns in _cut(raster.width)
        ]  # fmt: skip
    finally:
        raster.close()


def _cut(length: int) -> Iterator[tuple[int, int]]:
    starts = [start for start in range(0, length, SIDE) if start == 0 or length - start >= _SMALLEST]
    return zip(starts, [*starts[1:], length], strict=True)


def _check_place(image: Path, raster: Raster, labels: Path) -> None:
    other = open_raster(labels)
    try:
        if (other.height, other.width) != (raster.height, raster.width):
            raise ValueError(f"{labels}: {other.height}×{other.width} pixels, but its image {image} has "
                             f"{raster.height}×{raster.width}")  # fmt: skip
        here, there = raster.geography, other.geography
        if here is not None and there is not None and here.placed and there.placed and not _same(here, there):
            raise ValueError(f"{labels}: lies elsewhere than its image {image} (another reference system or "
                             "transform); warp it to the image's grid")  # fmt: skip
    finally:
        other.close()


def _same(one: Geography, other: Geography) -> bool:
    pixel = max(map(abs, one.transform[:6:3] + one.transform[1:5:3]))
    near = all(abs(a - b) <= _SLACK * max(1.0, abs(a), pixel) for a, b in zip(one.transform[:6], other.transform[:6],
                                                                              strict=True))  # fmt: skip
    return near and (one.crs is None or other.crs is None or one.crs == other.crs)


def _drawn(path: Path, raster: Raster, table: LabelTable, rows: slice, columns: slice) -> npt.NDArray[np.int16]:
    """Train ids of a window by polygons with a field `class` (a name of the table) or `value`."""
    features: Any = optional("rasterio.features", "geo", f"{path}: drawing polygons needs")
    windows: Any = optional("rasterio.windows", "geo", f"{path}: drawing polygons needs")
    shapely: Any = optional("shapely", "geo", f"{path}: drawing polygons needs")
    if raster.geography is None:
        raise ValueError(f"{raster.path}: has no coordinates, in which the polygons of {path} could be drawn")
    shapes, ids, crs = _polygons(os.getpid(), path, table)
    own = raster.geography.crs
    if crs and own and own.to_wkt() != crs and type(own).from_user_input(crs) != own:
        raise ValueError(f"{path}: its reference system is another than that of {raster.path}; reproject the polygons")
    transform = windows.transform(windows.Window.from_slices(rows, columns), raster.geography.transform)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    corners = [transform @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    x, y = zip(*corners, strict=True)
    found = np.sort(shapes.query(shapely.box(min(x), min(y), max(x), max(y))))
    ground = table.names.index(_BACKGROUND) if _BACKGROUND in table.names else IGNORE
    if not len(found):
        return np.full((height, width), ground, np.int16)
    pairs = [(shapes.geometries[i], int(ids[i])) for i in found]
    drawn: npt.NDArray[np.int16] = features.rasterize(
        pairs, (height, width), fill=ground, transform=transform, dtype=np.int16
    )
    return drawn


@lru_cache(maxsize=8)
def _polygons(process: int, path: Path, table: LabelTable) -> tuple[Any, npt.NDArray[np.int16], str | None]:
    """A tree of the polygons of a file, their train ids, and their reference system."""
    pyogrio: Any = optional("pyogrio.raw", "geo", f"{path}: reading polygons needs")
    shapely: Any = optional("shapely", "geo", f"{path}: reading polygons needs")
    try:
        about, _, shapes, columns = pyogrio.read(path)
    except Exception as error:  # GDAL's
        raise ValueError(f"{path}: polygons that cannot be read ({error})") from error
    fields = dict(zip(about["fields"], columns, strict=True))
    if "class" in fields:
        known = {name: k for k, name in enumerate(table.names)}
        unknown = sorted({str(name) for name in fields["class"]} - known.keys())
        if unknown:
            raise ValueError(f"{path}: polygons of class {unknown[0]!r}, which labels.yaml does not name; it has "
                             f"{', '.join(table.names)}")  # fmt: skip
        ids = np.array([known[str(name)] for name in fields["class"]], np.int16)
    elif "value" in fields:
        ids = table.encode(np.asarray(fields["value"], np.int64)[None], f"{path}: field value")[0]
    else:
        raise ValueError(f"{path}: its polygons have no field `class` or `value`; they have "
                         f"{', '.join(map(str, fields)) or 'none'}")  # fmt: skip
    return shapely.STRtree(shapely.from_wkb(shapes)), ids, about["crs"]
