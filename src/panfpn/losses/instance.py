"""Losses of the instance branch. In: scores and deltas of anchors and boxes, and the instances. Out: scalars.

Assignment, sampling and denominators are detectron2's (docs/facts.md, C2), which are the paper's (§3.2). Crowds are
neither things nor background: what they cover is not sampled. On a device the host knows every shape (see `Slots`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torchvision.ops import box_iou

from panfpn.labels import IGNORE
from panfpn.losses.slots import draw
from panfpn.ops.boxes import BOX_WEIGHTS, RPN_WEIGHTS, covered_share, encode_boxes
from panfpn.types import Instances

ANCHORS = 256  # sampled of an image, at most half of them on things
_RPN_IOU = (0.3, 0.7)  # below: background; from here on: a thing
_BOX_IOU, _THINGS_SHARE = 0.5, 0.25
_CROWDED = 0.5  # share of a box within a crowd from which on it is not background
_NOT_SAMPLED, _BACKGROUND = -1, -2  # labels of boxes that are on no thing
_NO_LABEL = -100  # of a slot that no loss counts
MASK_TARGET = 28
_SAMPLES = 2  # along a side of a target's pixel


def rpn_losses(
    anchors: torch.Tensor, logits: torch.Tensor, deltas: torch.Tensor, instances: tuple[Instances, ...]
) -> dict[str, torch.Tensor]:
    """Cross-entropy of objectness and L1 of deltas of sampled anchors, both divided by 256 · B.

    `anchors` [A, 4], `logits` [B, A], `deltas` [B, A, 4], `instances` of each image.
    """
    objectness, steps = logits.new_zeros(()), logits.new_zeros(())
    for truth, logit, delta in zip(instances, logits, deltas, strict=True):
        boxes, _ = _singles(truth)
        labels, matched = match_anchors(anchors, truth)
        slots = draw(labels == 1, labels == 0, ANCHORS, ANCHORS // 2 if len(boxes) else 0)
        objectness = objectness + F.binary_cross_entropy_with_logits(
            logit[slots.members], slots.positive.float(), weight=slots.valid.float(), reduction="sum"
        )
        first = slots.members[: slots.num_first]
        target = encode_boxes(anchors[first], boxes[matched[first]], RPN_WEIGHTS)
        steps = steps + _distance(delta[first], target, slots.positive[: slots.num_first])
    count = ANCHORS * len(instances)
    return {"rpn_class": objectness / count, "rpn_box": (steps + 0 * deltas.sum()) / count}


def _distance(deltas: torch.Tensor, targets: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Sum of the absolute differences [F, 4] in the counted rows [F]."""
    return (deltas - targets).where(counted[:, None], 0).abs().sum()


@torch.no_grad()
def match_anchors(anchors: torch.Tensor, instances: Instances) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each anchor [A]: 1 on a thing, 0 on background, −1 between; and which thing that is not a crowd it is nearest.

    The best anchors of a thing are on it however bad they are.
    """
    boxes, _ = _singles(instances)
    labels = torch.zeros(len(anchors), dtype=torch.int8, device=anchors.device)
    matched = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    if len(boxes):
        iou = box_iou(boxes, anchors)  # [N, A]
        best, matched = iou.max(0)
        nearest = iou.max(1).values[:, None]
        labels = labels.masked_fill(best >= _RPN_IOU[0], _NOT_SAMPLED).masked_fill(best >= _RPN_IOU[1], 1)
        labels = labels.masked_fill(((iou == nearest) & (nearest > 0)).any(0), 1)
    return _without_crowded(labels, anchors, instances, 0), matched


def _singles(instances: Instances) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes [N, 4] and classes [N] of those that are no crowd."""
    count = len(instances.boxes) - instances.num_crowds
    return instances.boxes[:count], instances.classes[:count]


def _without_crowded(labels: torch.Tensor, boxes: torch.Tensor, instances: Instances, background: int) -> torch.Tensor:
    """Labels of boxes [N]; background that lies in a crowd is not sampled."""
    if not instances.num_crowds:
        return labels
    crowds = instances.boxes[-instances.num_crowds :]
    crowded = (covered_share(boxes, crowds) > _CROWDED).any(1)
    return labels.masked_fill((labels == background) & crowded, _NOT_SAMPLED)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BoxSample:
    """Boxes of one image from which the box and mask heads learn, in `Slots`: the first F may be on things."""

    boxes: torch.Tensor  # [R, 4]
    labels: torch.Tensor  # int64 [R] train ids; IGNORE for background
    valid: torch.Tensor  # bool [R]
    positive: torch.Tensor  # bool [F]
    targets: torch.Tensor  # [F, 4] the true boxes
    masks: torch.Tensor  # float32 [F, 28, 28] 0 or 1


@torch.no_grad()
def sample_boxes(
    proposals: torch.Tensor, instances: Instances, count: int, valid: torch.Tensor | None = None
) -> BoxSample:
    """`count` of the proposals [N, 4] and the true boxes, at most a quarter of them on things (IoU from 0.5 on).

    Proposals that are not `valid` (bool [N]) are not sampled.
    """
    boxes, classes = _singles(instances)
    proposals = torch.cat([proposals, boxes])
    labels = torch.full((len(proposals),), _BACKGROUND, dtype=torch.int64, device=proposals.device)
    matched = torch.zeros_like(labels)
    if len(boxes):
        best, matched = box_iou(boxes, proposals).max(0)
        labels = torch.where(best >= _BOX_IOU, classes[matched], labels)
    labels = _without_crowded(labels, proposals, instances, _BACKGROUND)
    if valid is not None:
        labels = labels.where(F.pad(valid, (0, len(boxes)), value=True), _NOT_SAMPLED)
    slots = draw(labels >= 0, labels == _BACKGROUND, count, int(count * _THINGS_SHARE) if len(boxes) else 0)
    first = slots.members[: slots.num_first]
    return BoxSample(
        boxes=proposals[slots.members],
        labels=labels[slots.members].clamp(min=IGNORE),
        valid=slots.valid,
        positive=slots.positive[: slots.num_first],
        targets=boxes[matched[first]],
        masks=mask_targets(instances, matched[first], proposals[first]),
    )


def mask_targets(instances: Instances, numbers: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """The masks of instances `numbers` [F] as they lie in boxes [F, 4]: float32 [F, 28, 28], 1 where half is theirs.

    Half of 2 × 2 bilinear samples a target's pixel; detectron2 takes more in boxes above 56 pixels.
    """
    left, top, right, bottom = instances.boxes.long().T
    width, height = right - left, bottom - top
    start = (width * height).cumsum(0) - width * height
    step = torch.arange(MASK_TARGET * _SAMPLES, device=boxes.device).add(0.5) / (MASK_TARGET * _SAMPLES)
    y, x = (  # [F, samples] in pixels of the mask, whose centres are whole numbers
        boxes[:, low, None] + (boxes[:, low + 2] - boxes[:, low])[:, None] * step - first[numbers, None] - 0.5
        for low, first in ((1, top), (0, left))
    )
    total = boxes.new_zeros((len(boxes), len(step), len(step)))
    for row, row_share in _neighbours(y):
        for column, column_share in _neighbours(x):
            inside_rows = (row >= 0) & (row < height[numbers, None])
            inside_columns = (column >= 0) & (column < width[numbers, None])
            index = start[numbers, None, None] + row[:, :, None] * width[numbers, None, None] + column[:, None]
            inside = inside_rows[:, :, None] & inside_columns[:, None]
            share = row_share[:, :, None] * column_share[:, None] * inside
            total += instances.bits[index.where(inside, 0)] * share if len(instances.bits) else 0
    return (F.avg_pool2d(total[:, None], _SAMPLES)[:, 0] >= 0.5).float()


def _neighbours(at: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    low = at.floor()
    return [(low.long(), low + 1 - at), (low.long() + 1, at - low)]


def in_first(values: torch.Tensor, samples: Sequence[BoxSample]) -> torch.Tensor:
    """Of values [R, …] of all samples together those in the slots that may be on things: [F, …]."""
    parts = torch.split(values, [len(s.boxes) for s in samples])
    return torch.cat([part[: len(s.positive)] for part, s in zip(parts, samples, strict=True)])


def box_losses(
    logits: torch.Tensor, deltas: torch.Tensor, labels: torch.Tensor, samples: Sequence[BoxSample]
) -> dict[str, torch.Tensor]:
    """Cross-entropy of classes and L1 of deltas, both divided by the number of sampled boxes.

    `logits` [R, T + 1], `deltas` [R, T, 4] and `labels` [R] (T: background) of the samples of all images together.
    """
    valid, positive = torch.cat([s.valid for s in samples]), torch.cat([s.positive for s in samples])
    classes = in_first(labels, samples).where(positive, 0)
    chosen = in_first(deltas, samples)[torch.arange(len(classes), device=classes.device), classes]  # [F, 4]
    boxes = in_first(torch.cat([s.boxes for s in samples]), samples)
    target = encode_boxes(boxes, torch.cat([s.targets for s in samples]), BOX_WEIGHTS)
    count = valid.sum().clamp(min=1)
    counted = labels.where(valid, _NO_LABEL)
    return {
        "class": F.cross_entropy(logits, counted, ignore_index=_NO_LABEL, reduction="sum") / count,
        "box": (_distance(chosen, target, positive) + 0 * deltas.sum()) / count,
    }


def mask_loss(logits: torch.Tensor, samples: Sequence[BoxSample]) -> torch.Tensor:
    """Binary cross-entropy, mean over the pixels of the true class' masks; logits [F, 28, 28] in the first slots."""
    if not len(logits):
        return 0 * logits.sum()  # so that every parameter has a gradient on every rank
    positive = torch.cat([s.positive for s in samples]).float()
    weight = positive / positive.mean().clamp(min=1 / len(positive))  # 1 where all are positive
    return F.binary_cross_entropy_with_logits(
        logits, torch.cat([s.masks for s in samples]), weight=weight[:, None, None]
    )
