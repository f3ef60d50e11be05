"""Counts of each image, from which scores per image, image-wise means and resampled sets follow.

In: the rows that a ConfusionMatrix or a PanopticQuality kept, or plain data. Out: what was counted per image and class.
"""

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from panfpn.metrics.counts import Counts, Floats, iou, means, quality

MOST_PIXELS = 1 << 53  # pixels, of which float64 counts every one


class Resampled(Protocol):
    """Counts of N images whose sums give a score, so that a bootstrap can draw from them."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the images."""

    @property
    def sums(self) -> Floats:
        """What is added up over images [N, F]."""

    @property
    def truth(self) -> Counts:
        """What the labels alone say [N, T]: equal for all models."""

    @staticmethod
    def score(sums: Floats) -> Floats:
        """The score [...] of added counts [..., F]."""

    def ordered(self, index: list[int]) -> Self:
        """The images with these numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class SegmentRows:
    """Matched, wrong and missed segments of N images."""

    names: tuple[str, ...]
    sums: Floats  # [N, 4K]: IoU of the matches, true positives, false positives, false negatives per class

    @property
    def truth(self) -> Counts:
        """True segments of each class [N, K], crowds left out."""
        _, hits, _, missed = np.split(self.sums, 4, axis=1)
        return (hits + missed).astype(np.int64)

    @staticmethod
    def score(sums: Floats) -> Floats:
        """PQ, the mean over the classes that occur."""
        return means(quality(*np.split(sums, 4, axis=-1))[0])

    def ordered(self, index: list[int]) -> "SegmentRows":
        """See `Resampled`."""
        return SegmentRows(tuple(self.names[i] for i in index), self.sums[index])

    def to_list(self) -> list[dict[str, Any]]:
        """Plain data: of each image only the classes that occur, as [class, sum of IoU, TP, FP, FN]."""
        table = np.stack(np.split(self.sums, 4, axis=1), -1)  # [N, K, 4]
        return [
            {"name": name, "classes": [[int(k), float(row[k, 0]), *row[k, 1:].astype(int).tolist()]
                                       for k in np.flatnonzero(row.any(-1))]}
            for name, row in zip(self.names, table, strict=True)
        ]  # fmt: skip

    @staticmethod
    def from_list(data: Any, num_classes: int, source: object = "images") -> "SegmentRows":
        """The rows of plain data; ValueError names `source` and the image whose entry cannot be one."""
        if not isinstance(data, list):
            raise ValueError(f"{source}: key 'images' is not a list")
        sums, names = np.zeros((len(data), 4, num_classes)), []
        for i, entry in enumerate(data):
            try:
                names.append(str(entry["name"]))
                for k, iou_sum, *counts in entry["classes"]:
                    whole = all(type(n) is int and 0 <= n <= MOST_PIXELS for n in (k, *counts))
                    if not whole or len(counts) != 3 or k >= num_classes or not 0 <= iou_sum <= counts[0]:
                        raise ValueError(f"class {k}: sum of IoU {iou_sum}, counts {counts}")
                    sums[i, :, k] = iou_sum, *counts
            except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
                raise ValueError(f"{source}: images[{i}] is not an image's segments ({error})") from error
        return SegmentRows(tuple(names), sums.reshape(len(data), -1))


@dataclass(frozen=True, slots=True, eq=False)
class ImageRows:
    """Counts of N images."""

    names: tuple[str, ...]
    rows: Counts  # [N, 3K + 1]: hits, predicted, true pixels per class; pixels that are not ignored

    @property
    def sums(self) -> Floats:
        """Hits, predicted and true pixels, [N, 3K]."""
        return self.rows[:, :-1].astype(np.float64)

    @property
    def truth(self) -> Counts:
        """True pixels of each class, and those that are not ignored [N, K + 1]."""
        return self.rows[:, -1 - (self.rows.shape[1] - 1) // 3 :]

    @staticmethod
    def score(sums: Floats) -> Floats:
        """mIoU, the mean over the classes that occur."""
        return means(iou(*np.split(sums, 3, axis=-1)))

    def ordered(self, index: list[int]) -> "ImageRows":
        """See `Resampled`."""
        return ImageRows(tuple(self.names[i] for i in index), self.rows[index])

    @property
    def pixels(self) -> Counts:
        """Pixels of each image that are not ignored [N]."""
        return self.rows[:, -1]

    @property
    def areas(self) -> tuple[Counts, Counts, Counts]:
        """Hits, predicted and true pixels, each [N, K]."""
        hits, predicted, true = np.split(self.rows[:, :-1], 3, axis=1)
        return hits, predicted, true

    @property
    def miou(self) -> Floats:
        """The mean IoU of each image [N]; nan where nothing is labelled or predicted."""
        return means(iou(*self.areas))

    def to_list(self) -> list[dict[str, Any]]:
        """Plain data: of each image only the classes that occur, as [class, hits, predicted, true]."""
        table = np.stack(self.areas, -1)  # [N, K, 3]
        return [
            {"name": name, "pixels": int(pixels),
             "classes": [[int(k), *row[k].tolist()] for k in np.flatnonzero(row.any(-1))]}
            for name, pixels, row in zip(self.names, self.pixels, table, strict=True)
        ]  # fmt: skip

    @staticmethod
    def from_list(data: Any, num_classes: int, source: object = "images") -> "ImageRows":
        """The rows of plain data; ValueError names `source` and the image whose entry cannot be one."""
        if not isinstance(data, list):
            raise ValueError(f"{source}: key 'images' is not a list")
        rows = np.zeros((len(data), 3 * num_classes + 1), np.int64)
        names = []
        for i, entry in enumerate(data):
            try:
                names.append(str(entry["name"]))
                if type(entry["pixels"]) is not int or not 0 <= entry["pixels"] <= MOST_PIXELS:
                    raise ValueError(f"pixels: {entry['pixels']}")
                rows[i, -1] = entry["pixels"]
                for k, hits, predicted, true in entry["classes"]:
                    if not 0 <= k < num_classes:
                        raise ValueError(f"class {k} of {num_classes}")
                    numbers = (k, hits, predicted, true)
                    whole = all(type(n) is int and n <= MOST_PIXELS for n in numbers)
                    if not whole or not 0 <= hits <= min(predicted, true):
                        raise ValueError(f"class {k}: hits {hits}, predicted {predicted}, true {true}")
                    rows[i, [k, num_classes + k, 2 * num_classes + k]] = hits, predicted, true
            except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
                raise ValueError(f"{source}: images[{i}] is not an image's counts ({error})") from error
        return ImageRows(tuple(names), rows)
