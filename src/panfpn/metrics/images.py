"""Counts of each image, from which scores per image, image-wise means and resampled sets follow.

In: the rows that a ConfusionMatrix kept, or plain data. Out: hits, predicted and true pixels per image and class.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from panfpn.metrics.counts import Counts, Floats, iou, means

MOST_PIXELS = 1 << 53  # pixels, of which float64 counts every one


@dataclass(frozen=True, slots=True, eq=False)
class ImageRows:
    """Counts of N images."""

    names: tuple[str, ...]
    rows: Counts  # [N, 3K + 1]: hits, predicted, true pixels per class; pixels that are not ignored

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
