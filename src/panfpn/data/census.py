"""What there is to learn in a data set. In: some of its masks. Out: what is missing in them, in words."""

import filecmp
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from panfpn.data.checked import open_sample
from panfpn.data.dataset import Dataset, files_of
from panfpn.labels import IGNORE, LabelTable
from panfpn.types import Segments

_LOOKED_AT = 24  # masks, before a training begins
_SHOWN = 5
_OPENED = 4000  # pairs of files that are compared before a training begins
_HEAD = 1 << 14  # bytes by which most differ


@dataclass(frozen=True, slots=True, eq=False)
class Census:
    """Pixels of each class in some masks."""

    table: LabelTable
    counts: npt.NDArray[np.int64]  # [K + 1] of each train id, and of IGNORE
    looked_at: int
    total: int
    largest: tuple[int, int]  # height and width that no image exceeds

    def absent(self) -> tuple[str, ...]:
        """Classes that no pixel has."""
        return tuple(name for name, count in zip(self.table.names, self.counts, strict=False) if not count)

    def notes(self) -> list[str]:
        """What whoever trains on it should know. ValueError if there is nothing to learn in all of it."""
        absent, labelled = self.absent(), int(self.counts[:-1].sum())
        masks = f"{self.looked_at} masks" if self.looked_at == self.total else (
            f"the {self.looked_at} of {self.total} masks that were looked at")  # fmt: skip
        if not labelled and self.looked_at == self.total:
            raise ValueError(f"label table {self.table.name!r}: all pixels of {masks} are ignored, so there is nothing "
                             "to learn; look at the values in them and in the table")  # fmt: skip
        notes = []
        if absent:
            shown = ", ".join(map(repr, absent[:_SHOWN])) + (", …" if len(absent) > _SHOWN else "")
            share = self.counts[-1] / max(1, self.counts.sum())
            notes.append(f"note: {len(absent)} of {self.table.num_classes} classes have no pixel in {masks}: {shown} "
                         f"({share:.0%} of all pixels are ignored)")  # fmt: skip
        if len(absent) == self.table.num_classes - 1:
            (only,) = (name for name in self.table.names if name not in absent)
            notes.append(f"note: only {only!r} has pixels in {masks}, so there is nothing to tell apart")
        return notes


def census(dataset: Dataset, *, channels: int = 3, most: int = _LOOKED_AT) -> Census:
    """Count the classes in masks spread over a data set, and in more where all those are ignored wholly.

    ValueError as reading a sample gives it.
    """
    spread = np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int)).tolist()
    counts = np.zeros(dataset.table.num_classes + 1, np.int64)
    height, width, looked_at = 0, 0, 0
    for index in chain(spread, (i for i in range(len(dataset)) if i not in spread)):
        if looked_at >= len(spread) and counts[:-1].any():
            break
        looked_at += 1
        target = open_sample(dataset, index, channels=channels)[1]
        height, width = max(height, target.shape[0]), max(width, target.shape[1])
        labels = target.labels if isinstance(target, Segments) else target[:, :]
        counts += np.roll(np.bincount((labels - IGNORE).ravel(), minlength=len(counts)), -1)
    return Census(dataset.table, counts, looked_at, len(dataset), (height, width))


def same_images(one: Dataset, other: Dataset) -> list[tuple[str, str]]:
    """Names of samples whose image files are byte for byte the same in both.

    Only files of equal size are opened, a number of them at most: this is for every start of a training.
    """
    by_size: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for name, file in _image_files(one):
        by_size[file.stat().st_size].append((name, file))
    found: list[tuple[str, str]] = []
    opened = 0
    for name, file in _image_files(other):
        for its_name, its_file in by_size.get(file.stat().st_size, ()):
            opened += 1
            if opened > _OPENED:
                return found
            if _begin(file) == _begin(its_file) and filecmp.cmp(file, its_file, shallow=False):
                found.append((its_name, name))
                break
    return found


def _image_files(dataset: Dataset) -> Iterator[tuple[str, Path]]:
    for i in range(len(dataset)):
        file = files_of(dataset, i)[0]
        if file is not None and file.is_file():
            yield dataset.name(i), file


def _begin(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(_HEAD)
