"""From things and stuff to one panoptic map. In: scored masks that overlap, semantic labels. Out: segments that do not.

Paper §4.1, after Kirillov et al., Panoptic Segmentation; detectron2's order and thresholds (docs/facts.md, C4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from panfpn.labels import IGNORE
from panfpn.ops.paste import Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRules:
    """What enters a panoptic map; the usual numbers stand in `panfpn.config.Inference`."""

    confidence: float
    """Things with a lower score are left out."""
    overlap: float
    """A thing is left out if more than this share of it is covered by better ones; else it gets what is free of it."""
    stuff_area: int
    """A class of stuff is left out if it has fewer free pixels."""


def merge(
    scores: Sequence[float] | npt.NDArray[np.float32],
    classes: Sequence[int] | npt.NDArray[np.int16],
    masks: Sequence[Mask],
    semantic: npt.NDArray[np.integer],
    rules: MergeRules,
) -> tuple[npt.NDArray[np.int32], list[tuple[int, int]]]:
    """Segments [H, W] numbered from 1 (0 is void), and of each its class and the number of its thing (−1 for stuff).

    Things (train ids `classes`, falling `scores`) come first, in their order: in conflicts the better one wins, and
    things win against stuff. Then the classes of `semantic` [H, W] in rising order; IGNORE stays void. ValueError if
    scores rise.
    """
    if any(first < second for first, second in pairwise(scores)):
        raise ValueError("scores rise; sort the things by falling score")
    segments = np.zeros(semantic.shape, np.int32)
    info: list[tuple[int, int]] = []
    for number, (score, label, (top, left, mask)) in enumerate(zip(scores, classes, masks, strict=True)):
        if score < rules.confidence:
            break
        area = np.count_nonzero(mask)
        if not area:
            continue
        window = segments[top : top + mask.shape[0], left : left + mask.shape[1]]
        free = mask & (window == 0)
        if (area - np.count_nonzero(free)) / area > rules.overlap:
            continue
        info.append((int(label), number))
        window[free] = len(info)
    left_over = np.where(segments == 0, semantic, IGNORE).astype(np.int64)
    counts = np.bincount(left_over.ravel() - IGNORE)[-IGNORE:]  # free pixels of each class
    numbers = np.zeros(len(counts) + 1, np.int32)  # the last entry is IGNORE's
    for label in np.flatnonzero(counts >= max(1, rules.stuff_area)).tolist():
        info.append((label, -1))
        numbers[label] = len(info)
    segments += numbers[left_over]
    return segments, info
