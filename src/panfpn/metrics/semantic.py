"""Semantic scores from one running confusion matrix. In: label maps. Out: IoU, accuracy, F-score, per class and mean.

mIoU, mAcc and aAcc are those of mmsegmentation: counts over the whole set, absent classes left out of the mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class ConfusionMatrix:
    """Counts of (true class, predicted class) over labelled pixels, int64 [K, K]: all the memory it takes."""

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def update(self, labels: npt.NDArray[np.integer[Any]], target: npt.NDArray[np.integer[Any]]) -> float:
        """Add one image: predicted and true train ids [H, W]; pixels with target < 0 do not count.

        Returns the image's own mean IoU (nan if no pixel is labelled). ValueError if the shapes differ.
        """
        if labels.shape != target.shape:
            raise ValueError(f"prediction {labels.shape} and truth {target.shape} have different sizes")
        classes = len(self.counts)
        seen = target >= 0
        true, found = target[seen].astype(np.int32), labels[seen]
        if true.size and (found.min() < 0 or max(true.max(), found.max()) >= classes):
            raise ValueError(f"a predicted or true class is not from 0 to {classes - 1}, the last of {classes} classes")
        counts = np.bincount(true * classes + found, minlength=classes * classes).reshape(classes, classes)
        self.counts += counts
        return float(_mean(_iou(counts)))

    def scores(self, names: Sequence[str]) -> "SemanticScores":
        """The scores so far."""
        return SemanticScores(names=tuple(names), counts=self.counts.copy())


@dataclass(frozen=True, eq=False)
class SemanticScores:
    """Scores of a data set, each as a share from 0 to 1; nan for a class that never occurs."""

    names: tuple[str, ...]
    counts: npt.NDArray[np.int64]  # [K, K], true class by predicted class

    @property
    def iou(self) -> Floats:
        """Intersection over union per class [K]."""
        return _iou(self.counts)

    @property
    def accuracy(self) -> Floats:
        """Share of each true class that was found (recall) [K]."""
        return _share(np.diag(self.counts), self.counts.sum(1))

    @property
    def precision(self) -> Floats:
        """Share of each predicted class that is true [K]."""
        return _share(np.diag(self.counts), self.counts.sum(0))

    @property
    def fscore(self) -> Floats:
        """Harmonic mean of precision and recall (Dice) per class [K]."""
        return _share(2 * np.diag(self.counts), self.counts.sum(0) + self.counts.sum(1))

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in truth or prediction."""
        return _mean(self.iou)

    @property
    def macc(self) -> float:
        """Mean accuracy over the classes that occur in the truth."""
        return _mean(self.accuracy)

    @property
    def mfscore(self) -> float:
        """Mean F-score over the classes that occur in the truth, as in mmsegmentation."""
        return _mean(np.where(self.counts.sum(1) > 0, self.fscore, np.nan))

    @property
    def aacc(self) -> float:
        """Share of all labelled pixels that are right."""
        return float(_share(np.trace(self.counts), self.counts.sum()))

    @property
    def fwiou(self) -> float:
        """IoU weighted by how often a class is true."""
        weights = self.counts.sum(1)
        return float(_share(np.nansum(self.iou * weights), weights.sum()))

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a class that never occurs has null scores."""
        rows = zip(self.names, self.iou, self.accuracy, self.precision, self.fscore, self.counts.sum(1), strict=True)
        keys = ("iou", "accuracy", "precision", "fscore")
        return {
            "miou": _plain(self.miou), "macc": _plain(self.macc), "aacc": _plain(self.aacc),
            "fwiou": _plain(self.fwiou), "mfscore": _plain(self.mfscore),
            "classes": {
                name: dict(zip(keys, map(_plain, values), strict=True)) | {"pixels": int(pixels)}
                for name, *values, pixels in rows
            },
            "confusion": self.counts.tolist(),
        }  # fmt: skip


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _share(part: Any, whole: Any) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(np.asarray(whole) > 0, np.true_divide(part, whole), np.nan), np.float64)


def _iou(counts: npt.NDArray[np.int64]) -> Floats:
    hits = np.diag(counts)
    return _share(hits, counts.sum(0) + counts.sum(1) - hits)


def _mean(values: Floats) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
