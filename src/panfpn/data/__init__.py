"""Images and labels in: data sets, transforms, loaders, and procedural scenes."""

from panfpn.data.datasets import Dataset, open_dataset
from panfpn.data.loader import evaluation_loader, train_loader
from panfpn.data.transforms import TrainTransform

__all__ = ["Dataset", "TrainTransform", "evaluation_loader", "open_dataset", "train_loader"]
