"""LabelMe: a JSON for each image, in SPLIT/ (or all in one folder, which is the split `train`).

Polygons, rectangles, circles and masks are painted; shapes of one label and group are one object; lines and points
have no area and are left out. The label __ignore__ is not learnt, _background_ is what no shape claims.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from panfpn.data.images import IMAGE_SUFFIXES, decode_mask
from panfpn.data.layouts.listing import SPLITS, check_size, first_existing, inside, names_of_split
from panfpn.data.layouts.painting import (
    PaintedSegments,
    Patch,
    Points,
    Shape,
    background_of,
    checked_polygon,
    table_of,
)  # fmt: skip
from panfpn.data.layouts.request import SplitRequest
from panfpn.data.segments import PanopticDataset
from panfpn.files import read_json
from panfpn.labels import IGNORE
from panfpn.listing import LeftOut, files_in

_IGNORED, _REST = "__ignore__", "_background_"
_WITHOUT_AREA = ("line", "linestrip", "point", "points")
_CORNERS = 96  # of the polygon that stands for a circle


def open_split(request: SplitRequest) -> PanopticDataset:
    """A split; classes are those of labels.txt, or all labels in the order of the alphabet.

    ValueError for a folder without JSONs, a JSON of another kind, an image that is not there or lies outside.
    """
    folder = _folder(request)
    entries: list[tuple[str, Path, Path]] = []
    for file in (path for path in files_in(folder, request.left_out) if path.suffix.lower() == ".json"):
        data = read_json(file)
        image = _image(data, file, request.folder)
        if image is None:
            sentence = f"{file}: no image {data.get('imagePath')!r} beside it"
            if request.unpaired is None:
                raise ValueError(sentence)
            request.unpaired.append(sentence)
            continue
        for shape in _shapes(data, file):
            if _kind(shape) in _WITHOUT_AREA:
                request.left_out.add("shapes without an area", file)
        entries.append((file.relative_to(folder).with_suffix("").as_posix(), image, file))
    if not entries:
        raise ValueError(f"{folder}: holds no JSONs of LabelMe, so the split is empty")
    used = {image.resolve() for _, image, _ in entries}
    for path in files_in(folder, request.left_out):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.resolve() not in used:
            request.left_out.add("images without a JSON", path)
    table = request.own_table() or table_of(_classes(request.folder), request.folder.name, stuff=request.stuff)
    train_id = {**{name: k for k, name in enumerate(table.names)}, _IGNORED: IGNORE, _REST: background_of(table)}
    entries.sort()
    source = LabelMeShapes(tuple(file for *_, file in entries), train_id)
    images = tuple((name, image) for name, image, _ in entries)
    segments = PaintedSegments(table, source, background_of(table))
    return PanopticDataset(request.fitting(table), images, segments, request.panoptic)


def splits(root: Path) -> list[str]:
    """The splits that have a folder, or `train`."""
    first = next((path for path in files_in(root, LeftOut()) if path.suffix.lower() == ".json"), None)
    if first is None or not is_labelme(first):
        return []
    found = [s for s in SPLITS if first_existing(root / name for name in names_of_split(s))]
    return found or ["train"]


def is_labelme(file: Path) -> bool:
    """Whether a JSON is one of LabelMe's."""
    try:
        data = read_json(file)
    except ValueError:
        return False
    return isinstance(data.get("shapes"), list) and "imagePath" in data


@dataclass(frozen=True, eq=False)
class LabelMeShapes:
    """A `ShapeSource` of JSONs."""

    files: tuple[Path, ...]
    train_id: Mapping[str, int]

    def file(self, index: int) -> Path:
        """The JSON of an image."""
        return self.files[index]

    def shapes(self, index: int) -> tuple[tuple[int, int], list[Shape]]:
        """Size and shapes of one image; ValueError names the shape that is none, or whose label is no class."""
        file = self.files[index]
        data = read_json(file)
        height, width = data.get("imageHeight"), data.get("imageWidth")
        check_size(height, width, f"{file}: the image (imageHeight, imageWidth)")
        assert isinstance(height, int) and isinstance(width, int)
        parts: dict[Any, tuple[int, list[Points], list[Patch]]] = {}
        for number, shape in enumerate(_shapes(data, file)):
            label, where = str(shape["label"]), f"{file}: shape {number} ({shape['label']})"
            if _kind(shape) in _WITHOUT_AREA:
                continue
            if label not in self.train_id:
                raise ValueError(
                    f"{where} has a label that is no class; there are {', '.join(list(self.train_id)[:12])}"
                )
            group = shape.get("group_id")
            if group is not None and not isinstance(group, int | str):
                raise ValueError(f"{where} has the group_id {group!r}, which is no number")
            key = (label, group) if group is not None else number
            _, polygons, patches = parts.setdefault(key, (self.train_id[label], [], []))
            if _kind(shape) == "mask":
                patches.append(_patch(shape, (height, width), where))
            else:
                polygons.append(_polygon(shape, where))
        shapes = [Shape(label=k, polygons=polygons, patches=patches) for k, polygons, patches in parts.values()]
        return (height, width), shapes


def _folder(request: SplitRequest) -> Path:
    root = request.folder
    folder = first_existing(root / name for name in names_of_split(request.split))
    if folder is None and request.split == "train" and not (root / "val").is_dir():
        return root
    if folder is None:
        raise ValueError(f"{root / request.split}: no such folder, so the split is empty")
    return folder


def _shapes(data: Mapping[str, Any], file: Path) -> Iterator[Mapping[str, Any]]:
    shapes = data.get("shapes")
    if not isinstance(shapes, list):
        raise ValueError(f"{file}: has no list `shapes`, so it is not LabelMe's")
    for number, shape in enumerate(shapes):
        if not isinstance(shape, Mapping) or "label" not in shape or "points" not in shape:
            raise ValueError(f"{file}: shape {number} has no label or no points")
        yield shape


def _image(data: Mapping[str, Any], file: Path, root: Path) -> Path | None:
    """The image of a JSON: where it says, or beside it by its name; ValueError for one outside of the root."""
    named = str(data.get("imagePath") or "").replace("\\", "/")
    path = file.parent / named
    if named and path.is_file():
        if not inside(named) and not path.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{file}: imagePath {named} leads outside of {root}")
        return path
    return first_existing(file.with_suffix(suffix) for suffix in sorted(IMAGE_SUFFIXES))


def _classes(root: Path) -> list[str]:
    """Of all splits: those of labels.txt in its order, else all labels in the alphabet's."""
    file, special = root / "labels.txt", (_IGNORED, _REST)
    jsons = (path for path in files_in(root, LeftOut()) if path.suffix.lower() == ".json")
    labels = {str(shape["label"]) for path in jsons if is_labelme(path) for shape in _shapes(read_json(path), path)}
    if not file.is_file():
        return sorted(labels - {*special})
    listed = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    missing = sorted(labels - {*listed, *special})
    if missing:
        raise ValueError(f"{file}: does not list the label {missing[0]!r}, which shapes have")
    return [name for name in listed if name not in special]


def _kind(shape: Mapping[str, Any]) -> str:
    return str(shape.get("shape_type") or "polygon")


def _polygon(shape: Mapping[str, Any], where: str) -> Points:
    kind, points = _kind(shape), _points(shape["points"], where)
    if kind == "polygon":
        return checked_polygon(points.ravel().tolist(), where)
    if kind not in ("rectangle", "circle"):
        raise ValueError(f"{where} is a {kind}; polygon, rectangle, circle and mask are painted")
    if len(points) != 2:
        raise ValueError(f"{where} is a {kind} of {len(points)} points; it has two")
    (x, y), (u, v) = points
    if kind == "rectangle":
        return np.array([(x, y), (u, y), (u, v), (x, v)])
    radius, angle = float(np.hypot(u - x, v - y)), 2 * np.pi * np.arange(_CORNERS) / _CORNERS
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1)


def _points(points: Sequence[Any], where: str) -> Points:
    try:
        array = np.array(points, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all() or (np.abs(array) > 1e6).any():
        raise ValueError(f"{where} has points that are no list of [x, y]")
    return array


def _patch(shape: Mapping[str, Any], size: tuple[int, int], where: str) -> Patch:
    """A mask of the box between two points."""
    points = _points(shape["points"], where)
    try:
        bits = decode_mask(base64.b64decode(str(shape.get("mask")), validate=True), where)
    except binascii.Error as error:
        raise ValueError(f"{where} has a mask that is no PNG in base64") from error
    if len(points) != 2 or bits.ndim != 2:
        raise ValueError(f"{where} has a mask without a box of two points, or in colours")
    left, top = (int(v) for v in np.floor(points.min(0)))
    fits = top >= 0 and left >= 0 and top + bits.shape[0] <= size[0] and left + bits.shape[1] <= size[1]
    if not fits:
        raise ValueError(f"{where} has a mask of {bits.shape[1]}×{bits.shape[0]} pixels at {left}, {top}, which leaves "
                         f"the image of {size[1]}×{size[0]}")  # fmt: skip
    return Patch(top, left, bits.astype(np.bool_))
