"""The training augmentation with the defaults of the settings, for tests that change some of them."""

from typing import Any

from panfpn.build import build_transform
from panfpn.config import Data
from panfpn.data import TrainTransform


def train_transform(**changes: Any) -> TrainTransform:
    """The augmentation of `Data` with these changes."""
    return build_transform(Data(**changes))
