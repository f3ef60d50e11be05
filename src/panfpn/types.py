"""What flows through panfpn, a shape per field. Read this first.

file -> image and RawMask or Segments -> transforms -> Sample -> Batch -> task(batch) -> {name: loss},
or task.predict(batch) -> SemanticMap or PanopticMap -> metric.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from panfpn.draw import overlay
from panfpn.files import write_image
from panfpn.labels import IGNORE, LabelTable

SAVED = ("labels", "overlay", "confidence")  # what a SemanticMap can write


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Segments:
    """A panoptic map: the segment of each pixel, and what the N segments are. Segments do not overlap."""

    index: npt.NDArray[np.int16]  # [H, W] 0..N - 1, a place in the lists below; IGNORE where void
    classes: npt.NDArray[np.int16]  # [N] train ids
    crowd: npt.NDArray[np.bool_]  # [N] a group of things that nobody told apart
    ids: npt.NDArray[np.int64]  # [N] as in the file it comes from

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.index.shape[0], self.index.shape[1]

    @property
    def labels(self) -> npt.NDArray[np.int16]:
        """Train ids [H, W], IGNORE where void."""
        return np.append(self.classes, np.int16(IGNORE))[self.index]  # IGNORE is -1: the last entry

    def __getitem__(self, window: tuple[slice, slice]) -> npt.NDArray[np.int16]:
        """Train ids of a window, as `RawMask` gives them."""
        return np.append(self.classes, np.int16(IGNORE))[self.index[window]]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Things:
    """Instances of one image, each a mask in its box; they may overlap."""

    boxes: torch.Tensor  # float32 [N, 4] left, top, right, bottom: pixel (x, y) covers x..x + 1, y..y + 1
    classes: torch.Tensor  # int64 [N] train ids
    crowd: torch.Tensor  # bool [N] not to be learnt, neither as a thing nor as background
    bits: torch.Tensor  # uint8 [sum of box areas] 0 or 1: each mask within its (whole-numbered) box, row by row

    def to(self, device: torch.device) -> "Things":
        """The same on `device`."""
        return Things(**{name: getattr(self, name).to(device, non_blocking=True) for name in self.__slots__})

    def pin_memory(self) -> "Things":
        """The same in page-locked memory."""
        return Things(**{name: getattr(self, name).pin_memory() for name in self.__slots__})


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sample:
    """One image and what is known about it."""

    image: npt.NDArray[np.uint8]  # [H, W, 3] RGB
    target: npt.NDArray[np.int16]  # [H, W] train ids, IGNORE where nothing is to be learnt
    name: str  # unique in its split; also the stem of what is written for it
    segments: Segments | None = None  # of a panoptic data set; `target` is their `labels`
    things: Things | None = None  # what the instance branch learns, in the order of classes; training only


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

    images: torch.Tensor  # uint8 [B, 3, H, W], channels_last
    targets: torch.Tensor  # int16 [B, H, W] train ids, IGNORE
    sizes: tuple[tuple[int, int], ...]  # (height, width) without padding
    names: tuple[str, ...]
    things: tuple[Things, ...] | None = None  # of each image, for a panoptic network

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`; from pinned memory the copy overlaps with computing."""
        images = self.images.to(device, non_blocking=True)
        targets = self.targets.to(device, non_blocking=True)
        things = None if self.things is None else tuple(t.to(device) for t in self.things)
        return Batch(images=images, targets=targets, sizes=self.sizes, names=self.names, things=things)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory (called by the data loader on CUDA machines)."""
        images, targets = self.images.pin_memory(), self.targets.pin_memory()
        things = None if self.things is None else tuple(t.pin_memory() for t in self.things)
        return Batch(images=images, targets=targets, sizes=self.sizes, names=self.names, things=things)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SemanticMap:
    """What a Semantic FPN says about one image."""

    labels: npt.NDArray[np.integer]  # [H, W] train ids at the input's size: uint8 to 256 classes, int16 above
    table: LabelTable
    confidence: npt.NDArray[np.float32] | None = None  # [H, W] softmax probability of the winner, on request
    image: npt.NDArray[np.uint8] | None = None  # [H, W, 3] RGB, for `overlay`
    name: str = "image"

    def overlay(self, opacity: float = 0.55) -> npt.NDArray[np.uint8]:
        """RGB [H, W, 3]: the image tinted by class; ValueError if the map was made without its image."""
        if self.image is None:
            raise ValueError(f"{self.name}: this map carries no image to draw on; draw with panfpn.draw.overlay")
        return overlay(self.image, self.labels, self.table.palette, opacity)

    def shares(self) -> dict[str, float]:
        """Share of the pixels of each class that occurs, largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=self.table.num_classes) / self.labels.size
        order = np.argsort(-counts, kind="stable")
        return {self.table.names[k]: float(counts[k]) for k in order if counts[k]}

    def save(self, folder: str | Path, *, what: tuple[str, ...] = ("labels", "overlay")) -> list[Path]:
        """Write `NAME.png` (raw label values, as in the data set's masks), `NAME_overlay.jpg`, `NAME_confidence.png`.

        Confidence is stored in 8 bits: 255 = certain. Returns what was written; ValueError for an unknown `what`.
        """
        unknown = [kind for kind in what if kind not in SAVED]
        if unknown:
            raise ValueError(f"cannot save {unknown[0]!r}; choose from {', '.join(SAVED)}")
        written = []
        for kind in what:
            if kind == "labels":
                path, picture = Path(folder) / f"{self.name}.png", self.table.decode(self.labels)
            elif kind == "overlay":
                path, picture = Path(folder) / f"{self.name}_overlay.jpg", self.overlay()
            elif self.confidence is not None:
                path = Path(folder) / f"{self.name}_confidence.png"
                picture = np.rint(self.confidence * 255).astype(np.uint8)
            else:
                raise ValueError(f"{self.name}: this map was predicted without confidence; ask the predictor for it")
            write_image(path, picture)  # type: ignore[arg-type]
            written.append(path)
        return written


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Detections:
    """Instances that a network found in one image, best first."""

    boxes: npt.NDArray[np.float32]  # [N, 4] left, top, right, bottom, in pixels of the image
    scores: npt.NDArray[np.float32]  # [N] 0..1, falling
    classes: npt.NDArray[np.int16]  # [N] train ids
    masks: tuple[tuple[int, int, npt.NDArray[np.bool_]], ...]  # N times top, left and the mask [h, w] there; none
    # outside. Empty (no tuple) for detections that were too weak for the map that was asked for.


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment of a PanopticMap."""

    id: int  # its value in the map
    train_id: int
    name: str  # of its class
    thing: bool
    area: int  # pixels
    box: tuple[int, int, int, int]  # left, top, width, height
    score: float | None = None  # 0..1, of a thing


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PanopticMap:
    """What a Panoptic FPN says about one image."""

    segments: npt.NDArray[np.int32]  # [H, W] segment ids at the input's size, 0 where void
    info: tuple[Segment, ...]  # of ids 1, 2, …: things, best first, then stuff in the order of train ids
    table: LabelTable
    semantic: npt.NDArray[np.integer]  # [H, W] what the semantic branch alone says: train ids, IGNORE for 'other'
    detections: Detections
    image: npt.NDArray[np.uint8] | None = None  # [H, W, 3] RGB, for `overlay`
    name: str = "image"

    @property
    def labels(self) -> npt.NDArray[np.int16]:
        """Train ids [H, W] of the merged map, IGNORE where void."""
        classes = np.array([IGNORE, *(s.train_id for s in self.info)], np.int16)
        return classes[self.segments]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """What happens to an image before the network sees it; travels with the weights in a release file."""

    mean: tuple[float, ...]  # per channel, of the input in 0..255
    std: tuple[float, ...]
    scale: tuple[int, int] | None = None  # longer and shorter side the image is fitted into; None: its own size
    size_divisor: int = 1  # the network sees it grown to a multiple of this: with the mean colour, right and below
