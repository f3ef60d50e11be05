"""Segments as COCO writes them. In: panoptic_SPLIT.json and a folder of RGB PNGs. Out: a source of Segments.

FACTS of the format: cocodataset.org/#format-data; panopticapi's IdGenerator has the ids: R + 256 G + 65536 B.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.panoptic import PanopticDataset, first_pixel, places_of, present_ids
from panfpn.files import decode_ids, read_bytes, read_json
from panfpn.labels import LabelTable
from panfpn.types import Segments

_YEARS = {"train": "train2017", "val": "val2017"}


@dataclass(frozen=True, eq=False)
class CocoSegments:
    """What a panoptic JSON says, flattened: its million small objects would be copied into every worker."""

    file_of_all: Path
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
        unknown = (places < 0) & (ids != 0)
        if unknown.any():
            raise ValueError(not_listed(path, self.file_of_all, ids, unknown))
        return Segments(index=places, classes=self.classes[own], crowd=self.crowd[own], ids=self.ids[own])


def not_listed(png: Path, file: Path, ids: npt.NDArray[np.integer[Any]], unknown: npt.NDArray[np.bool_]) -> str:
    """The sentence for ids of a PNG that no record describes."""
    lost = present_ids(ids[unknown])
    shown = ", ".join(map(str, lost[:5])) + (", …" if len(lost) > 5 else "")
    plural = "segment id" if len(lost) == 1 else "segment ids"
    return (f"{png}: {plural} {shown} ({int(unknown.sum())} pixels, first in {first_pixel(unknown)}) "
            f"not in {file}; add the record, or paint the pixels 0 (void)")  # fmt: skip


def open_coco(root: Path, split: str, table: LabelTable, *, panoptic: bool) -> PanopticDataset:
    """COCO under `root`; split train and val stand for train2017 and val2017. ValueError for what is not there."""
    split = _YEARS.get(split, split)
    file, pngs, images = coco_files(root, split)
    names, source = read_coco(file, pngs, table)
    present = file_names(images)
    for name in names:
        if name not in present:
            raise ValueError(f"{images / name}: no such image, but {file} names it")
    pairs = tuple((Path(name).stem, images / name) for name in names)
    return PanopticDataset(table, pairs, source, panoptic)


def coco_files(root: Path, split: str) -> tuple[Path, Path, Path]:
    """The JSON, the folder of PNGs (inside annotations/, or beside it as detectron2 has it) and that of images."""
    file = root / "annotations" / f"panoptic_{split}.json"
    inside, beside = root / "annotations" / f"panoptic_{split}", root / f"panoptic_{split}"
    pngs = beside if beside.is_dir() and not inside.is_dir() else inside
    for path, found in ((file, file.is_file()), (pngs, pngs.is_dir()), (root / split, (root / split).is_dir())):
        if not found:
            raise ValueError(f"{path}: no such {'file' if path == file else 'folder'}, so split {split!r} of "
                             "coco_panoptic cannot be read")  # fmt: skip
    return file, pngs, root / split


def file_names(folder: Path) -> set[str]:
    """Names of the files in a folder."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def read_coco(file: Path, pngs: Path, table: LabelTable) -> tuple[list[str], CocoSegments]:
    """File names of the annotated images, in their order, and their segments.

    ValueError for the first of what `panfpn data check` lists whole: see `record_problems`.
    """
    data = read_json(file)
    try:
        for problem in category_problems(data["categories"], table, file):
            raise ValueError(problem)
        image_of = {image["id"]: image["file_name"] for image in data["images"]}
        annotations = data["annotations"]
        for annotation in annotations:
            if annotation["image_id"] not in image_of:
                raise ValueError(f"{file}: {annotation['file_name']} belongs to image {annotation['image_id']!r}, "
                                 "which `images` does not list")  # fmt: skip
        lonely = image_of.keys() - {annotation["image_id"] for annotation in annotations}
        if lonely:
            raise ValueError(f"{file}: image {image_of[min(lonely, key=str)]} has no annotation ({len(lonely)} such)")
        annotations = sorted(annotations, key=lambda annotation: str(image_of[annotation["image_id"]]))
        class_of = {value: k for k, c in enumerate(table.classes) for value in c.values}
        present = file_names(pngs)
        for annotation in annotations:
            if annotation["file_name"] not in present:
                raise ValueError(f"{pngs / annotation['file_name']}: no such PNG, but {file} names it")
            for problem in record_problems(annotation, class_of, pngs, file):
                raise ValueError(problem)
        records = [record for annotation in annotations for record in annotation["segments_info"]]
        source = CocoSegments(
            file_of_all=file,
            files=tuple(pngs / annotation["file_name"] for annotation in annotations),
            first=np.cumsum([0, *(len(annotation["segments_info"]) for annotation in annotations)]),
            ids=np.array([record["id"] for record in records], np.int64),
            classes=np.array([class_of[record["category_id"]] for record in records], np.int16),
            crowd=np.array([bool(record.get("iscrowd", 0)) for record in records], np.bool_),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: not COCO's panoptic format ({type(error).__name__}: {error}); it has images, "
                         "annotations with segments_info, and categories") from error  # fmt: skip
    return [image_of[annotation["image_id"]] for annotation in annotations], source


def category_problems(categories: list[dict[str, Any]], table: LabelTable, file: Path) -> Iterator[str]:
    """Where the categories of a JSON disagree with a label table on thing or stuff."""
    class_of = {value: c for c in table.classes for value in c.values}
    for category in categories:
        own = class_of.get(category["id"])
        if own is not None and own.thing != bool(category["isthing"]):
            kinds = ("a thing", "stuff") if category["isthing"] else ("stuff", "a thing")
            yield (f"{file}: category {category['id']} ({category['name']}) is declared as {kinds[0]}, but in label "
                   f"table {table.name!r} {own.name!r} is {kinds[1]}")  # fmt: skip


def record_problems(annotation: dict[str, Any], class_of: dict[int, int], pngs: Path, file: Path) -> Iterator[str]:
    """What is wrong with one image's records, whatever its PNG holds."""
    seen: set[int] = set()
    png = pngs / annotation["file_name"]
    for record in annotation["segments_info"]:
        number = record["id"]
        if not isinstance(number, int) or not 0 <= number < 1 << 24:
            yield f"{png}: {file} lists the segment id {number!r}; ids are whole numbers from 1 to 16777215"
        elif number == 0:
            yield f"{png}: {file} lists a segment with id 0, which means void; give it another id"
        elif number in seen:
            yield f"{png}: {file} lists two segments with id {number}; they overlap, ids are unique in an image"
        seen.add(number)
        if record["category_id"] not in class_of:
            yield f"{png}: segment {number} has category {record['category_id']!r}, which the label table does not know"
