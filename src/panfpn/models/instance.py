"""Mask R-CNN's heads on the pyramid: proposals, boxes, masks. In: p2…p5. Out: class scores, boxes, masks of things.

He et al. 2017; paper §3.1. Architecture, initial weights and inference are detectron2's (docs/facts.md, C2).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import batched_nms

from panfpn.ops import Size
from panfpn.ops.boxes import BOX_WEIGHTS, RATIOS, RPN_WEIGHTS, anchors, clip_boxes, decode_boxes, has_area

STRIDES = (4, 8, 16, 32, 64)  # of p2…p6
BOX_SIDE, MASK_SIDE = 7, 14  # of what the heads see of a box


class RPNHead(nn.Module):
    """For each anchor of p2…p6 a logit that a thing is there, and four deltas to its box."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, len(RATIOS), 1)
        self.deltas = nn.Conv2d(channels, 4 * len(RATIOS), 1)
        for conv in self.children():
            _normal(conv, 0.01)

    def forward(self, pyramid: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """p2…p5 -> logits [B, A, h, w] and deltas [B, 4 A, h, w] of p2…p6, which is every other value of p5."""
        levels = [*pyramid, F.max_pool2d(pyramid[-1], 1, 2)]
        hidden = [F.relu(self.conv(level), inplace=True) for level in levels]
        return [self.objectness(x) for x in hidden], [self.deltas(x) for x in hidden]


class BoxHead(nn.Module):
    """Two hidden layers, then a score for each class of things and background (last), and deltas for each class."""

    def __init__(self, in_channels: int, num_things: int, channels: int = 1024) -> None:
        super().__init__()
        self.num_things = num_things
        self.fc1 = nn.Linear(in_channels * BOX_SIDE * BOX_SIDE, channels)
        self.fc2 = nn.Linear(channels, channels)
        self.classifier = nn.Linear(channels, num_things + 1)
        self.deltas = nn.Linear(channels, 4 * num_things)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        _normal(self.classifier, 0.01)
        _normal(self.deltas, 0.001)

    def forward(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[N, C, 7, 7] -> logits [N, T + 1] and deltas [N, T, 4]."""
        hidden = F.relu(self.fc2(F.relu(self.fc1(pooled.flatten(1)))))
        return self.classifier(hidden), self.deltas(hidden).view(len(pooled), self.num_things, 4)


class MaskHead(nn.Module):
    """Four convolutions, one step up, and a mask of one class."""

    def __init__(self, in_channels: int, num_things: int, channels: int = 256) -> None:
        super().__init__()
        widths = (in_channels, channels, channels, channels)
        self.convs = nn.ModuleList(nn.Conv2d(width, channels, 3, padding=1) for width in widths)
        self.deconv = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.classifier = nn.Conv2d(channels, num_things, 1)
        for conv in (*self.convs, self.deconv):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)
        _normal(self.classifier, 0.001)

    def forward(self, pooled: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """[N, C, 14, 14] and the class of each [N] -> logits [N, 28, 28]; those of other classes are not computed."""
        x = pooled
        for conv in self.convs:
            x = F.relu(conv(x), inplace=True)
        hidden = F.relu(self.deconv(x), inplace=True).flatten(2)  # [N, channels, 28 * 28]
        weight = self.classifier.weight.flatten(1).index_select(0, classes)  # [N, channels]
        bias = self.classifier.bias.index_select(0, classes)  # type: ignore[union-attr]
        masks = torch.bmm(weight[:, None], hidden)[:, 0] + bias[:, None]  # [N, 28 * 28]
        return masks.reshape(-1, 2 * MASK_SIDE, 2 * MASK_SIDE)


def _normal(layer: nn.Module, std: float) -> None:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


class Candidates(NamedTuple):
    """What the RPN says of every anchor of a batch, level by level."""

    boxes: list[torch.Tensor]  # anchors, [A_l, 4]
    logits: list[torch.Tensor]  # [B, A_l] float32
    deltas: list[torch.Tensor]  # [B, A_l, 4] float32


def candidates(objectness: Sequence[torch.Tensor], deltas: Sequence[torch.Tensor], scale: float) -> Candidates:
    """The maps of an `RPNHead` in the order of anchors; `scale` as in `anchors`."""
    boxes = [
        anchors((o.shape[2], o.shape[3]), stride, scale, o.device)
        for o, stride in zip(objectness, STRIDES, strict=True)
    ]
    logits = [o.permute(0, 2, 3, 1).flatten(1).float() for o in objectness]
    steps = [d.permute(0, 2, 3, 1).reshape(len(d), -1, 4).float() for d in deltas]  # an anchor's four are neighbours
    return Candidates(boxes, logits, steps)


@torch.no_grad()
def propose(
    found: Candidates, image: int, size: Size, *, per_level: int = 1000, total: int = 1000
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes [N, 4] within an image of `size`, and their logits [N], best first.

    Of each level the `per_level` best, without those that overlap a better one by an IoU above 0.7; `total` in all.
    """
    boxes, logits, levels = [], [], []
    for level, (anchor, score, delta) in enumerate(zip(*found, strict=True)):
        best, place = score[image].topk(min(per_level, len(anchor)))
        decoded = decode_boxes(delta[image, place][:, None], anchor[place], RPN_WEIGHTS)[:, 0]
        boxes.append(clip_boxes(decoded, size))
        logits.append(best)
        levels.append(torch.full_like(place, level))
    box, logit, of_level = torch.cat(boxes), torch.cat(logits), torch.cat(levels)
    sound = has_area(box) & box.isfinite().all(1) & logit.isfinite()
    box, logit, of_level = box[sound], logit[sound], of_level[sound]
    kept = batched_nms(box, logit, of_level, 0.7)[:total]
    return box[kept], logit[kept]


def choose_boxes(
    boxes: torch.Tensor, scores: torch.Tensor, *, score: float, nms: float, nms_over_classes: bool, most: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The detections among boxes [N, T, 4] of each class with scores [N, T]: boxes [M, 4], scores, classes, best first.

    Those above `score`, without those that overlap a better one of their class by an IoU above `nms`; at most `most`.
    """
    row, label = (scores > score).nonzero(as_tuple=True)
    box, value = boxes[row, label], scores[row, label]
    sound = box.isfinite().all(1)
    box, value, label = box[sound], value[sound], label[sound]
    kept = batched_nms(box, value, torch.zeros_like(label) if nms_over_classes else label, nms)[:most]
    return box[kept], value[kept], label[kept]


def decode_detections(
    logits: torch.Tensor, deltas: torch.Tensor, proposals: torch.Tensor, size: Size
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes [N, T, 4] within an image of `size` and scores [N, T], of what a `BoxHead` says of proposals [N, 4]."""
    boxes = clip_boxes(decode_boxes(deltas.float(), proposals, BOX_WEIGHTS), size)
    return boxes, logits.float().softmax(1)[:, :-1]
