"""COCO panoptic: annotations/panoptic_SPLIT.json, its PNGs beside it, and images in SPLIT/."""

from collections.abc import Iterator
from pathlib import Path

from panfpn.data.layouts.coco_check import coco_problems, outline_problems
from panfpn.data.layouts.coco_json import CocoFiles, open_coco
from panfpn.data.layouts.request import SplitRequest
from panfpn.data.segments import PanopticDataset

_YEARS = {"train": "train2017", "val": "val2017"}


def open_split(request: SplitRequest) -> PanopticDataset:
    """A split, with instances from instances_SPLIT.json if the request says "json"; ValueError as `open_coco`."""
    files, outlines = _files(request)
    table = request.named_table()
    return open_coco(
        files, table, panoptic=request.panoptic, instances=outlines if request.instances == "json" else None
    )


def splits(root: Path) -> list[str]:
    """The splits that lie there."""
    jsons = root / "annotations"
    return [s for s in ("train", "val") if (jsons / f"panoptic_{_YEARS.get(s, s)}.json").is_file()]


def problems(request: SplitRequest, *, progress: bool) -> Iterator[str]:
    """What is wrong in the JSON, in the PNGs and in the images."""
    files, outlines = _files(request)
    table = request.named_table()
    yield from coco_problems(files, table, progress=progress)
    if outlines.is_file():
        yield from outline_problems(files, outlines, table)


def _files(request: SplitRequest) -> tuple[CocoFiles, Path]:
    """Where a split stands, and its instances_SPLIT.json; ValueError for the first that is not there.

    The PNGs stand in annotations/, or beside it, as detectron2 has it. Train and val mean those of 2017.
    """
    root, split = request.folder, _YEARS.get(request.split, request.split)
    inside, beside = root / "annotations" / f"panoptic_{split}", root / f"panoptic_{split}"
    pngs = beside if beside.is_dir() and not inside.is_dir() else inside
    own = request.own_table() is not None
    files = CocoFiles(json=inside.with_suffix(".json"), pngs=pngs, images=root / split, own_classes=own)
    return files.existing(), root / "annotations" / f"instances_{split}.json"
