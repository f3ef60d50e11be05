"""What all scores are made of: pixel counts, and shares of them. In: label maps, counts. Out: counts, float64 shares.

A share of nothing is nan, and a mean leaves nan out: the convention of mmsegmentation.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Labels = npt.NDArray[np.integer[Any]]


def check_sizes(labels: Labels, target: Labels) -> None:
    """ValueError if prediction and truth differ in size."""
    if labels.shape != target.shape:
        raise ValueError(f"prediction {labels.shape} and truth {target.shape} have different sizes")


def fold(values: Labels, lowest: int, num_classes: int) -> Labels:
    """The same map with every value outside `lowest` … K - 1 replaced by K."""
    if values.min(initial=0) >= lowest and values.max(initial=0) < num_classes:
        return values  # the usual case, without a copy
    known = (values >= lowest) & (values < num_classes)
    return np.where(known, values.astype(np.int64), num_classes)


def areas(counts: Counts) -> tuple[Counts, Counts, Counts]:
    """Hits, predicted and true pixels per class [K] of a confusion matrix [K + 1, K + 1].

    What is predicted on a true value that is no class counts as predicted, as in mmsegmentation.
    """
    return np.diag(counts)[:-1], counts.sum(0)[:-1], counts.sum(1)[:-1]


def share(part: Any, whole: Any) -> Floats:
    """`part` / `whole`, nan where `whole` is not above 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(np.asarray(whole) > 0, np.true_divide(part, whole), np.nan), np.float64)


def iou(hits: Any, predicted: Any, true: Any) -> Floats:
    """Intersection over union of hits, predicted and true pixels."""
    return share(hits, predicted + true - hits)


def quality(iou_sum: Any, hits: Any, wrong: Any, missed: Any) -> tuple[Floats, Floats, Floats]:
    """PQ, SQ, RQ [K]; nan for a class that does not occur, SQ 0 for one that does and is never matched."""
    weight = hits + wrong / 2 + missed / 2
    sq = np.where((weight > 0) & (hits == 0), 0, share(iou_sum, hits))
    return share(iou_sum, weight), sq, share(hits, weight)


def means(values: Floats) -> Floats:
    """Means over the last axis, without nan; nan where there is nothing else."""
    return share(np.nansum(values, -1), (~np.isnan(values)).sum(-1))


def mean(values: Floats) -> float:
    """The mean without nan; nan if there is nothing else."""
    return float(means(values.ravel()))


def plain(value: float) -> float | None:
    """A number for JSON, which knows no nan."""
    return None if np.isnan(value) else float(value)
