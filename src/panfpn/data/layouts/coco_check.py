"""COCO's panoptic format looked through from end to end. In: where a split stands. Out: a sentence for every fault."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from panfpn.data.images import IMAGE_SUFFIXES, decode_ids, read_image
from panfpn.data.layouts.coco_json import CocoFiles, files_below, listing_problems, unlisted
from panfpn.data.layouts.coco_outlines import read_outlines
from panfpn.data.segments import different_sizes, indices_of
from panfpn.files import read_bytes, read_json
from panfpn.labels import LabelTable
from panfpn.progress import progress_bar


def coco_problems(files: CocoFiles, table: LabelTable, *, progress: bool) -> Iterator[str]:
    """What is wrong in the JSON, its PNGs and its images; every pixel is read."""
    data = read_json(files.json)
    yield from listing_problems(data, files, table)
    entries = {entry["id"]: entry for entry in data["images"]}
    for folder, named, what in (
        (files.pngs, {annotation["file_name"] for annotation in data["annotations"]}, "annotation"),
        (files.images, {files.image_path(entry) for entry in data["images"]}, "image"),
    ):
        for name in sorted(files_below(folder) - named):
            path = folder / name
            if path.suffix.lower() in IMAGE_SUFFIXES and "/." not in f"/{name}":
                yield f"{path}: no {what} of this name is listed in {files.json}"
    with progress_bar("checking", len(data["annotations"]), show=progress) as advance:
        for i, annotation in enumerate(data["annotations"]):
            entry, png = entries.get(annotation["image_id"]), files.pngs / annotation["file_name"]
            image = None if entry is None else files.images / files.image_path(entry)
            if png.is_file():
                yield from _png_problems(annotation["segments_info"], png, files.json)
            if image is not None and image.is_file():
                yield from _size_problems(image, png, entry or {}, files.json)
            advance(i + 1)


def outline_problems(files: CocoFiles, instances: Path, table: LabelTable) -> Iterator[str]:
    """What is wrong in instances_SPLIT.json, beside the panoptic JSON."""
    try:
        entries = read_json(files.json)["images"]
        names, ids = [files.image_path(entry) for entry in entries], [entry["id"] for entry in entries]
        outlines = read_outlines(instances, names, table, ids)
    except ValueError as error:
        yield str(error)
        return
    except (KeyError, TypeError, AttributeError):
        return  # the panoptic JSON is none, and that has been said
    for n, entry in enumerate(entries):
        for i in range(*outlines.first[n : n + 2]):
            if outlines.runs[i] and (total := outlines.num_pixels(i)) != entry["height"] * entry["width"]:
                yield (f"{instances}: run lengths of an instance in {names[n]} fill {total} pixels, but the image has "
                       f"{entry['width']}×{entry['height']}")  # fmt: skip


def _png_problems(records: list[dict[str, Any]], png: Path, file: Path) -> Iterator[str]:
    """Ids and areas of a PNG against its records."""
    try:
        ids = decode_ids(read_bytes(png), png, rgb=True)
    except ValueError as error:
        yield str(error)
        return
    area_of = {r["id"]: r.get("area") for r in records if type(r["id"]) is int and 0 < r["id"] < 1 << 24}
    index_map = indices_of(ids, np.array(list(area_of), np.int64), png)
    yield from unlisted(png, file, ids, index_map)
    counts = np.bincount((index_map + 1).ravel(), minlength=len(area_of) + 1)[1:].tolist()
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
