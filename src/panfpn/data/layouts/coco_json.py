"""Segments as COCO writes them. In: panoptic_SPLIT.json, a folder of RGB PNGs and one of images. Out: a data set.

The format: cocodataset.org/#format-data; ids are R + 256 G + 65536 B. Cityscapes has it too, where panopticapi's files
were made of its maps.
"""

import os
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.images import decode_ids
from panfpn.data.layouts.coco_names import as_coco, same_name
from panfpn.data.layouts.coco_outlines import read_outlines
from panfpn.data.segments import Ids, PanopticDataset, first_pixel, ids_in, indices_of
from panfpn.files import read_bytes, read_json
from panfpn.labels import LabelTable
from panfpn.types import Segments

_PARTS = "images, annotations with segments_info, and categories"


def _file_name(entry: dict[str, Any]) -> str:
    return str(entry["file_name"])


@dataclass(frozen=True, kw_only=True)
class CocoFiles:
    """Where a split stands."""

    json: Path
    pngs: Path
    images: Path
    image_path: Callable[[dict[str, Any]], str] = _file_name
    """Path of an image below `images`, of its entry in the JSON."""
    ending: str = ""
    """Of the images' names before the suffix; no part of a sample's name."""
    own_classes: bool = False
    """The label table is the user's own, and calls categories what it likes."""

    def name(self, image: str) -> str:
        """Name of a sample, of its image's path below `images`."""
        return PurePosixPath(image).with_suffix("").as_posix().removesuffix(self.ending)

    def existing(self) -> "CocoFiles":
        """The same; ValueError for the first file or folder that is not there."""
        for path in (self.json, self.pngs, self.images):
            if not path.exists():
                raise ValueError(f"{path}: no such file or folder, so the split is empty")
        return self


def files_below(folder: Path) -> set[str]:
    """Paths of all files below a folder, from there."""
    paths: set[str] = set()
    for parent, _, names in os.walk(folder, followlinks=True):
        below = Path(parent).relative_to(folder)
        paths.update((below / name).as_posix() for name in names) if below.parts else paths.update(names)
    return paths


@dataclass(frozen=True, eq=False)
class CocoSegments:
    """What a panoptic JSON says, flattened: its million small objects would be copied into every worker."""

    json: Path
    files: tuple[Path, ...]  # PNG of each image
    first: npt.NDArray[np.int64]  # [N + 1] image n has the segments first[n]..first[n + 1]
    ids: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int16]
    crowd: npt.NDArray[np.bool_]

    def file(self, index: int) -> Path:
        """The PNG of an image."""
        return self.files[index]

    def segments(self, index: int) -> Segments:
        """Of one image; ValueError for a PNG that is not RGB, or has an id that the JSON does not list."""
        path, records = self.files[index], slice(self.first[index], self.first[index + 1])
        ids = decode_ids(read_bytes(path), path, rgb=True)
        index_map = indices_of(ids, self.ids[records], path)
        for problem in unlisted(path, self.json, ids, index_map):
            raise ValueError(problem)
        return Segments(
            index=index_map, classes=self.classes[records], crowd=self.crowd[records], ids=self.ids[records]
        )


def unlisted(png: Path, file: Path, ids: Ids, index_map: npt.NDArray[np.int16]) -> Iterator[str]:
    """The sentence for ids of a PNG that no record describes, if there are any."""
    unknown = (index_map < 0) & (ids != 0)
    if unknown.any():
        lost = ids_in(ids[unknown])
        shown = ", ".join(map(str, lost[:5])) + (", …" if len(lost) > 5 else "")
        yield (f"{png}: segment id{'s' if len(lost) > 1 else ''} {shown} ({int(unknown.sum())} pixels, the first in "
               f"{first_pixel(unknown)}) not in {file}; add the record, or paint the pixels 0 (void)")  # fmt: skip


def open_coco(files: CocoFiles, table: LabelTable, *, panoptic: bool, instances: Path | None = None) -> PanopticDataset:
    """The data set of a split, with things from a JSON of `instances`, if one is named.

    ValueError for the first of what `listing_problems` finds, and as `read_outlines` gives it.
    """
    images, numbers, source = _read(files, table)
    pairs = tuple((files.name(image), files.images / image) for image in images)
    outlines = None if instances is None else read_outlines(instances, images, table, numbers)
    notes = () if outlines is None else (outlines.summary(),)
    return PanopticDataset(table, pairs, source, panoptic, outlines, notes=notes)


def _read(files: CocoFiles, table: LabelTable) -> tuple[list[str], list[Any], CocoSegments]:
    """Images below their folder and their ids, in the order of names, and what the JSON says of them."""
    with as_coco(files.json, _PARTS):
        data = read_json(files.json)
        for problem in listing_problems(data, files, table):
            raise ValueError(problem)
        image_of = {entry["id"]: files.image_path(entry) for entry in data["images"]}
        annotations = sorted(data["annotations"], key=lambda annotation: image_of[annotation["image_id"]])
        class_of = classes_by_category(data["categories"], table)
        records = [record for annotation in annotations for record in annotation["segments_info"]]
        source = CocoSegments(
            json=files.json,
            files=tuple(files.pngs / annotation["file_name"] for annotation in annotations),
            first=np.cumsum([0, *(len(annotation["segments_info"]) for annotation in annotations)]),
            ids=np.array([record["id"] for record in records], np.int64),
            classes=np.array([class_of[record["category_id"]] for record in records], np.int16),
            crowd=np.array([bool(record.get("iscrowd", 0)) for record in records], np.bool_),
        )
        numbers = [annotation["image_id"] for annotation in annotations]
        return [image_of[number] for number in numbers], numbers, source


def classes_by_category(categories: list[dict[str, Any]], table: LabelTable) -> dict[int, int]:
    """Train ids by category id: the table's values, or train ids themselves, as some Cityscapes files have them."""
    by_name = {category["name"]: category["id"] for category in categories}
    if all(by_name.get(name) == k for k, name in enumerate(table.names)):
        return {k: k for k in range(table.num_classes)}
    return {value: k for k, c in enumerate(table.classes) for value in c.values}


def listing_problems(data: dict[str, Any], files: CocoFiles, table: LabelTable) -> Iterator[str]:
    """What is wrong with a JSON, and with what it names, whatever the pixels are."""
    with as_coco(files.json, _PARTS):
        class_of = classes_by_category(data["categories"], table)
        yield from _category_problems(data["categories"], class_of, table, files)
        known = {category["id"] for category in data["categories"]} & class_of.keys()
        image_of = {entry["id"]: files.image_path(entry) for entry in data["images"]}
        for what, several in (("id", [entry["id"] for entry in data["images"]]), ("file", list(image_of.values()))):
            if len(set(several)) < len(several):
                yield f"{files.json}: lists two images with {what} {twice(several)!r}; each image stands there once"
        pngs, annotated = files_below(files.pngs), set()
        for image in sorted(set(image_of.values()) - files_below(files.images)):
            yield f"{files.images}/{image}: no such image, but {files.json} names it"
        for annotation in data["annotations"]:
            number, png = annotation["image_id"], files.pngs / annotation["file_name"]
            if annotation["file_name"] not in pngs:
                yield f"{png}: no such PNG, but {files.json} names it"
            if number not in image_of:
                yield f"{png}: is of image {number!r}, which `images` of {files.json} does not list"
            elif number in annotated:
                yield f"{png}: a second annotation of image {number!r} in {files.json}; each image has one"
            annotated.add(number)
            yield from record_problems(annotation["segments_info"], known, png, files.json)
        for image in [image for number, image in image_of.items() if number not in annotated]:
            yield f"{files.images / image}: has no annotation in {files.json}"


def _category_problems(
    categories: list[dict[str, Any]], class_of: dict[int, int], table: LabelTable, files: CocoFiles
) -> Iterator[str]:
    for category in categories:
        what = f"{files.json}: category {category['id']} ({category['name']})"
        if category["id"] not in class_of:
            yield f"{what} is not in label table {table.name!r}"
            continue
        if type(category["isthing"]) not in (int, bool) or category["isthing"] not in (0, 1):
            yield f"{what} has isthing {category['isthing']!r}; it is 0 or 1"
            continue
        if files.own_classes:
            continue
        ours, thing = table.classes[class_of[category["id"]]], bool(category["isthing"])
        if not same_name(category["name"], ours.name):
            yield (f"{what} is {ours.name!r} in label table {table.name!r}; a set of other categories needs "
                   "a labels.yaml in its root, with their ids as values")  # fmt: skip
            continue
        if ours.thing != thing:
            words = ("a thing", "stuff") if thing else ("stuff", "a thing")
            yield f"{what} is declared as {words[0]}, but label table {table.name!r} has {ours.name!r} as {words[1]}"


def twice(values: list[Any]) -> Any:
    """The first that stands there again."""
    return next(value for i, value in enumerate(values) if value in values[:i])


def record_problems(records: list[dict[str, Any]], known: Container[int], png: Path, file: Path) -> Iterator[str]:
    """What is wrong with the records of a PNG: ids that are none or not unique, categories that are not `known`."""
    numbers = set()
    for record in records:
        number = record["id"]
        if type(number) is not int or not 0 <= number < 1 << 24:
            yield f"{png}: {file} lists the segment id {number!r}; ids are whole numbers from 1 to 16777215"
        elif number == 0:
            yield f"{png}: {file} lists a segment with id 0, which means void; give it another id"
        elif number in numbers:
            yield f"{png}: {file} lists two segments with id {number}, which so overlap; an id is unique in its image"
        numbers.add(number)
        if record["category_id"] not in known:
            yield f"{png}: segment {number} has the unknown category {record['category_id']!r} in {file}"
