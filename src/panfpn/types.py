"""What flows through panfpn, a shape per field. Read this first.

file -> image and RawMask or Segments -> transforms -> Sample -> Batch -> task(batch) -> {name: loss},
or task.predict(batch) -> SemanticMap or PanopticMap -> metric. The maps have shapes in maps.py, and names here too.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from panfpn.labels import LabelTable
from panfpn.maps import Detections, PanopticMap, Segment, Segments, SemanticMap

__all__ = [
    "RGB",
    "Batch",
    "Detections",
    "Example",
    "Instances",
    "PanopticMap",
    "Preprocess",
    "RawMask",
    "Reading",
    "Sample",
    "Segment",
    "Segments",
    "SemanticMap",
]  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Instances:
    """Instances of one image, each a mask in its box; they may overlap; crowds come last."""

    boxes: torch.Tensor  # float32 [N, 4] left, top, right, bottom: pixel (x, y) covers x..x + 1, y..y + 1
    classes: torch.Tensor  # int64 [N] train ids
    bits: torch.Tensor  # uint8 [sum of box areas] 0 or 1: each mask within its (whole-numbered) box, row by row
    num_crowds: int  # the last so many are not to be learnt, neither as things nor as background

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Instances":
        """The same with every tensor changed: moved to a device, pinned."""
        return replace(self, boxes=change(self.boxes), classes=change(self.classes), bits=change(self.bits))


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image and what is known about it; data sets of one's own return it from `read`."""

    image: npt.NDArray[np.uint8]  # [H, W, 3] RGB, or as many channels as the network sees
    target: npt.NDArray[np.int16]  # [H, W] train ids, IGNORE = -1 where nothing is to be learnt
    name: str  # unique in its split; also the stem of what is written for it
    segments: Segments | None = None  # of a panoptic data set; `target` is their `labels`
    instances: Instances | None = None  # what the instance branch learns; training only


@dataclass(frozen=True, slots=True, eq=False)
class RawMask:
    """The train ids of a mask, translated only where they are looked at: `mask[rows, columns]` is int16 [h, w]."""

    values: npt.NDArray[np.generic]  # [H, W] or RGB [H, W, 3], in the table's form
    table: LabelTable
    source: object  # named in errors

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the whole mask."""
        return self.values.shape[0], self.values.shape[1]

    def __getitem__(self, window: tuple[slice, slice]) -> npt.NDArray[np.int16]:
        """Train ids of a window; ValueError as `LabelTable.encode` gives it for the whole mask."""
        try:
            return self.table.encode(self.values[window], self.source)
        except ValueError:
            return self.table.encode(self.values, self.source)[window]  # so that it counts and finds pixels in the file


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Batch:
    """Samples of one size, padded to the right and below; `sizes` says which part of each is real."""

    images: torch.Tensor  # uint8 [B, C, H, W], channels_last
    targets: torch.Tensor  # int16 [B, H, W] train ids, IGNORE
    sizes: tuple[tuple[int, int], ...]  # (height, width) without padding
    names: tuple[str, ...]
    instances: tuple[Instances, ...] | None = None  # of each image, for a panoptic network
    extents: torch.Tensor | None = None  # int64 [B, 2] `sizes` where the images are; None where nothing is padding
    features: tuple[torch.Tensor, ...] | None = None  # maps of a frozen backbone; the images then have C = 0

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`; from pinned memory the copy overlaps with computing."""
        return self.each(lambda tensor: moved(tensor, device))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory (called by the data loader on CUDA machines)."""
        return self.each(lambda tensor: tensor.pin_memory())

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        """The same with every tensor changed."""
        return replace(
            self, images=change(self.images), targets=change(self.targets),
            extents=None if self.extents is None else change(self.extents),
            features=None if self.features is None else tuple(map(change, self.features)),
            instances=None if self.instances is None else tuple(one.each(change) for one in self.instances),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Example:
    """One image with its prediction and the target, for a report: both train ids [H, W] (IGNORE: none), or segments."""

    name: str
    image: npt.NDArray[np.uint8]  # [H, W, 3] RGB
    prediction: npt.NDArray[np.integer] | Segments
    target: npt.NDArray[np.int16] | Segments
    score: float  # of this image alone: mIoU or PQ


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` on `device`.

    The host goes on meanwhile only from page-locked memory to CUDA: elsewhere (MPS) the copy could read too late.
    """
    return tensor.to(device, non_blocking=device.type == "cuda" and tensor.device.type == "cpu" and tensor.is_pinned())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What image files leave open about their pixels: settings of `data` and `model`, which travel with the weights."""

    channels: int = 3  # that the network sees (model.in_channels)
    bands: tuple[int, ...] = ()  # which of a file's bands, from 1 on; (): those that its header makes plain
    range: tuple[float, float] | Literal["percentile"] | None = None
    """What is black and white where values have more than 8 bits; percentile: each band's 2 % and 98 %."""
    page: int | None = None  # of files with several, from 1 on
    mask_orientation: Literal["auto", "turned", "stored"] = "auto"  # what masks of turned photos were drawn on


RGB = Reading()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """What happens to an image before the network sees it; travels with the weights in a release file."""

    mean: tuple[float, ...]  # per channel, of the input in 0..255
    std: tuple[float, ...]
    scale: tuple[int, int] | None = None  # longer and shorter side the image is fitted into; None: its own size
    reading: Reading = RGB
    size_divisor: int = 1  # the network sees it grown to a multiple of this: with the mean colour, right and below
