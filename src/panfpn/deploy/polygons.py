"""Labels of a raster as polygons. In: labels on disk. Out: a GeoPackage or GeoJSON of one polygon a region.

Strips of rows become polygons one after the other; those that meet at the edge of a strip are dissolved once nothing
can be added to them. Simplified edges are shared by their neighbours, so that areas still add up to the raster's.
"""

import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from panfpn.deploy.raster_files import Labels
from panfpn.extras import optional

_ROWS = 512  # of a strip, or a multiple of it
_BATCH = 20_000  # polygons that are in memory before they are written
_DRIVERS = {"gpkg": "GPKG", "geojson": "GeoJSON"}
POLYGONS = tuple(_DRIVERS)


def check_polygons() -> None:
    """ImportError without what writing polygons needs."""
    for package in ("rasterio", "shapely", "pyogrio"):
        optional(package, "geo", "writing polygons needs")


def write_polygons(labels: Labels, path: Path, *, simplify: float = 0.0) -> int:
    """Write a polygon for each region of one value (pixels that share an edge), in map coordinates; returns how many.

    Each has `value`, `class`, `pixels` (its area in pixels) and `area` (in the units of the coordinates, squared).
    `simplify` is a tolerance in pixels (Visvalingam and Whyatt's); 0 keeps the edges of pixels. ImportError without the
    extra `geo`.
    """
    pyogrio: Any = optional("pyogrio.raw", "geo", "writing polygons needs")
    shapely: Any = optional("shapely", "geo", "writing polygons needs")
    place = labels.geography if labels.geography is not None and labels.geography.placed else None
    matrix = np.array(place.transform[:6]).reshape(2, 3) if place else np.array([[1.0, 0, 0], [0, -1, 0]])
    scale = abs(np.linalg.det(matrix[:, :2]))
    crs = place.crs.to_wkt() if place and place.crs else None
    pyogrio_config: Any = optional("pyogrio", "geo", "writing polygons needs")
    pyogrio_config.set_gdal_config_options({"OGR_CURRENT_DATE": "2000-01-01T00:00:00Z"})  # equal runs, equal bytes
    count = 0
    for batch in _batches(_regions(labels, simplify)):
        values = [value for value, _ in batch]
        shapes = np.array([shape for _, shape in batch], object)
        pixels = shapely.area(shapes)
        placed = shapely.transform(shapes, lambda points: points @ matrix[:, :2].T + matrix[:, 2])
        fields = {
            "value": np.array(values, np.int32), "class": np.array([labels.names[v] for v in values], object),
            "pixels": pixels, "area": pixels * scale,
        }  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # a picture is nowhere on Earth
            pyogrio.write(
                str(path), shapely.to_wkb(placed), list(fields.values()), list(fields), geometry_type="Polygon",
                driver=_DRIVERS[path.suffix[1:]], layer="labels", crs=crs, append=count > 0,
            )  # fmt: skip
        count += len(batch)
    return count


def _batches(regions: Iterator[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
    """So many regions at a time; once none, if there are none at all."""
    batch: list[tuple[int, Any]] = []
    written = False
    for region in regions:
        batch.append(region)
        if len(batch) == _BATCH:
            yield batch
            batch, written = [], True
    if batch or not written:
        yield batch


class _Part:
    """A polygon of one strip; parts that are one region know each other through their root."""

    def __init__(self, value: int, shape: Any) -> None:
        self.value, self.shape = value, shape
        self.parent: _Part = self
        self.members = [self]

    @property
    def root(self) -> "_Part":
        part = self
        while part.parent is not part:
            part.parent = part = part.parent.parent
        return part

    def join(self, other: "_Part") -> None:
        """Be one region with another part."""
        first, second = sorted((self.root, other.root), key=lambda part: len(part.members), reverse=True)
        if first is not second:
            second.parent = first
            first.members += second.members


def _regions(labels: Labels, simplify: float) -> Iterator[tuple[int, Any]]:
    """Values and polygons, in pixels: (x, y) is the upper left corner of column x, row y."""
    shapely: Any = optional("shapely", "geo", "writing polygons needs")
    waiting: list[_Part] = []  # parts that end at the strip's lower edge
    for top, strip in labels.strips(_ROWS):
        bottom = top + len(strip)
        parts = _of_strip(strip, top, labels.nodata, simplify)
        _join_along(top, waiting, parts)
        open_parts = [part for part in parts if bottom < labels.shape[0] and _touches(part, bottom)]
        still = {id(part.root) for part in open_parts}
        done = {id(part.root): part.root for part in (*waiting, *parts) if id(part.root) not in still}
        for root in done.values():
            shapes = [part.shape for part in root.members]
            whole = shapes[0] if len(shapes) == 1 else shapely.union_all(shapes)
            for one in shapely.get_parts(whole if shapely.is_valid(whole) else shapely.make_valid(whole)):
                if shapely.area(one):
                    yield root.value, one
        waiting = open_parts


def _of_strip(strip: Any, top: int, nodata: int, simplify: float) -> list[_Part]:
    shapely: Any = optional("shapely", "geo", "writing polygons needs")
    features: Any = optional("rasterio.features", "geo", "writing polygons needs")
    values, shapes = [], []
    for geometry, value in features.shapes(strip, strip != nodata, connectivity=4):
        values.append(int(value))
        shapes.append(shapely.Polygon(geometry["coordinates"][0], geometry["coordinates"][1:]))
    if simplify and shapes:
        shapes = list(shapely.coverage_simplify(shapes, simplify, simplify_boundary=False))
    moved = shapely.transform(shapes, lambda points: points + np.array([0, top]))
    return [_Part(value, shape) for value, shape in zip(values, moved, strict=True)]


def _touches(part: _Part, y: int) -> bool:
    low, high = part.shape.bounds[1], part.shape.bounds[3]
    return bool(low == y or high == y)


def _join_along(y: int, above: list[_Part], below: list[_Part]) -> None:
    """Join parts of one value that share a stretch of the line between two strips."""
    upper, lower = (sorted(_stretches(y, parts), key=lambda s: s[0]) for parts in (above, below))
    i = 0
    for left, right, part in lower:
        while i < len(upper) and upper[i][1] <= left:
            i += 1
        j = i
        while j < len(upper) and upper[j][0] < right:
            if upper[j][2].value == part.value:
                part.join(upper[j][2])
            j += 1


def _stretches(y: int, parts: list[_Part]) -> Iterator[tuple[float, float, _Part]]:
    """Where the outlines of parts run along a line: from, to, and the part."""
    for part in parts:
        if _touches(part, y):
            for ring in (part.shape.exterior, *part.shape.interiors):
                for (x, first), (to, second) in pairwise(ring.coords):
                    if first == y == second:
                        yield min(x, to), max(x, to), part
