"""Validation images taken from the training images. In: a data set and a share. Out: its two parts.

Which image goes where depends on the seed, the names and the classes alone; each class is divided by the share, the
rarest first (iterative stratification, Sechidis et al. 2011), and no part is an image larger or smaller than its share.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panfpn.config.model import num_folds
from panfpn.data.dataset import Dataset, FileDataset
from panfpn.data.rasters.blocks import RasterBlocks
from panfpn.data.segments import InstanceSource, PanopticDataset, SegmentSource
from panfpn.progress import progress_bar
from panfpn.types import Segments


def part_of(data: Dataset, share: float, seed: int, *, validation: bool, fold: int = 0) -> Dataset:
    """The part of a data set that validates, a `share` of it, or the rest, on which is trained.

    Of as many `fold`s as there are such shares each image validates in one.

    ValueError for a data set that does not lie on disk, or is too small to be divided.
    """
    if not isinstance(data, FileDataset | PanopticDataset | RasterBlocks):
        raise ValueError("data.split divides files; this data set is none")
    if len(data) < 2:
        raise ValueError(f"data.split: {len(data)} image cannot be divided")
    if fold and len(data) < num_folds(share):
        raise ValueError(f"data.fold: {len(data)} images are fewer than {num_folds(share)} folds; raise data.split")
    chosen = _validating(_Key(data), share, seed, fold)
    indices = np.flatnonzero(chosen if validation else ~chosen).tolist()
    if isinstance(data, FileDataset):
        return replace(data, items=tuple(data.items[i] for i in indices))
    if isinstance(data, RasterBlocks):
        return replace(data, items=tuple(data.items[i] for i in indices))
    outlines = None if data.outlines is None else Chosen(data.outlines, indices)
    images = tuple(data.images[i] for i in indices)
    return replace(data, images=images, source=Chosen(data.source, indices), outlines=outlines)


@dataclass(frozen=True, eq=False)
class Chosen:
    """A `SegmentSource` or `InstanceSource` of some images."""

    source: Any
    indices: Sequence[int]

    def file(self, index: int) -> Path:
        """Where the segments of an image stand."""
        source: SegmentSource = self.source
        return source.file(self.indices[index])

    def segments(self, index: int) -> Segments:
        """Of one image."""
        source: SegmentSource = self.source
        return source.segments(self.indices[index])

    def instances(self, index: int, *arguments: Any) -> Any:
        """What a geometry shows of an image."""
        source: InstanceSource = self.source
        return source.instances(self.indices[index], *arguments)


@dataclass(frozen=True, eq=False)
class _Key:
    """A data set by what it is, so that its masks are read once for both parts."""

    data: FileDataset | PanopticDataset | RasterBlocks

    def _identity(self) -> tuple[object, ...]:
        items = self.data.images if isinstance(self.data, PanopticDataset) else self.data.items
        return (items, self.data.table.name, self.data.table.classes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())


@lru_cache(maxsize=2)
def _validating(key: _Key, share: float, seed: int, fold: int) -> npt.NDArray[np.bool_]:
    """[images] whether each validates."""
    data = key.data
    present = np.zeros((len(data), data.table.num_classes), np.bool_)
    with progress_bar("dividing", len(data)) as advance:
        for i in range(len(data)):
            ids = np.unique(data.labels(i))
            present[i, ids[ids >= 0]] = True
            advance(i + 1)
    return in_fold(present, share, seed, fold)


def in_fold(present: npt.NDArray[np.bool_], share: float, seed: int, fold: int) -> npt.NDArray[np.bool_]:
    """[images] which validate in a fold: the first is `stratified`'s choice, the others are equal parts of the rest."""
    left, count = np.arange(len(present)), num_folds(share)
    for k in range(fold + 1):
        part = 1 / (count - k) if k else share
        chosen = stratified(present[left], part, seed) if part < 1 else np.ones(len(left), np.bool_)
        if k < fold:
            left = left[~chosen]
    found = np.zeros(len(present), np.bool_)
    found[left[chosen]] = True
    return found


def stratified(present: npt.NDArray[np.bool_], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """[images] a choice of `share` of them, and of those of each class, given which classes each has [images, K].

    What no other image has is chosen last.
    """
    order = np.random.default_rng(seed).permutation(len(present))
    chosen, settled = np.zeros(len(present), np.bool_), np.zeros(len(present), np.bool_)
    counts = present.sum(0)
    order = order[np.argsort(present[order][:, counts == 1].any(1), kind="stable")]
    others = max(1, num_folds(share) - 1)  # parts, of which each needs an image
    wished = min(round(share * len(present), 3), len(present) - others)  # without what 1 / 3 was rounded by
    fewest, most = max(1, floor(wished)), max(1, ceil(wished))
    shares = np.rint(share * counts)

    def choose(images: npt.NDArray[np.int64], wanted: int) -> None:
        chosen[images[: max(0, min(wanted, most - int(chosen.sum())))]] = True

    def spared(image: int) -> bool:
        """Whether the shares of all classes can still be chosen after it."""
        wanted = shares - present[chosen].sum(0) - present[image]
        return bool(wanted.max() < most - chosen.sum())

    for k in np.argsort(counts, kind="stable"):
        mine = order[present[order, k]]
        if len(mine) > 1:
            free = mine[~settled[mine]]
            if shares[k]:
                choose(free, min(int(shares[k]), len(mine) - 1) - int(chosen[mine].sum()))
            elif not chosen[mine].any():
                choose(free[[spared(image) for image in free]], 1)
            settled[free] = True
    free = order[~settled[order]]
    choose(free, round(share * len(free)))
    choose(order[~chosen[order]], fewest - int(chosen.sum()))
    return chosen
