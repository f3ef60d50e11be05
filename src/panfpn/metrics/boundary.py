"""How well outlines are met: Boundary IoU and trimap IoU. In: label maps. Out: both scores per class.

Boundary IoU: Cheng et al., CVPR 2021 (arXiv 2103.16562). Trimap: Kohli et al., IJCV 2009.
"""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from panfpn.labels import IGNORE
from panfpn.metrics.counts import Counts, Floats, Labels, check_sizes, fold, iou, mean, plain, share

_OUTSIDE = -2  # beside the image: another label than any within
_SQUARE, _CROSS = np.ones((3, 3), np.uint8), np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
_PARTS = 5
_WIDEST = 100

Maps = npt.NDArray[np.int16]
Masks = npt.NDArray[np.bool_]


class BoundaryCounts:
    """Pixel counts per class over a set, int64 [5, K], which add up over parts of it.

    Rows: intersection and union of boundaries; hits, predicted and true pixels in the trimap. A class's boundary is
    what lies within `ratio` of the image's diagonal of another label or of the image's edge, the trimap what lies
    within `trimap_width` pixels of a change of label in the truth. Ignored pixels bound like a label of their own, in
    prediction and truth alike, and are not counted.
    """

    def __init__(self, num_classes: int, *, ratio: float = 0.02, trimap_width: int = 5) -> None:
        if not 0 < ratio < 1:
            raise ValueError(f"boundary ratio is {ratio}; it must be a share of the diagonal between 0 and 1")
        if not 1 <= trimap_width <= _WIDEST:
            raise ValueError(f"trimap width is {trimap_width}; it must be from 1 to {_WIDEST} pixels")
        self.ratio, self.trimap_width = ratio, trimap_width
        self.counts = np.zeros((_PARTS, num_classes), np.int64)

    def update(self, labels: Labels, target: Labels) -> None:
        """Add one image: predicted and true train ids [H, W]; ValueError if the shapes differ."""
        check_sizes(labels, target)
        if not target.size:
            return
        classes = self.counts.shape[1]
        true = fold(target, IGNORE, classes).astype(np.int16)  # [H, W]
        labelled = true != IGNORE
        # int16 on both sides: numpy does not put -1 into the uint8 of a prediction
        predicted = np.where(labelled, fold(labels, 0, classes).astype(np.int16), np.int16(IGNORE))  # [H, W]
        width = max(1, round(self.ratio * math.hypot(*target.shape)))
        true_edge, predicted_edge = labelled & _boundary(true, width), labelled & _boundary(predicted, width)
        shared = self._count(true[true_edge & predicted_edge & (true == predicted)])
        union = self._count(true[true_edge]) + self._count(predicted[predicted_edge]) - shared
        band = labelled & _near_change(true, self.trimap_width)
        hits = self._count(true[band & (true == predicted)])
        self.counts += np.stack([shared, union, hits, self._count(predicted[band]), self._count(true[band])])

    def _count(self, values: Maps) -> Counts:
        return np.bincount(values, minlength=self.counts.shape[1] + 1)[:-1].astype(np.int64)

    @property
    def boundary_iou(self) -> Floats:
        """Boundary IoU per class [K]; nan for a class that never occurs."""
        return share(self.counts[0], self.counts[1])

    @property
    def trimap_iou(self) -> Floats:
        """IoU inside the trimap per class [K]; nan for a class that never occurs there."""
        return iou(*self.counts[2:])

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain data: means, and both scores of each class."""
        pairs = zip(names, map(plain, self.boundary_iou), map(plain, self.trimap_iou), strict=True)
        return {
            "ratio": self.ratio, "trimap_width": self.trimap_width,
            "boundary_miou": plain(mean(self.boundary_iou)), "trimap_miou": plain(mean(self.trimap_iou)),
            "classes": {name: {"boundary_iou": b, "trimap_iou": t} for name, b, t in pairs},
        }  # fmt: skip


def _boundary(labels: Maps, width: int) -> Masks:
    """Where a square of `width` pixels around a pixel reaches another label or beyond the image [H, W].

    That is each class's mask without what `width` erosions with a 3 × 3 square leave, for all classes at once: the
    chessboard distance to another label is 1 more than that to a pixel that touches one.
    """
    padded = cv2.copyMakeBorder(labels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=_OUTSIDE)
    distance = cv2.distanceTransform(_alike(padded, _SQUARE), cv2.DIST_C, 3)
    return np.asarray(distance[1:-1, 1:-1] < width)


def _near_change(labels: Maps, width: int) -> Masks:
    """Pixels less than `width` (Euclidean) from one beside which the label changes: `width` to either side [H, W]."""
    reach = np.arange(1 - width, width)
    disc = np.hypot(*np.meshgrid(reach, reach)) < width  # [2 width - 1, 2 width - 1]
    return cv2.dilate(1 - _alike(labels, _CROSS), disc.astype(np.uint8)) > 0  # type: ignore[no-any-return]


def _alike(labels: Maps, around: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """1 where all neighbours have the pixel's label, else 0 [H, W]."""
    return np.asarray(cv2.dilate(labels, around) == cv2.erode(labels, around), np.uint8)
