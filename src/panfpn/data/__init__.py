"""Images and labels in: data sets, packs, transforms, loaders, and procedural scenes."""

from panfpn.data.check import check_dataset
from panfpn.data.dataset import Dataset, open_dataset
from panfpn.data.loader import evaluation_loader, train_loader
from panfpn.data.pack import PackedDataset, check_pack, open_pack, write_pack
from panfpn.data.transforms import TrainTransform

__all__ = [
    "Dataset", "PackedDataset", "TrainTransform", "check_dataset", "check_pack", "evaluation_loader", "open_dataset",
    "open_pack", "train_loader", "write_pack",
]  # fmt: skip
