"""A running confusion matrix. In: label maps, image by image. Out: counts, from which SemanticScores follow."""

from collections.abc import Sequence

import numpy as np

from panfpn.labels import IGNORE
from panfpn.metrics.counts import Labels, areas, check_sizes, fold, iou, mean
from panfpn.metrics.semantic_scores import SemanticScores


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

        `image` says which of `rows` is its. Returns the mean IoU of this image alone (nan if no pixel is labelled).
        ValueError if the shapes differ.
        """
        check_sizes(labels, target)
        size = len(self.counts)
        true, predicted = fold(target, IGNORE, size - 1), fold(labels, 0, size - 1)
        # One count over both maps; ignored pixels fall into a row of their own, which is cheaper than leaving them out.
        index = (true.astype(np.int32) - IGNORE) * size + predicted.astype(np.int32)  # [H, W]
        counts = np.bincount(index.ravel(), minlength=(size + 1) * size).reshape(size + 1, size)[1:]
        self.counts += counts
        parts = areas(counts)
        if image is not None:
            self.rows[image] = np.concatenate([*parts, [counts.sum()]])
        return mean(iou(*parts))

    def scores(self, names: Sequence[str]) -> SemanticScores:
        """The scores so far."""
        return SemanticScores(names=tuple(names), counts=self.counts.copy())
