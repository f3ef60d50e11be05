"""Panoptic Quality from running sums over segments. In: pairs of panoptic maps. Out: PQ, SQ, RQ, per class and mean.

The counts are those of panopticapi (Kirillov et al., CVPR 2019, arXiv 1801.00868), to its treatment of void and crowd.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from panfpn.labels import IGNORE
from panfpn.metrics.counts import Counts, Floats, mean, quality
from panfpn.metrics.matching import count_overlaps, matched_iou
from panfpn.metrics.panoptic_scores import PanopticScores
from panfpn.types import Segments

Masks = npt.NDArray[np.bool_]


class PanopticQuality:
    """Sums per class over a set, which add up over parts of it: `iou_sum` float64 [K], the others int64 [K].

    Of `num_images`, those of each are kept too, float64 [N, 4K].
    """

    def __init__(self, num_classes: int, num_images: int = 0) -> None:
        self.rows = np.zeros((num_images, 4 * num_classes))
        self.iou_sum = np.zeros(num_classes)
        self.true_positives = np.zeros(num_classes, np.int64)
        self.false_positives = np.zeros(num_classes, np.int64)
        self.false_negatives = np.zeros(num_classes, np.int64)

    @property
    def sums(self) -> tuple[Floats, Counts, Counts, Counts]:
        """The four arrays themselves, to be added up over ranks in place."""
        return self.iou_sum, self.true_positives, self.false_positives, self.false_negatives

    def update(self, prediction: Segments, target: Segments, index: int | None = None) -> float:
        """Add one image; returns the mean PQ of this image alone (nan if no segment counts).

        `index` is its number among the images of which the sums are kept.

        A true segment without a pixel is missed, as panopticapi counts it; a predicted one is none. ValueError if the
        sizes differ or a segment has no class.
        """
        classes = len(self.iou_sum)
        for name, segments in (("predicted", prediction), ("true", target)):
            bad = np.flatnonzero((segments.classes < 0) | (segments.classes >= classes))
            if bad.size:
                raise ValueError(
                    f"{name} segment {segments.ids[bad[0]]} has class {segments.classes[bad[0]]}, which is not one of "
                    f"the {classes} classes; leave it void"
                )
        overlaps = count_overlaps(prediction, target)
        shares = matched_iou(overlaps, prediction, target)  # [T, P]
        hit, hit_by = np.nonzero(shares)
        missed = ~target.crowd
        missed[hit] = False
        wrong = ~_excused(overlaps, prediction, target)
        wrong[hit_by] = False
        parts = (
            np.bincount(target.classes[hit], shares[hit, hit_by], classes),
            np.bincount(target.classes[hit], minlength=classes),
            np.bincount(prediction.classes[wrong], minlength=classes),
            np.bincount(target.classes[missed], minlength=classes),
        )
        for total, part in zip(self.sums, parts, strict=True):
            total += part
        if index is not None:
            self.rows[index] += np.concatenate(parts)
        return mean(quality(*parts)[0])

    def scores(self, names: Sequence[str], things: npt.ArrayLike) -> PanopticScores:
        """The scores so far; `things` [K] says which classes are things."""
        iou_sum, hits, wrong, missed = self.sums
        return PanopticScores(
            names=tuple(names), things=np.array(things, bool), iou_sum=iou_sum.copy(), true_positives=hits.copy(),
            false_positives=wrong.copy(), false_negatives=missed.copy(),
        )  # fmt: skip


def _excused(overlaps: Counts, prediction: Segments, target: Segments) -> Masks:
    """Predicted segments [P] that are no false positives: over a half lies in void and the class's crowd, or no pixel.

    Of several crowd segments of a class the last one counts, as in panopticapi.
    """
    crowds = np.flatnonzero(target.crowd)
    last = np.full(1 + max(target.classes.max(initial=0), prediction.classes.max(initial=0)), IGNORE)  # by class
    last[target.classes[crowds]] = crowds
    row = last[prediction.classes] + 1  # [P], 0 (void) for a class without a crowd
    columns = np.arange(1, len(prediction.classes) + 1)
    inside = overlaps[0, 1:] + np.where(row > 0, overlaps[row, columns], 0)
    area = overlaps[:, 1:].sum(0)
    return np.asarray((2 * inside > area) | (area == 0))
