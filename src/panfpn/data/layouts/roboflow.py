"""Roboflow's semantic masks: in train/, valid/ and test/ NAME.jpg, NAME_mask.png beside it, and _classes.csv."""

import csv
from pathlib import Path

from panfpn.data.dataset import FileDataset
from panfpn.data.layouts.listing import SPLITS, first_existing, listed, names_of_split, paired
from panfpn.data.layouts.request import SplitRequest
from panfpn.labels import LabelTable

CLASSES = "_classes.csv"
_ENDING = "_mask"


def open_split(request: SplitRequest) -> FileDataset:
    """A split; ValueError for a _classes.csv that is not there or cannot be read, and for images without a mask."""
    request.refuse_panoptic()
    folder = _folder(request.folder, request.split)
    if folder is None:
        raise ValueError(f"{request.folder}: no folder of split {request.split!r} holds a {CLASSES}")
    table = request.own_table() or _table(folder / CLASSES, request.folder.name)
    images = listed(request, folder, lambda path: not path.stem.endswith(_ENDING))
    masks = listed(request, folder, lambda path: path.stem.endswith(_ENDING), ending=_ENDING)
    return FileDataset(table, paired(request, images, masks))


def splits(root: Path) -> list[str]:
    """The splits that have a table of classes."""
    return [split for split in SPLITS if _folder(root, split) is not None]


def _folder(root: Path, split: str) -> Path | None:
    file = first_existing(root / name / CLASSES for name in names_of_split(split))
    return file.parent if file else None


def _table(file: Path, name: str) -> LabelTable:
    """The classes of rows `Pixel Value, Class`."""
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file.read_text("utf-8-sig").splitlines()) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file}: not a table of commas ({error})") from error
    classes = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 2 or not row[0].isdigit() or not row[1]:
            raise ValueError(f"{file}: line {number} is {','.join(row)!r}; a line is a value of the masks and a class")
        classes.append({"name": row[1], "value": int(row[0])})
    if not classes:
        raise ValueError(f"{file}: names no class; after a line of titles, a line is a value and a class")
    used = {c["value"] for c in classes}
    return LabelTable.from_dict({"name": name, "ignore": [] if 255 in used else [255], "classes": classes}, file)
