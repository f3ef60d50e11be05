"""Segments as COCO writes them. In: panoptic_SPLIT.json, a folder of RGB PNGs and one of images. Out: a data set.

The format: cocodataset.org/#format-data; ids are R + 256 G + 65536 B. Cityscapes has it too, where panopticapi's files
were made of its maps.
"""

import contextlib
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.images import decode_ids
from panfpn.data.layouts.coco_outlines import read_outlines
from panfpn.data.segments import Ids, PanopticDataset, first_pixel, places_of, present_ids
from panfpn.files import read_bytes, read_json
from panfpn.labels import LabelTable
from panfpn.types import Segments

_YEARS = {"train": "train2017", "val": "val2017"}


@dataclass(frozen=True, kw_only=True)
class CocoFiles:
    """Where a split stands."""

    json: Path
    pngs: Path
    images: Path | None = None  # None: nobody looks for them
    instances: Path | None = None  # a JSON of outlines, which may overlap
    cities: bool = False  # images stand in folders of cities, under their ids; COCO says their file names

    def image(self, entry: dict[str, Any]) -> str:
        """Path of an image below `images`, of its entry in the JSON."""
        if not self.cities:
            return str(entry["file_name"])
        number = str(entry["id"])  # what the JSON calls file_name is the name of no file
        return f"{number.partition('_')[0]}/{number}_leftImg8bit.png"

    def name(self, image: str) -> str:
        """Name of a sample."""
        return PurePosixPath(image).with_suffix("").as_posix().removesuffix("_leftImg8bit")


def coco_files(root: Path, split: str) -> CocoFiles:
    """Of COCO; the PNGs stand in annotations/, or beside it, as detectron2 has it. Train and val mean those of 2017.

    ValueError for the first that is not there.
    """
    split = _YEARS.get(split, split)
    inside, beside = root / "annotations" / f"panoptic_{split}", root / f"panoptic_{split}"
    pngs = beside if beside.is_dir() and not inside.is_dir() else inside
    instances = root / "annotations" / f"instances_{split}.json"
    return _existing(CocoFiles(json=inside.with_suffix(".json"), pngs=pngs, images=root / split, instances=instances))


def cityscapes_files(root: Path, split: str) -> CocoFiles:
    """Of Cityscapes, as its createPanopticImgs.py writes it; ValueError for the first that is not there."""
    pngs = root / "gtFine" / f"cityscapes_panoptic_{split}"
    images = root / "leftImg8bit" / split
    return _existing(CocoFiles(json=pngs.with_suffix(".json"), pngs=pngs, images=images, cities=True))


def _existing(files: CocoFiles) -> CocoFiles:
    for path in (files.json, files.pngs, files.images):
        if path is not None and not path.exists():
            raise ValueError(f"{path}: no such file or folder, so the split is empty")
    return files


def files_below(folder: Path) -> set[str]:
    """Paths of all files below a folder, from there."""
    found: set[str] = set()
    for place, _, names in os.walk(folder):
        below = Path(place).relative_to(folder)
        found.update((below / name).as_posix() for name in names) if below.parts else found.update(names)
    return found


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
        path, own = self.files[index], slice(self.first[index], self.first[index + 1])
        ids = decode_ids(read_bytes(path), path, rgb=True)
        places = places_of(ids, self.ids[own], path)
        for problem in unlisted(path, self.json, ids, places):
            raise ValueError(problem)
        return Segments(index=places, classes=self.classes[own], crowd=self.crowd[own], ids=self.ids[own])


def unlisted(png: Path, file: Path, ids: Ids, places: npt.NDArray[np.int16]) -> Iterator[str]:
    """The sentence for ids of a PNG that no record describes, if there are any."""
    unknown = (places < 0) & (ids != 0)
    if unknown.any():
        lost = present_ids(ids[unknown])
        shown = ", ".join(map(str, lost[:5])) + (", …" if len(lost) > 5 else "")
        yield (f"{png}: segment id{'s' if len(lost) > 1 else ''} {shown} ({int(unknown.sum())} pixels, the first in "
               f"{first_pixel(unknown)}) not in {file}; add the record, or paint the pixels 0 (void)")  # fmt: skip


def open_coco(files: CocoFiles, table: LabelTable, *, panoptic: bool, instances: Path | None = None) -> PanopticDataset:
    """The data set of a split, with things from a JSON of `instances`, if one is named.

    ValueError for the first of what `listing_problems` finds, and as `read_outlines` gives it.
    """
    assert files.images is not None
    images, source = _read(files, table)
    pairs = tuple((files.name(image), files.images / image) for image in images)
    outlines = None if instances is None else read_outlines(instances, images, table)
    return PanopticDataset(table, pairs, source, panoptic, outlines)


def read_coco(json: Path, pngs: Path, table: LabelTable) -> tuple[list[str], CocoSegments]:
    """File names of the images that a JSON annotates, and their segments, for images that may stand anywhere.

    ValueError for the first of what `listing_problems` finds.
    """
    return _read(CocoFiles(json=json, pngs=pngs), table)


def _read(files: CocoFiles, table: LabelTable) -> tuple[list[str], CocoSegments]:
    with _as_coco(files.json):
        data = read_json(files.json)
        for problem in listing_problems(data, files, table):
            raise ValueError(problem)
        image_of = {entry["id"]: files.image(entry) for entry in data["images"]}
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
        return [image_of[annotation["image_id"]] for annotation in annotations], source


@contextlib.contextmanager
def _as_coco(file: Path) -> Iterator[None]:
    """What is missing in a JSON, or of another type, becomes a ValueError that names it."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: not in COCO's panoptic format ({type(error).__name__}: {error}); that has images, "
                         "annotations with segments_info, and categories") from error  # fmt: skip


def classes_by_category(categories: list[dict[str, Any]], table: LabelTable) -> dict[int, int]:
    """Train ids by category id: the table's values, or train ids themselves, as some Cityscapes files have them."""
    by_name = {category["name"]: category["id"] for category in categories}
    if all(by_name.get(name) == k for k, name in enumerate(table.names)):
        return {k: k for k in range(table.num_classes)}
    return {value: k for k, c in enumerate(table.classes) for value in c.values}


def listing_problems(data: dict[str, Any], files: CocoFiles, table: LabelTable) -> Iterator[str]:
    """What is wrong with a JSON, and with what it names, whatever the pixels are."""
    with _as_coco(files.json):
        class_of = classes_by_category(data["categories"], table)
        yield from _category_problems(data["categories"], class_of, table, files.json)
        known = {category["id"] for category in data["categories"]} & class_of.keys()
        image_of = {entry["id"]: files.image(entry) for entry in data["images"]}
        pngs, annotated = files_below(files.pngs), set()
        for image in sorted(set(image_of.values()) - files_below(files.images)) if files.images else ():
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
            yield f"{files.images / image if files.images else image}: has no annotation in {files.json}"


def _category_problems(
    categories: list[dict[str, Any]], class_of: dict[int, int], table: LabelTable, file: Path
) -> Iterator[str]:
    for category in categories:
        what = f"{file}: category {category['id']} ({category['name']})"
        if category["id"] not in class_of:
            yield f"{what} is not in label table {table.name!r}"
            continue
        own, thing = table.classes[class_of[category["id"]]], bool(category["isthing"])
        if own.thing != thing:
            kinds = ("a thing", "stuff") if thing else ("stuff", "a thing")
            yield f"{what} is declared as {kinds[0]}, but label table {table.name!r} has {own.name!r} as {kinds[1]}"


def record_problems(records: list[dict[str, Any]], known: Container[int], png: Path, file: Path) -> Iterator[str]:
    """What is wrong with the records of a PNG: ids that are none or not unique, categories that are not `known`."""
    seen = set()
    for record in records:
        number = record["id"]
        if type(number) is not int or not 0 <= number < 1 << 24:
            yield f"{png}: {file} lists the segment id {number!r}; ids are whole numbers from 1 to 16777215"
        elif number == 0:
            yield f"{png}: {file} lists a segment with id 0, which means void; give it another id"
        elif number in seen:
            yield f"{png}: {file} lists two segments with id {number}, which so overlap; an id is unique in its image"
        seen.add(number)
        if record["category_id"] not in known:
            yield f"{png}: segment {number} has the unknown category {record['category_id']!r} in {file}"
