"""Losses of the instance branch. In: scores and deltas of anchors and boxes, and the things. Out: scalars.

Assignment, sampling and denominators are detectron2's (docs/facts.md, C2), which are the paper's (§3.2). Crowds are
neither things nor background: what they cover is not sampled. What is sampled is drawn from torch's global generator.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torchvision.ops import box_iou

from panfpn.ops.boxes import BOX_WEIGHTS, RPN_WEIGHTS, covered_share, encode_boxes
from panfpn.types import Instances

ANCHORS = 256  # sampled of an image, at most half of them on things
_RPN_IOU = (0.3, 0.7)  # below: background; from here on: a thing
_BOX_IOU, _THINGS_SHARE = 0.5, 0.25
_CROWDED = 0.5  # share of a box within a crowd from which on it is not background
MASK_TARGET = 28
_SAMPLES = 2  # along a side of a target's pixel


def rpn_losses(
    anchors: torch.Tensor, logits: torch.Tensor, deltas: torch.Tensor, instances: tuple[Instances, ...]
) -> dict[str, torch.Tensor]:
    """Cross-entropy of objectness and L1 of deltas of sampled anchors, both divided by 256 · B.

    `anchors` [A, 4], `logits` [B, A], `deltas` [B, A, 4], `things` of each image.
    """
    objectness, steps = logits.new_zeros(()), logits.new_zeros(())
    for own, logit, delta in zip(instances, logits, deltas, strict=True):
        labels, matched = match_anchors(anchors, own)
        positive, negative = _drawn(labels == 1, ANCHORS // 2), labels == 0
        negative = _drawn(negative, ANCHORS - len(positive))
        truth = torch.cat([logit.new_ones(len(positive)), logit.new_zeros(len(negative))])
        chosen = logit[torch.cat([positive, negative])]
        objectness = objectness + F.binary_cross_entropy_with_logits(chosen, truth, reduction="sum")
        if len(positive):
            target = encode_boxes(anchors[positive], _real(own)[0][matched[positive]], RPN_WEIGHTS)
            steps = steps + (delta[positive] - target).abs().sum()
    count = ANCHORS * len(instances)
    return {"rpn_class": objectness / count, "rpn_box": (steps + 0 * deltas.sum()) / count}


@torch.no_grad()
def match_anchors(anchors: torch.Tensor, instances: Instances) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each anchor [A]: 1 on a thing, 0 on background, −1 between; and which thing that is not a crowd it is nearest.

    The best anchors of a thing are on it however bad they are.
    """
    boxes, _, _ = _real(instances)
    labels = torch.zeros(len(anchors), dtype=torch.int8, device=anchors.device)
    matched = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    if len(boxes):
        iou = box_iou(boxes, anchors)  # [N, A]
        best, matched = iou.max(0)
        labels[best >= _RPN_IOU[0]] = -1
        labels[best >= _RPN_IOU[1]] = 1
        nearest = iou.max(1).values[:, None]
        labels[((iou == nearest) & (nearest > 0)).any(0)] = 1
    _leave_crowds(labels, anchors, instances, 0)
    return labels, matched


def _real(instances: Instances) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes, classes and numbers of those that are no crowd."""
    count = len(instances.boxes) - instances.num_crowds
    return instances.boxes[:count], instances.classes[:count], torch.arange(count, device=instances.boxes.device)


def _leave_crowds(labels: torch.Tensor, boxes: torch.Tensor, instances: Instances, background: int) -> None:
    """Turn background [N] that lies in a crowd to −1, in place."""
    crowds = instances.boxes[len(instances.boxes) - instances.num_crowds :]
    if len(crowds):
        labels[(labels == background) & (covered_share(boxes, crowds) > _CROWDED).any(1)] = -1


def _drawn(among: torch.Tensor, most: int) -> torch.Tensor:
    """Places of at most `most` True values [N], drawn at random."""
    places = among.nonzero()[:, 0]
    if len(places) <= most:
        return places
    return places[torch.randperm(len(places))[:most].to(places.device)]  # the CPU's generator, whatever the device


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BoxSample:
    """Boxes of one image from which the box and mask heads learn, things first."""

    boxes: torch.Tensor  # [R, 4]
    labels: torch.Tensor  # int64 [R] train ids; IGNORE for background
    targets: torch.Tensor  # [F, 4] the true boxes of the first F, which are on things
    masks: torch.Tensor  # float32 [F, 28, 28] 0 or 1


@torch.no_grad()
def sample_boxes(proposals: torch.Tensor, instances: Instances, count: int) -> BoxSample:
    """`count` of the proposals [N, 4] and the true boxes, at most a quarter of them on things (IoU from 0.5 on)."""
    boxes, classes, numbers = _real(instances)
    proposals = torch.cat([proposals, boxes])
    labels = torch.full((len(proposals),), -2, dtype=torch.int64, device=proposals.device)  # −2: background
    matched = torch.zeros_like(labels)
    if len(boxes):
        best, matched = box_iou(boxes, proposals).max(0)
        labels = torch.where(best >= _BOX_IOU, classes[matched], labels)
    _leave_crowds(labels, proposals, instances, -2)
    positive = _drawn(labels >= 0, int(count * _THINGS_SHARE))
    chosen = torch.cat([positive, _drawn(labels == -2, count - len(positive))])
    return BoxSample(
        boxes=proposals[chosen],
        labels=labels[chosen].clamp(min=-1),
        targets=boxes[matched[positive]],
        masks=mask_targets(instances, numbers[matched[positive]], proposals[positive]),
    )


def mask_targets(instances: Instances, numbers: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """The masks of things `numbers` [F] as seen in boxes [F, 4]: float32 [F, 28, 28], 1 where half is theirs.

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
            place = start[numbers, None, None] + row[:, :, None] * width[numbers, None, None] + column[:, None]
            inside = inside_rows[:, :, None] & inside_columns[:, None]
            share = row_share[:, :, None] * column_share[:, None] * inside
            total += instances.bits[place.where(inside, 0)] * share if len(instances.bits) else 0
    return (F.avg_pool2d(total[:, None], _SAMPLES)[:, 0] >= 0.5).float()


def _neighbours(at: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    low = at.floor()
    return [(low.long(), low + 1 - at), (low.long() + 1, at - low)]


def box_losses(
    logits: torch.Tensor, deltas: torch.Tensor, labels: torch.Tensor, samples: list[BoxSample]
) -> dict[str, torch.Tensor]:
    """Cross-entropy of classes and L1 of deltas, both divided by the number of sampled boxes.

    `logits` [R, T + 1], `deltas` [R, T, 4] and `labels` [R] (T: background) of the samples of all images together.
    """
    boxes = torch.cat([s.boxes for s in samples])
    on_things = (labels < deltas.shape[1]).nonzero()[:, 0]
    target = encode_boxes(boxes[on_things], torch.cat([s.targets for s in samples]), BOX_WEIGHTS)
    steps = (deltas[on_things, labels[on_things]] - target).abs().sum()
    count = max(1, len(labels))
    return {
        "class": F.cross_entropy(logits, labels, reduction="sum") / count,
        "box": (steps + 0 * deltas.sum()) / count,
    }


def mask_loss(logits: torch.Tensor, samples: list[BoxSample]) -> torch.Tensor:
    """Binary cross-entropy, mean over the pixels of the true class' masks; logits [F, 28, 28] of all things."""
    if not len(logits):
        return 0 * logits.sum()  # so that every parameter has a gradient on every rank
    return F.binary_cross_entropy_with_logits(logits, torch.cat([s.masks for s in samples]))
