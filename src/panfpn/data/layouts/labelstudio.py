"""Label Studio's JSON export: tasks with brush strokes, polygons and rectangles, and the images below the same folder.

A task's image is found by the end of its path, as uploads get a prefix. Of several annotations of a task the first that
was not cancelled counts.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from panfpn.data.header import read_header
from panfpn.data.images import IMAGE_SUFFIXES
from panfpn.data.layouts.listing import SPLITS, begins_with, first_existing, names_of_split
from panfpn.data.layouts.painting import (
    PaintedSegments,
    Points,
    Shape,
    background_of,
    checked_polygon,
    table_of,
    trimmed,
)  # fmt: skip
from panfpn.data.layouts.request import SplitRequest
from panfpn.data.segments import PanopticDataset
from panfpn.files import read_bytes, read_json_list
from panfpn.listing import LeftOut, files_in

_HEAD = 1 << 14
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an upload
_PAINTED = ("brushlabels", "polygonlabels", "rectanglelabels")


def open_split(request: SplitRequest) -> PanopticDataset:
    """A split: SPLIT.json, or the only JSON of the folder, which is the split `train`.

    ValueError for a file that is no such export, and for tasks whose image is not there.
    """
    file = _file(request.folder, request.split)
    if file is None:
        raise ValueError(
            f"{request.folder}: no JSON export of split {request.split!r} (looked for {request.split}.json)"
        )
    pictures: dict[str, list[Path]] = defaultdict(list)
    for path in files_in(request.folder, request.left_out):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            pictures[path.name].append(path)
    entries: list[tuple[str, Path, list[Mapping[str, Any]]]] = []
    for number, task in enumerate(_tasks(file)):
        where = f"{file}: task {task.get('id', number)}"
        if not _valid(task, where):
            request.left_out.add("tasks without an annotation", file)
            continue
        image = _image(task, pictures, request.folder, where)
        if isinstance(image, str):
            if request.unpaired is None:
                raise ValueError(image)
            request.unpaired.append(image)
            continue
        results = list(_results(task, request.left_out, file))
        entries.append((image.relative_to(request.folder).with_suffix("").as_posix(), image, results))
    if not entries:
        raise ValueError(f"{file}: has no task whose image is there, so the split is empty")
    entries.sort(key=lambda entry: entry[0])
    twice = next((a[0] for a, b in pairwise(entries) if a[0] == b[0]), None)
    if twice:
        raise ValueError(f"{file}: two tasks have the image {twice}; keep one of them")
    table = request.own_table() or table_of(_classes(request.folder), request.folder.name, stuff=request.stuff)
    train_id = {name: k for k, name in enumerate(table.names)}
    source = StudioShapes(file, tuple(results for *_, results in entries), train_id, tuple(e[1] for e in entries))
    images = tuple((name, image) for name, image, _ in entries)
    segments = PaintedSegments(table, source, background_of(table))
    return PanopticDataset(request.fitting(table), images, segments, request.panoptic)


def described_by(root: Path) -> dict[str, Path]:
    """The export of each split that lies there."""
    return {split: file for split in SPLITS if (file := _file(root, split)) is not None}


@dataclass(frozen=True, eq=False)
class StudioShapes:
    """A `ShapeSource` of tasks."""

    json: Path
    results: tuple[list[Mapping[str, Any]], ...]
    train_id: Mapping[str, int]
    images: tuple[Path, ...]

    def file(self, index: int) -> Path:
        """The export."""
        return self.json

    def shapes(self, index: int) -> tuple[tuple[int, int], list[Shape]]:
        """Size and shapes of one image; ValueError names the image whose shapes are none."""
        where = f"{self.json}: {self.images[index].name}"
        size = _size(self.results[index], self.images[index], where)
        shapes = []
        for result in self.results[index]:
            label, kind = _label(result, where), result["type"]
            if label not in self.train_id:
                raise ValueError(f"{where} has the label {label!r}, which is no class")
            if kind == "brushlabels":
                bits = unpacked_brush(result["value"].get("rle"), size, where)
                shapes.append(Shape(label=self.train_id[label], patches=[trimmed(bits)]))
            else:
                shapes.append(Shape(label=self.train_id[label], polygons=[_polygon(result, size, where)]))
        return size, shapes


def unpacked_brush(rle: Any, size: tuple[int, int], where: str) -> npt.NDArray[np.bool_]:
    """Pixels [H, W] of a brush: the alpha of an RGBA image that is packed as run lengths of bits (thi.ng/rle-pack).

    32 bits say how many values there are, 5 their bits, 4 × 4 the bits of four kinds of lengths; then come runs: one
    bit (repeated or not), two (which kind of length), the length less 1, and the value or the values.
    """
    try:
        stream = np.unpackbits(np.array(rle, np.int64).astype(np.uint8))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where} has a brush whose rle is no list of bytes") from error
    position = 0

    def read(bits: int) -> int:
        nonlocal position
        if position + bits > len(stream):
            raise ValueError(f"{where} has a brush whose rle ends too early")
        value = int("".join(map(str, stream[position : position + bits].tolist())), 2)
        position += bits
        return value

    count = read(32)
    if count != 4 * size[0] * size[1]:
        raise ValueError(f"{where} has a brush of {count // 4} pixels, in an image of {size[1]}×{size[0]}")
    width, lengths = read(5) + 1, [read(4) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint8)
    done = 0
    while done < count:
        repeated, length = read(1), read(lengths[read(2)]) + 1
        if done + length > count:
            raise ValueError(f"{where} has a brush whose rle is damaged")
        if repeated:
            values[done : done + length] = min(read(width), 255)
        else:
            taken = stream[position : position + length * width]
            if len(taken) < length * width:
                raise ValueError(f"{where} has a brush whose rle ends too early")
            values[done : done + length] = (taken.reshape(length, width) != 0).any(1)
            position += length * width
        done += length
    return values.reshape(*size, 4)[:, :, 3] > 0


def _file(root: Path, split: str) -> Path | None:
    named = first_existing(root / f"{name}.json" for name in names_of_split(split))
    others = sorted(root.glob("*.json"))
    alone = others[0] if len(others) == 1 and split == "train" else None
    return next((file for file in (named, alone) if file is not None and _is_export(file)), None)


def _is_export(file: Path) -> bool:
    """Whether a JSON looks like an export, by its beginning alone."""
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    return begins_with(file, b"[") and (b'"annotations"' in head or b'"data"' in head)


def _tasks(file: Path) -> Iterator[Mapping[str, Any]]:
    for number, task in enumerate(read_json_list(file)):
        if not isinstance(task, Mapping) or not isinstance(task.get("data"), Mapping):
            raise ValueError(f"{file}: task {number} has no data; export as JSON, not as JSON-MIN")
        yield task


def _image(task: Mapping[str, Any], pictures: Mapping[str, list[Path]], root: Path, where: str) -> Path | str:
    """The image of a task, or the sentence that says which is not there."""
    texts = (value for value in task["data"].values() if isinstance(value, str))
    paths = [PurePosixPath(unquote(text.rpartition("?d=")[2])) for text in texts]  # ?d=: of files served locally
    ending = next((path.name for path in paths if path.suffix.lower() in IMAGE_SUFFIXES), None)
    if ending is None:
        return f"{where} names no image in its data"
    for name in dict.fromkeys((ending, _UPLOAD.sub("", ending))):
        found = pictures.get(name, [])
        if len(found) == 1:
            return found[0]
        if found:
            return f"{where} names {name}, which lies in {len(found)} folders of {root}"
    return f"{where} names {ending}, which lies nowhere below {root}"


def _classes(root: Path) -> list[str]:
    """All labels of all splits, in the order of the alphabet."""
    tasks = ((file, task) for file in described_by(root).values() for task in _tasks(file))
    return sorted({_label(result, str(file)) for file, task in tasks for result in _results(task, LeftOut(), file)})


def _valid(task: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    """The annotations of a task that nobody cancelled."""
    annotations = task.get("annotations") or []
    if not isinstance(annotations, list) or not all(isinstance(a, Mapping) for a in annotations):
        raise ValueError(f"{where} has annotations that are no list; export as JSON, not as JSON-MIN")
    return [a for a in annotations if not a.get("was_cancelled")]


def _results(task: Mapping[str, Any], left_out: LeftOut, file: Path) -> Iterator[Mapping[str, Any]]:
    """What is painted of the annotation that counts."""
    valid = _valid(task, str(file))
    for _ in valid[1:]:
        left_out.add("further annotations of a task", file)
    results = (valid[0].get("result") or []) if valid else []
    if not isinstance(results, list) or not all(isinstance(result, Mapping) for result in results):
        raise ValueError(f"{file}: task {task.get('id')} has a result that is no list of shapes")
    for result in results:
        if result.get("type") in _PAINTED:
            yield result
        else:
            left_out.add(f"results of type {result.get('type')}", file)


def _label(result: Mapping[str, Any], where: str) -> str:
    value = result.get("value")
    labels = value.get(result["type"]) if isinstance(value, Mapping) else None
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise ValueError(f"{where} has a {result['type'].removesuffix('labels')} with labels {labels!r}; one is wanted")
    return labels[0]


def _size(results: list[Mapping[str, Any]], image: Path, where: str) -> tuple[int, int]:
    height, width = read_header(read_bytes(image), image).size
    for result in results:
        given = (result.get("original_height", height), result.get("original_width", width))
        if given != (height, width):
            raise ValueError(f"{where} is {width}×{height} pixels, but was annotated at {given[1]}×{given[0]}")
    return height, width


def _polygon(result: Mapping[str, Any], size: tuple[int, int], where: str) -> Points:
    """Points in pixels, of shares in percent."""
    value, scale, turned = result["value"], np.array([size[1], size[0]]) / 100, False
    try:
        if result["type"] == "polygonlabels":
            numbers = [float(v) for point in value["points"] for v in point]
        else:
            x, y, w, h = (float(value[key]) for key in ("x", "y", "width", "height"))
            turned = bool(value.get("rotation"))
            numbers = [x, y, x + w, y, x + w, y + h, x, y + h]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where} has a {result['type'].removesuffix('labels')} without {error}") from error
    if turned:
        raise ValueError(f"{where} has a rectangle that is turned; draw a polygon instead")
    return checked_polygon(numbers, where).reshape(-1, 2) * scale
