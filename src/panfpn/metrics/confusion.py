"""Semantic scores from one running confusion matrix. In: label maps. Out: IoU, accuracy, F-score, per class and mean.

mIoU, mAcc and aAcc are those of mmsegmentation: counts over the whole set, absent classes left out of the mean.
protocols.py has its other scores and those of other evaluators.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from panfpn.labels import IGNORE
from panfpn.metrics.boundary import BoundaryCounts
from panfpn.metrics.counts import Counts, Floats, Labels, areas, check_sizes, fold, iou, mean, plain, share
from panfpn.metrics.images import ImageRows


class ConfusionMatrix:
    """Counts of (true class, predicted class) over the pixels that are not ignored.

    `counts` is int64 [K + 1, K + 1]: row K counts true values that are no class, column K predicted ones. `rows` is
    int64 [N, 3K + 1], an `ImageRows` row for each of `num_images` images. Both add up over parts of a set.
    """

    def __init__(self, num_classes: int, num_images: int = 0) -> None:
        self.counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
        self.rows = np.zeros((num_images, 3 * num_classes + 1), np.int64)

    def update(self, labels: Labels, target: Labels, image: int | None = None) -> float:
        """Add one image: predicted and true train ids [H, W]; pixels with target IGNORE do not count.

        `image` says which of `rows` is its. Returns the image's own mean IoU (nan if no pixel is labelled). ValueError
        if the shapes differ.
        """
        check_sizes(labels, target)
        size = len(self.counts)
        true, found = fold(target, IGNORE, size - 1), fold(labels, 0, size - 1)
        # One count over both maps; ignored pixels fall into a row of their own, which is cheaper than leaving them out.
        index = (true.astype(np.int32) - IGNORE) * size + found.astype(np.int32)  # [H, W]
        counts = np.bincount(index.ravel(), minlength=(size + 1) * size).reshape(size + 1, size)[1:]
        self.counts += counts
        parts = areas(counts)
        if image is not None:
            self.rows[image] = np.concatenate([*parts, [counts.sum()]])
        return mean(iou(*parts))

    def scores(self, names: Sequence[str]) -> "SemanticScores":
        """The scores so far."""
        return SemanticScores(names=tuple(names), counts=self.counts.copy())


@dataclass(frozen=True, eq=False)
class SemanticScores:
    """Scores of a data set, each as a share from 0 to 1; nan for a class that never occurs."""

    names: tuple[str, ...]
    counts: Counts  # [K + 1, K + 1], true class by predicted class; the last row and column: no class
    images: ImageRows | None = None
    boundary: BoundaryCounts | None = None

    headline: ClassVar[str] = "mIoU"

    @property
    def pixels(self) -> Counts:
        """True pixels per class [K]."""
        return areas(self.counts)[2]

    @property
    def iou(self) -> Floats:
        """Intersection over union per class [K]."""
        return iou(*areas(self.counts))

    @property
    def accuracy(self) -> Floats:
        """Share of each true class that was found (recall) [K]."""
        hits, _, true = areas(self.counts)
        return share(hits, true)

    @property
    def precision(self) -> Floats:
        """Share of each predicted class that is true [K]."""
        hits, found, _ = areas(self.counts)
        return share(hits, found)

    @property
    def fscore(self) -> Floats:
        """Harmonic mean of precision and recall (Dice) per class [K]."""
        hits, found, true = areas(self.counts)
        return share(2 * hits, found + true)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in truth or prediction."""
        return mean(self.iou)

    @property
    def macc(self) -> float:
        """Mean accuracy over the classes that occur in the truth."""
        return mean(self.accuracy)

    @property
    def mfscore(self) -> float:
        """Mean F-score over the classes that occur in the truth, 0 for one that is never hit (mmseg leaves it out)."""
        return mean(np.where(self.pixels > 0, self.fscore, np.nan))

    @property
    def aacc(self) -> float:
        """Share of all pixels of a true class that are right."""
        hits, _, true = areas(self.counts)
        return float(share(hits.sum(), true.sum()))

    @property
    def fwiou(self) -> float:
        """IoU weighted by how often a class is true."""
        return float(share(np.nansum(self.iou * self.pixels), self.pixels.sum()))

    @property
    def value(self) -> float:
        """The mean IoU, by which the best weights are chosen."""
        return self.miou

    def summary(self) -> str:
        """One line for a log."""
        return f"mIoU {self.miou:.4f}  mAcc {self.macc:.4f}  aAcc {self.aacc:.4f}"

    def row(self) -> dict[str, Any]:
        """What metrics.jsonl holds of one validation: means, and IoU of each class."""
        means = {key: plain(getattr(self, key)) for key in ("miou", "macc", "aacc", "fwiou", "mfscore")}
        return means | {"iou": dict(zip(self.names, map(plain, self.iou), strict=True))}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the images and boundaries; a class that never occurs has null scores."""
        rows = zip(self.names, self.iou, self.accuracy, self.precision, self.fscore, self.pixels, strict=True)
        keys = ("iou", "accuracy", "precision", "fscore")
        return {
            "miou": plain(self.miou), "macc": plain(self.macc), "aacc": plain(self.aacc),
            "fwiou": plain(self.fwiou), "mfscore": plain(self.mfscore),
            "classes": {
                name: dict(zip(keys, map(plain, values), strict=True)) | {"pixels": int(pixels)}
                for name, *values, pixels in rows
            },
            "confusion": self.counts.tolist(),
        }  # fmt: skip

    @staticmethod
    def from_dict(
        data: Mapping[str, Any], names: Sequence[str] | None = None, source: object = "scores"
    ) -> "SemanticScores":
        """The scores of plain data, with the images if it has any; `names` where the data may have lost their order.

        A confusion `[K][K]`, as older files hold it, counts no value that is no class. ValueError names `source` and
        the key that is missing or wrong.
        """
        missing = [key for key in ("classes", "confusion") if key not in data]
        if missing and "pq" in data:
            raise ValueError(f"{source}: holds the scores of a Panoptic FPN (PQ), not those of a Semantic FPN")
        if missing:
            raise ValueError(f"{source}: has no key {missing[0]!r}, so it holds no scores")
        names = tuple(data["classes"] if names is None else names)
        try:
            counts = np.array(data["confusion"], np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{source}: key 'confusion' is not a table of counts ({error})") from error
        classes = len(names)
        if counts.shape == (classes, classes):
            counts = np.pad(counts, (0, 1))
        if counts.shape != (classes + 1, classes + 1):
            raise ValueError(f"{source}: key 'confusion' is {list(counts.shape)}, which does not fit {classes} classes")
        images = ImageRows.from_list(data["images"], classes, source) if "images" in data else None
        return SemanticScores(names=names, counts=counts, images=images)
