"""Decoded images that stay in memory, where all of a data set fit. In: a data set. Out: what training cuts from."""

from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.data.checked import open_sample
from panfpn.data.dataset import Dataset, FileDataset
from panfpn.data.segments import PanopticDataset
from panfpn.types import RawMask, Segments

Opened = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16] | RawMask | Segments]


class Remembered:
    """`open_sample` of a data set, which keeps what it has decoded in at most `limit` bytes.

    Only of files, and only if all images are likely to fit, as large as the first one is: of a set that is read in
    random order, a tenth in memory would save a tenth of the decoding. Nothing of what it gives may be written to.
    """

    def __init__(self, dataset: Dataset, channels: int, limit: int) -> None:
        self.dataset, self.channels = dataset, channels
        self.left = limit if isinstance(dataset, FileDataset | PanopticDataset) else 0
        self.kept: dict[int, Opened] = {}

    def __call__(self, index: int) -> Opened:
        """Image and target of a sample; ValueError as reading it gives it."""
        if index in self.kept:
            return self.kept[index]
        image, target = open_sample(self.dataset, index, channels=self.channels)
        size = image.nbytes + pixels_of(target).nbytes
        if not self.kept and size * len(self.dataset) > self.left:
            self.left = 0
        if size <= self.left:
            self.left -= size
            image.flags.writeable = pixels_of(target).flags.writeable = False
            self.kept[index] = image, target
        return image, target


def pixels_of(target: Any) -> npt.NDArray[Any]:
    """The array of a target."""
    pixels: npt.NDArray[Any] = (
        target.values if isinstance(target, RawMask) else target.index if isinstance(target, Segments) else target
    )
    return pixels
