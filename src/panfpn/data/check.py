"""A data set looked through from end to end. In: where it stands. Out: a sentence for everything wrong in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from panfpn.data.dataset import Dataset, open_dataset
from panfpn.data.images import IMAGE_SUFFIXES, decode_ids, read_image
from panfpn.data.layouts.coco import CocoFiles, cityscapes_files, coco_files, files_below, listing_problems, unlisted
from panfpn.data.segments import different_sizes, places_of
from panfpn.files import is_hidden, read_bytes, read_json
from panfpn.labels import LabelTable
from panfpn.progress import progress_bar
from panfpn.types import RawMask


def check_dataset(kind: str, root: Path, split: str, *, progress: bool = True) -> Iterator[str]:
    """What is wrong in a split of the data set `kind` under `root`, file by file; every pixel is read."""
    try:
        if kind == "coco_panoptic":
            yield from _coco_problems(coco_files(root, split), LabelTable.named(kind), progress)
        if kind == "cityscapes" and (root / "gtFine" / f"cityscapes_panoptic_{split}.json").is_file():
            yield from _coco_problems(cityscapes_files(root, split), LabelTable.named(kind), progress)
        for panoptic in _readings(kind, root, split):
            lonely: list[str] = []
            data = open_dataset(kind, root, split, panoptic=panoptic, lonely=lonely)
            yield from lonely
            yield from _reading_problems(data, progress)
    except ValueError as error:
        yield str(error)


def _readings(kind: str, root: Path, split: str) -> tuple[bool, ...]:
    """In which ways the files of a split are read: as segments, as classes."""
    if kind == "coco_panoptic":
        return ()
    if kind == "cityscapes":
        maps = {path.name.rpartition("_")[2] for path in (root / "gtFine" / split).rglob("*_gtFine_*.png")}
        segments, classes = "instanceIds.png" in maps, bool(maps & {"labelIds.png", "labelTrainIds.png"})
        json = (root / "gtFine" / f"cityscapes_panoptic_{split}.json").is_file()  # checked by itself
        return (True,) * segments + (False,) * (classes or not (segments or json))
    return (kind == "folder" and (root / "instances" / split).is_dir(),)


def _reading_problems(data: Dataset, progress: bool) -> Iterator[str]:
    with progress_bar("checking", len(data), show=progress) as advance:
        for i in range(len(data)):
            try:
                target = data.open(i)[1]
                if isinstance(target, RawMask):
                    target[:, :]
            except ValueError as error:
                yield str(error)
            advance(i + 1)


def _coco_problems(files: CocoFiles, table: LabelTable, progress: bool) -> Iterator[str]:
    assert files.images is not None
    data = read_json(files.json)
    yield from listing_problems(data, files, table)
    entries = {entry["id"]: entry for entry in data["images"]}
    for folder, named, what in (
        (files.pngs, {annotation["file_name"] for annotation in data["annotations"]}, "annotation"),
        (files.images, {files.image(entry) for entry in data["images"]}, "image"),
    ):
        for name in sorted(files_below(folder) - named):
            path = folder / name
            if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path, folder):
                yield f"{path}: no {what} of this name is listed in {files.json}"
    with progress_bar("checking", len(data["annotations"]), show=progress) as advance:
        for i, annotation in enumerate(data["annotations"]):
            entry, png = entries.get(annotation["image_id"]), files.pngs / annotation["file_name"]
            image = None if entry is None else files.images / files.image(entry)
            if png.is_file():
                yield from _png_problems(annotation["segments_info"], png, files.json)
            if image is not None and image.is_file():
                yield from _size_problems(image, png, entry or {}, files.json)
            advance(i + 1)


def _png_problems(records: list[dict[str, Any]], png: Path, file: Path) -> Iterator[str]:
    """Ids and areas of a PNG against its records."""
    try:
        ids = decode_ids(read_bytes(png), png, rgb=True)
    except ValueError as error:
        yield str(error)
        return
    area_of = {r["id"]: r.get("area") for r in records if type(r["id"]) is int and 0 < r["id"] < 1 << 24}
    places = places_of(ids, np.array(list(area_of), np.int64), png)
    yield from unlisted(png, file, ids, places)
    counts = np.bincount((places + 1).ravel(), minlength=len(area_of) + 1)[1:].tolist()
    for (number, area), count in zip(area_of.items(), counts, strict=True):
        if not count:
            yield f"{png}: has no pixel of segment id {number}, which {file} lists"
        elif area != count:
            yield f"{png}: segment {number} has {count} pixels, but area {area} in {file}"


def _size_problems(image: Path, png: Path, entry: dict[str, Any], file: Path) -> Iterator[str]:
    """Sizes of an image, of its PNG and in the JSON."""
    try:
        size = read_image(image).shape[:2]
    except ValueError as error:
        yield str(error)
        return
    declared = entry.get("height"), entry.get("width")
    if declared != size:
        yield f"{image} is {size[1]}×{size[0]} pixels, but {declared[1]}×{declared[0]} in {file}"
    if png.is_file():
        try:
            shape = decode_ids(read_bytes(png), png).shape
        except ValueError:
            return  # _png_problems has said so
        if shape != size:
            yield different_sizes(image, size, png, shape)
