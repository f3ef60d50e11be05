"""From a panoptic network's dense maps to detections. In: views of one image. Out: boxes, scores, classes, masks."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from panfpn.config import Inference
from panfpn.models import PanopticFPN
from panfpn.models.instance import BOX_SIDE, MASK_SIDE, candidates, choose_boxes, decode_detections, propose
from panfpn.models.merge import paste_mask
from panfpn.models.panoptic import DenseMaps
from panfpn.ops import Size
from panfpn.ops.boxes import clip_boxes, has_area, mirror_boxes, pool_boxes, scale_boxes
from panfpn.types import Detections


@dataclass(frozen=True, slots=True, eq=False)
class DenseView:
    """What the network gives for images at one size."""

    maps: DenseMaps
    size: Size
    mirrored: bool = False


def of_image(maps: DenseMaps, index: int) -> DenseMaps:
    """The maps of one image of a batch, B = 1."""
    part = slice(index, index + 1)
    return DenseMaps(maps.semantic[part], *([m[part] for m in level] for level in maps[1:]))


def detect(
    model: PanopticFPN, views: list[DenseView], size: Size, settings: Inference, *, mask_score: float,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Detections:  # fmt: skip
    """Detections in the image of `size`, from its views (B = 1), which may differ in size and be mirrored.

    Masks are made only for those with a score of at least `mask_score`. `autocast` gives the context of the heads.
    """
    first = views[0].size
    boxes, scores = [], []
    for view in views:
        anchors = candidates(view.maps.objectness, view.maps.deltas, model.anchor_scale, model.stride)
        proposals = propose(anchors, 0, view.size)
        with autocast():
            logits, deltas = model.box_head(pool_boxes(view.maps.pyramid, [proposals.boxes], BOX_SIDE, model.stride))
        box, score = decode_detections(logits, deltas, proposals.boxes, view.size)
        boxes.append(_between(box, view, first))
        scores.append(score.where(proposals.valid[:, None], 0))
    box, score, label = choose_boxes(
        torch.cat(boxes), torch.cat(scores), score=settings.box_score, nms=settings.nms,
        nms_over_classes=settings.nms_over_classes, most=settings.detections,
    )  # fmt: skip
    final = clip_boxes(scale_boxes(box, first, size), size)
    kept = has_area(final).nonzero()[:, 0]
    columns = torch.cat([final, score[:, None], label[:, None]], 1)[kept].cpu().numpy()  # in one wait for a device
    corners, values, labels = np.ascontiguousarray(columns[:, :4]), columns[:, 4].copy(), columns[:, 5].astype(np.int64)
    strong = int((values >= mask_score).sum())  # scores fall
    with autocast():
        probabilities = _masks(model, views, box[kept[:strong]], label[kept[:strong]]).cpu().numpy()
    masks = tuple(paste_mask(p, b, size) for p, b in zip(probabilities, corners, strict=False))
    classes = np.array(model.thing_ids, np.int16)[labels]
    return Detections(boxes=corners, scores=values, classes=classes, masks=masks)


def _masks(model: PanopticFPN, views: list[DenseView], boxes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Probabilities [N, 28, 28] of the masks in boxes [N, 4] of the first view, mean over the views."""
    total = boxes.new_zeros((len(boxes), 2 * MASK_SIDE, 2 * MASK_SIDE))
    if not len(boxes):
        return total
    first = replace(views[0], mirrored=False)
    for view in views:
        in_view = _between(boxes, replace(first, mirrored=view.mirrored), view.size)
        logits = model.mask_head(pool_boxes(view.maps.pyramid, [in_view], MASK_SIDE, model.stride), labels)
        probabilities = logits.float().sigmoid()
        total += probabilities.flip(-1) if view.mirrored else probabilities
    return total / len(views)


def _between(boxes: torch.Tensor, view: DenseView, size: Size) -> torch.Tensor:
    """Boxes [..., 4] of a view, mirrored back if it is mirrored, as boxes of the image at `size`."""
    if view.mirrored:
        boxes = mirror_boxes(boxes, view.size[1])
    return boxes if view.size == size else scale_boxes(boxes, view.size, size)
