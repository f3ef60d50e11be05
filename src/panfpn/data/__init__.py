"""Images and labels in: data sets, packs, transforms, loaders, and procedural scenes."""

from panfpn.data.adapters import as_dataset, from_pairs, from_torch
from panfpn.data.check import check_dataset
from panfpn.data.dataset import Dataset, WindowedDataset, open_dataset
from panfpn.data.doctor import Diagnosis, diagnose
from panfpn.data.identity import identity_of
from panfpn.data.importing import import_dataset
from panfpn.data.loader import evaluation_loader, train_loader
from panfpn.data.pack import PackedDataset, check_pack, open_pack, write_pack
from panfpn.data.prefetch import prefetched
from panfpn.data.shards import open_shards, write_shards
from panfpn.data.transforms import TrainTransform
from panfpn.types import Reading, Sample

__all__ = [
    "Dataset", "Diagnosis", "PackedDataset", "Reading", "Sample", "TrainTransform", "WindowedDataset", "as_dataset",
    "check_dataset", "check_pack", "diagnose", "evaluation_loader", "from_pairs", "from_torch", "identity_of",
    "import_dataset", "open_dataset", "open_pack", "open_shards", "prefetched", "train_loader", "write_pack",
    "write_shards",
]  # fmt: skip
