"""Cityscapes: leftImg8bit/SPLIT/CITY/…, and in gtFine/ masks, maps of instance ids, or both in the form of COCO."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.check import reading_problems
from panfpn.data.dataset import FileDataset
from panfpn.data.images import decode_ids
from panfpn.data.layouts.coco_check import coco_problems
from panfpn.data.layouts.coco_json import CocoFiles, open_coco
from panfpn.data.layouts.listing import listed, paired
from panfpn.data.layouts.request import SplitRequest
from panfpn.data.segments import Ids, PanopticDataset, first_pixel, ids_in, indices_of, things_in
from panfpn.files import read_bytes
from panfpn.labels import IGNORE, LabelTable
from panfpn.types import Segments


def open_split(request: SplitRequest) -> FileDataset | PanopticDataset:
    """Images with masks of classes (of train ids, if there are as many of them), or with segments.

    Those come from the maps of instance ids, or from COCO's form where only that is there.
    """
    root, table = request.folder, request.named_table()
    if request.panoptic:
        return _open_segments(request, root, table)
    images = _images(request, root)
    masks = listed(request, root / "gtFine" / request.split, lambda p: "_gtFine_label" in p.name)
    train_ids = {n.removesuffix("_gtFine_labelTrainIds"): p for n, p in masks.items() if n.endswith("TrainIds")}
    raw_ids = {n.removesuffix("_gtFine_labelIds"): p for n, p in masks.items() if n.endswith("labelIds")}
    own = request.own_table() is not None  # its values are those of labelIds, if such masks are there
    if len(train_ids) >= len(raw_ids) and not (own and raw_ids):
        return FileDataset(table, paired(request, images, train_ids), None if own else table.as_train_ids())
    return FileDataset(table, paired(request, images, raw_ids))


def _open_segments(request: SplitRequest, root: Path, table: LabelTable) -> PanopticDataset:
    folder = root / "gtFine" / request.split
    if _json(request, root).is_file() and not any(folder.rglob("*_gtFine_instanceIds.png")):
        return open_coco(_coco_files(request, root), table, panoptic=True)
    ending = "_gtFine_instanceIds"
    if folder.is_dir() and not any(folder.rglob(f"*{ending}.png")):
        request.refuse_panoptic(f"no {ending.removeprefix('_')} in {folder}")
    maps = listed(request, folder, lambda p: p.name.endswith(f"{ending}.png"), ending=ending)
    items = paired(request, _images(request, root), maps, "map of instance ids")
    images, files = tuple(item[:2] for item in items), tuple(item[2] for item in items)
    return PanopticDataset(table, images, CityscapesSegments(table, files))


def splits(root: Path) -> list[str]:
    """The splits that lie there."""
    jsons = (root / "gtFine" / f"cityscapes_panoptic_{split}.json" for split in ("train", "val"))
    found = {file.stem.rpartition("_")[2] for file in jsons if file.is_file()}
    endings = ("labelIds", "labelTrainIds", "instanceIds")
    return [
        split for split in ("train", "val")
        if split in found or any(any((root / "gtFine" / split).rglob(f"*_gtFine_{end}.png")) for end in endings)
    ]  # fmt: skip


def problems(request: SplitRequest, *, progress: bool) -> Iterator[str]:
    """What is wrong in whatever the split has: segments, classes, and COCO's form."""
    root, table = request.folder, request.named_table()
    has_json = _json(request, root).is_file()
    if has_json:
        yield from coco_problems(_coco_files(request, root), table, progress=progress)
    endings = {path.name.rpartition("_")[2] for path in (root / "gtFine" / request.split).rglob("*_gtFine_*.png")}
    has_maps, has_masks = "instanceIds.png" in endings, bool(endings & {"labelIds.png", "labelTrainIds.png"})
    if has_maps:
        yield from reading_problems(open_split, replace(request, panoptic=True), progress=progress)
    if has_masks or not (has_maps or has_json):
        yield from reading_problems(open_split, request, progress=progress)


def _images(request: SplitRequest, root: Path) -> dict[str, Path]:
    ending, folder = "_leftImg8bit", root / "leftImg8bit" / request.split
    return listed(request, folder, lambda p: p.name.endswith(f"{ending}.png"), ending=ending)


def _json(request: SplitRequest, root: Path) -> Path:
    return root / "gtFine" / f"cityscapes_panoptic_{request.split}.json"


def _coco_files(request: SplitRequest, root: Path) -> CocoFiles:
    """As its createPanopticImgs.py writes it; ValueError for the first that is not there."""
    json, images = _json(request, root), root / "leftImg8bit" / request.split
    return CocoFiles(
        json=json,
        pngs=json.with_suffix(""),
        images=images,
        image_path=_image_path,
        ending="_leftImg8bit",
        own_classes=request.own_table() is not None,
    ).existing()


def _image_path(entry: dict[str, Any]) -> str:
    """Images stand in folders of cities, under their ids: what the JSON calls file_name is the name of no file."""
    number = str(entry["id"])
    return f"{number.partition('_')[0]}/{number}_leftImg8bit.png"


@dataclass(frozen=True, eq=False)
class CityscapesSegments:
    """`*_instanceIds.png`: class · 1000 + number, or the class alone for stuff and groups of things."""

    table: LabelTable
    files: tuple[Path, ...]

    def file(self, index: int) -> Path:
        """The map of an image."""
        return self.files[index]

    def segments(self, index: int) -> Segments:
        """Of one image; ValueError for a value of an unknown class, or a number in a class of stuff."""
        path = self.files[index]
        ids = decode_ids(read_bytes(path), path)
        numbers = ids_in(ids)
        counted = numbers >= 1000
        classes = self._classes_of(numbers, np.where(counted, numbers // 1000, numbers), ids, path)
        thing = things_in(self.table)[classes]  # IGNORE is -1: the last entry
        wrong = counted & ~thing & (classes != IGNORE)
        if wrong.any():
            number, name = numbers[wrong][0], self.table.names[classes[wrong][0]]
            raise ValueError(f"{path}: id {number} in {first_pixel(ids == number)} counts an instance of {name!r}, "
                             f"which is stuff; its pixels are {number // 1000}")  # fmt: skip
        kept = classes != IGNORE
        return Segments(
            index=indices_of(ids, numbers[kept], path), classes=classes[kept], crowd=(thing & ~counted)[kept],
            ids=numbers[kept],
        )  # fmt: skip

    def _classes_of(
        self, numbers: npt.NDArray[np.int64], values: npt.NDArray[np.int64], ids: Ids, path: Path
    ) -> npt.NDArray[np.int16]:
        """Train ids of the raw values of ids; ValueError shows where an unknown one is in the map."""
        for number, value in zip(numbers.tolist(), values.tolist(), strict=True):
            if not self.table.knows(value):
                raise ValueError(f"{path}: id {number} in {first_pixel(ids == number)} is of class {value}, which "
                                 f"label table {self.table.name!r} does not know")  # fmt: skip
        classes: npt.NDArray[np.int16] = self.table.encode(values[None])[0]
        return classes
