"""What the instance branch learns from. In: the segments of a crop. Out: Instances, each a mask in its tight box."""

import numpy as np
import torch

from panfpn.data.segments import things_in
from panfpn.labels import LabelTable
from panfpn.types import Instances, Segments


def instances_of(segments: Segments, table: LabelTable) -> Instances:
    """The things among segments [H, W] in the order of classes, then the crowds; those without a pixel vanish.

    A box reaches from a mask's first pixel to after its last. All boxes come from the runs of equal pixels in rows:
    one pass over the pixels, however many things there are.
    """
    index, width = segments.index, segments.shape[1]
    begins = np.ones(index.shape, np.bool_)  # [H, W] where a run begins: every row begins one
    np.not_equal(index[:, 1:], index[:, :-1], out=begins[:, 1:])
    first = np.flatnonzero(begins)  # [runs]
    end = np.append(first[1:], index.size)
    segment = index.ravel()[first]  # [runs] the segment of each, IGNORE where void
    is_thing = things_in(table)[np.append(segments.classes, np.int16(-1))[segment]]
    first, end, segment = first[is_thing], end[is_thing], segment[is_thing]
    # Stable: runs of a thing stay in the order of rows.
    order = np.lexsort((segment, segments.classes[segment], segments.crowd[segment]))
    first, end, segment = first[order], end[order], segment[order]
    begin = np.flatnonzero(np.diff(segment, prepend=-1))  # [things] where the runs of each begin
    if not len(begin):
        return no_instances()
    last = np.append(begin[1:], len(segment)) - 1
    top, bottom = first[begin] // width, first[last] // width + 1
    row = first // width * width
    left, right = np.minimum.reduceat(first - row, begin), np.maximum.reduceat(end - row, begin)
    kept, boxes = segment[begin], np.stack([left, top, right, bottom], 1)
    bits = [index[t:b, lo:r] == k for k, (lo, t, r, b) in zip(kept.tolist(), boxes.tolist(), strict=True)]
    return Instances(
        boxes=torch.from_numpy(boxes.astype(np.float32)),
        classes=torch.from_numpy(segments.classes[kept].astype(np.int64)),
        bits=torch.from_numpy(np.concatenate([mask.ravel() for mask in bits]).view(np.uint8)),
        num_crowds=int(segments.crowd[kept].sum()),
    )


def no_instances() -> Instances:
    """Of an image without any."""
    return Instances(
        boxes=torch.empty(0, 4), classes=torch.empty(0, dtype=torch.int64), bits=torch.empty(0, dtype=torch.uint8),
        num_crowds=0,
    )  # fmt: skip
