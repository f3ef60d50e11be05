"""Ultralytics' data.yaml: images/… with labels/… of polygons, or with masks in `masks_dir`.

A line of a label file is a class and a polygon, x and y as shares of the picture. In masks, values are classes, by
`label_mapping` where there is one; what it maps to 255 is ignored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from panfpn.data.dataset import FileDataset
from panfpn.data.header import read_header
from panfpn.data.images import IMAGE_SUFFIXES
from panfpn.data.layouts.listing import SPLITS, first_existing, listed, names_of_split, paired
from panfpn.data.layouts.painting import PaintedSegments, Shape, background_of, checked_polygon, table_of, train_ids
from panfpn.data.layouts.request import SplitRequest
from panfpn.data.segments import PanopticDataset
from panfpn.files import read_bytes
from panfpn.labels import LabelTable
from panfpn.yaml_text import read_yaml

FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_IGNORED = 255


def open_split(request: SplitRequest) -> FileDataset | PanopticDataset:
    """A split of polygons, or of masks where the file has `masks_dir`.

    ValueError for a data.yaml that is not there or says too little, a path that leads outside, and images that only one
    side has; images without a label file are background alone.
    """
    file = _file(request.folder)
    if file is None:
        raise ValueError(f"{request.folder}: no {FILES[0]}, which names the classes and the folders of images")
    described = read_yaml(file)
    if not isinstance(described, Mapping):
        raise ValueError(f"{file}: expected a mapping with names, train and val, found {type(described).__name__}")
    names = _names(described, file)
    images = _images(request, described, file)
    if described.get("masks_dir"):
        request.refuse_panoptic()
        table = request.own_table() or _mask_table(described, names, request.folder.name, file)
        return FileDataset(table, paired(request, *_masks(request, images, str(described["masks_dir"]), file)))
    classes, own = [name for _, name in sorted(names.items())], request.own_table()
    table = own or table_of(classes, request.folder.name, stuff=request.stuff)
    order = train_ids(own) if own else {number: table.names.index(name) for number, name in names.items()}
    items = tuple(sorted(images.items()))
    labels = tuple(_beside(path, "labels") for _, path in items)
    _count_labels(request, labels)
    source = YoloShapes(tuple(path for _, path in items), labels, order)
    painted = PaintedSegments(table, source, background_of(table, names if own else ()))
    return PanopticDataset(request.fitting(table), items, painted, request.panoptic)


def described_by(root: Path) -> dict[str, Path]:
    """The one file, for each split that it names, or that lies where splits usually lie."""
    file = _file(root)
    described = read_yaml(file) if file else None
    if file is None or not isinstance(described, Mapping):
        return {}
    named = [s for s in SPLITS if any(described.get(name) for name in names_of_split(s)) or _usual(root, s)]
    return dict.fromkeys(named, file)


@dataclass(frozen=True, eq=False)
class YoloShapes:
    """A `ShapeSource` of label files."""

    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    train_id: Mapping[int, int]  # of the numbers of classes

    def file(self, index: int) -> Path:
        """The label file of an image."""
        return self.labels[index]

    def shapes(self, index: int) -> tuple[tuple[int, int], list[Shape]]:
        """Size and shapes of one image; ValueError names the line that is no polygon."""
        path = self.labels[index]
        height, width = read_header(read_bytes(self.images[index]), self.images[index]).size
        if not path.is_file():
            return (height, width), []
        try:
            lines = read_bytes(path).decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: is not text in UTF-8 (byte {error.start})") from error
        shapes = []
        for number, line in enumerate(lines, 1):
            words = line.split()
            if words:
                shapes.append(self._shape(words, f"{path}: line {number}", (width, height)))
        return (height, width), shapes

    def _shape(self, words: list[str], where: str, size: tuple[int, int]) -> Shape:
        if not words[0].isdigit() or int(words[0]) not in self.train_id:
            known = ", ".join(map(str, list(self.train_id)[:12]))
            raise ValueError(f"{where} is of class {words[0]!r}; data.yaml names {known}")
        if len(words) == 5:
            raise ValueError(f"{where} is a box (four numbers); polygons are wanted: class x y x y x y …")
        polygon = checked_polygon(words[1:], where)
        if polygon.min() < -0.5 or polygon.max() > 1.5:
            raise ValueError(f"{where} has the coordinate {np.abs(polygon).max():g}; x and y are shares of the "
                             "picture, from 0 to 1")  # fmt: skip
        return Shape(label=self.train_id[int(words[0])], polygons=[polygon.clip(0, 1) * size])


def _file(root: Path) -> Path | None:
    return first_existing(root / name for name in FILES)


def _usual(base: Path, split: str) -> Path | None:
    """Where images of a split lie if nothing says it, below `base`: images/SPLIT, or SPLIT/images."""
    names = names_of_split(split)
    places = [*(Path("images") / name for name in names), *(Path(name) / "images" for name in names)]
    return next((place for place in places if (base / place).is_dir()), None)


def _names(described: Mapping[Any, Any], file: Path) -> dict[int, str]:
    names = described.get("names")
    listed_names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(listed_names, Mapping) or not listed_names:
        raise ValueError(f"{file}: names is {names!r}; list the names of the classes")
    if not all(type(k) is int and k >= 0 and isinstance(v, str | int) for k, v in listed_names.items()):
        raise ValueError(f"{file}: names must be a list of names, or number: name")
    found = {k: str(v) for k, v in listed_names.items()}
    if len(set(found.values())) < len(found):
        raise ValueError(f"{file}: names two classes alike")
    return found


def _mask_table(described: Mapping[Any, Any], names: Mapping[int, str], name: str, file: Path) -> LabelTable:
    mapping = described.get("label_mapping") or {k: k for k in names}
    fits = isinstance(mapping, Mapping) and all(type(k) is int and type(v) is int for k, v in mapping.items())
    if not fits:
        raise ValueError(f"{file}: label_mapping is {mapping!r}; it gives the class of each value: 7: 0")
    values = {k: [raw for raw, train in mapping.items() if train == k] for k in sorted(names)}
    unknown = sorted({train for train in mapping.values() if train not in names and train not in (_IGNORED, -1)})
    if unknown:
        raise ValueError(f"{file}: label_mapping maps to class {unknown[0]}, which names does not have")
    without = [names[k] for k, raw in values.items() if not raw]
    if without:
        raise ValueError(f"{file}: label_mapping has no value for class {without[0]!r}")
    ignored = sorted({raw for raw, train in mapping.items() if train not in names} | {_IGNORED})
    plain = {"name": name, "ignore": [v for v in ignored if mapping.get(v) not in names],
             "classes": [{"name": names[k], "value": raw} for k, raw in values.items()]}  # fmt: skip
    return LabelTable.from_dict(plain, file)


def _images(request: SplitRequest, described: Mapping[Any, Any], file: Path) -> dict[str, Path]:
    """Images of a split by name, from the folders and lists that the file names."""
    base = file.parent.resolve()
    inner = described.get("path")
    if inner is not None and (base / str(inner)).is_dir():
        base = (base / str(inner)).resolve()
        if not base.is_relative_to(file.parent.resolve()):
            raise ValueError(f"{file}: path {inner} leads outside of {file.parent}; put the file into the folder of "
                             "the data, with `path: .`")  # fmt: skip
    named = next((described[name] for name in names_of_split(request.split) if described.get(name)), None)
    usual = _usual(base, request.split)
    if named is None and usual is None:
        raise ValueError(f"{file}: names no images of split {request.split!r}, and there is no images/{request.split}")
    named = named or str(usual)
    images: dict[str, Path] = {}
    for entry in named if isinstance(named, list) else [named]:
        place = _place(base, str(entry), file)
        found = _from_list(place, base, file) if place.suffix == ".txt" else listed(request, place)
        for name, path in found.items():
            if name in images:
                raise ValueError(f"{images[name]} and {path}: two images of one name; rename one of them")
            images[name] = path
    return images


def _place(base: Path, entry: str, file: Path) -> Path:
    """Where a path of the file leads; Roboflow writes ../train/images for train/images."""
    plain = entry
    while plain.startswith("../"):
        plain = plain.removeprefix("../")
    entry = plain if (base / plain).exists() else entry
    place = (base / entry).resolve()
    if not place.is_relative_to(base):
        raise ValueError(f"{file}: {entry} leads outside of {base}")
    if not place.exists():
        raise ValueError(f"{file}: names {entry}, but there is no {place}")
    return place


def _from_list(file: Path, base: Path, source: Path) -> dict[str, Path]:
    images: dict[str, Path] = {}
    for line in filter(None, map(str.strip, file.read_text("utf-8").splitlines())):
        path = _place(base, line, source)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise ValueError(f"{file}: {line} is no image")
        name = path.relative_to(base).with_suffix("").as_posix()
        if name in images:
            raise ValueError(f"{file}: {line} and {images[name].name} are two images of one name; rename one of them")
        images[name] = path
    return images


def _count_labels(request: SplitRequest, labels: Sequence[Path]) -> None:
    """ValueError if no image has a label file; label files without an image are left out, and counted."""
    there = {path for path in labels if path.is_file()}
    if not there:
        raise ValueError(f"{labels[0]}: no such file, and none for any image of split {request.split!r}; label files "
                         "lie in labels/ where images lie in images/")  # fmt: skip
    for folder in sorted({path.parent for path in there}):
        for path in folder.glob("*.txt"):
            if path not in there and path.name != "classes.txt":
                request.left_out.add("label files without an image", path)


def _beside(image: Path, folder: str) -> Path:
    """The label file of an image: of the last folder called images another, and another suffix."""
    parts = list(image.parts)
    places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = folder
    return Path(*parts).with_suffix(".txt" if folder == "labels" else ".png")


def _masks(
    request: SplitRequest, images: dict[str, Path], masks_dir: str, file: Path
) -> tuple[dict[str, Path], dict[str, Path]]:
    masks = {name: _beside(path, masks_dir) for name, path in images.items()}
    inside = all(path.resolve().is_relative_to(request.folder.resolve()) for path in masks.values())
    if not inside or ".." in Path(masks_dir).parts:
        raise ValueError(f"{file}: masks_dir {masks_dir} leads outside of {request.folder}")
    return images, {name: path for name, path in masks.items() if path.is_file()}
