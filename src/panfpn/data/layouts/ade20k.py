"""ADE20K SceneParsing: images/training/…, annotations/training/…; `train` and `val` stand for its folders' names."""

from pathlib import Path

from panfpn.data.dataset import FileDataset
from panfpn.data.layouts.listing import listed, paired
from panfpn.data.layouts.request import SplitRequest

_FOLDERS = {"train": "training", "val": "validation"}


def open_split(request: SplitRequest) -> FileDataset:
    """Images and masks of a split; ValueError as `paired` gives it, and for segments, which this layout has not."""
    root, table = request.folder, request.named_table()
    request.refuse_panoptic()
    folder = _FOLDERS.get(request.split, request.split)
    images, masks = (listed(request, root / part / folder) for part in ("images", "annotations"))
    return FileDataset(table, paired(request, images, masks))


def splits(root: Path) -> list[str]:
    """The splits that lie there."""
    return [split for split, name in _FOLDERS.items() if (root / "annotations" / name).is_dir()]
