"""CamVid as SegNet's authors arranged it: images in SPLIT/, masks of 11 classes in SPLITannot/."""

from pathlib import Path

from panfpn.data.dataset import FileDataset
from panfpn.data.layouts.listing import SPLITS, listed, paired
from panfpn.data.layouts.request import SplitRequest


def open_split(request: SplitRequest) -> FileDataset:
    """Images and masks of a split; ValueError as `paired` gives it, and for segments, which this layout has not."""
    root, table = request.folder, request.named_table()
    request.refuse_panoptic()
    images, masks = listed(request, root / request.split), listed(request, root / f"{request.split}annot")
    return FileDataset(table, paired(request, images, masks))


def splits(root: Path) -> list[str]:
    """The splits that lie there."""
    return [split for split in SPLITS if (root / f"{split}annot").is_dir()]
