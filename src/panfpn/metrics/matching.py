"""Which predicted segment matches which true one. In: a pair of panoptic maps. Out: overlaps and IoU.

The rule is that of panopticapi (Kirillov et al., CVPR 2019, arXiv 1801.00868).
"""

import numpy as np

from panfpn.labels import IGNORE
from panfpn.metrics.counts import Counts, Floats, check_sizes, share
from panfpn.types import Segments


def count_overlaps(prediction: Segments, target: Segments) -> Counts:
    """Pixels [T + 1, P + 1] that a true and a predicted segment share; row and column 0 are void."""
    check_sizes(prediction.index, target.index)
    shape = len(target.classes) + 1, len(prediction.classes) + 1
    # One count over both maps, without a sort: 32,767 segments each way still fit into int32.
    index = np.multiply(target.index, shape[1], dtype=np.int32)  # [H, W]
    index += prediction.index
    index += 1 - IGNORE * shape[1]
    return np.bincount(index.ravel(), minlength=shape[0] * shape[1]).reshape(shape)


def matched_iou(overlaps: Counts, prediction: Segments, target: Segments) -> Floats:
    """IoU [T, P] of the pairs that match, 0 elsewhere: no crowd, of one class, IoU over a half without void pixels.

    Segments do not overlap, so a row and a column hold at most one match.
    """
    shared = overlaps[1:, 1:]
    void = overlaps[0, 1:]
    union = overlaps[1:].sum(1)[:, None] + overlaps[:, 1:].sum(0) - shared - void
    able = (2 * shared > union) & (target.classes[:, None] == prediction.classes) & ~target.crowd[:, None]
    return np.where(able, share(shared, union), 0)
