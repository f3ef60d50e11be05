"""Mask R-CNN's heads on the pyramid: proposals, boxes, masks. In: p2…p5. Out: class scores, boxes, masks of things.

He et al. 2017; paper §3.1. Architecture, initial weights and inference are detectron2's (docs/facts.md, C2).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import batched_nms

from panfpn.ops import Size
from panfpn.ops.boxes import BOX_WEIGHTS, RATIOS, RPN_WEIGHTS, anchors, clip_boxes, decode_boxes, has_area
from panfpn.ops.nms import nms_mask

BOX_SIDE, MASK_SIDE = 7, 14  # of what the heads see of a box
PROPOSAL_IOU = 0.7  # from which on the worse of two proposals is dropped


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
        return self.classifier(hidden), self.deltas(hidden).reshape(-1, self.num_things, 4)


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


def candidates(
    objectness: Sequence[torch.Tensor], deltas: Sequence[torch.Tensor], scale: float, stride: int = 4
) -> Candidates:
    """The maps of an `RPNHead` in the order of anchors, p2's of `stride`.

    `scale` is the side of an anchor of p2 over 4 pixels, whatever its stride; it doubles from level to level.
    """
    boxes = [
        anchors((o.shape[2], o.shape[3]), stride << level, scale * 4 / stride, o.device)
        for level, o in enumerate(objectness)
    ]
    logits = [o.permute(0, 2, 3, 1).flatten(1).float() for o in objectness]
    steps = [d.permute(0, 2, 3, 1).reshape(d.shape[0], -1, 4).float() for d in deltas]  # an anchor's are neighbours
    return Candidates(boxes, logits, steps)


class Proposals(NamedTuple):
    """Boxes of one image where things may be, best first.

    On a CPU N is their number. On a device it is fixed, as the host does not wait to know: those that are not `valid`
    have no area, a logit of −∞, and come last.
    """

    boxes: torch.Tensor  # [N, 4]
    logits: torch.Tensor  # [N]

    @property
    def valid(self) -> torch.Tensor:
        """Bool [N]."""
        return self.logits > -math.inf


@torch.no_grad()
def propose(candidates: Candidates, image: int, size: Size, *, per_level: int = 1000, total: int = 1000) -> Proposals:
    """Proposals of image number `image`, whose height and width are `size`.

    Of each level the `per_level` best, without those that overlap a better one by an IoU above 0.7; `total` in all.
    """
    boxes, logits = [], []
    for anchor, score, delta in zip(*candidates, strict=True):
        best, index = score[image].topk(min(per_level, len(anchor)))
        decoded = decode_boxes(delta[image, index][:, None], anchor[index], RPN_WEIGHTS)[:, 0]
        boxes.append(clip_boxes(decoded, size))
        logits.append(best)
    return (_best_on_cpu if boxes[0].device.type == "cpu" else _best_on_device)(boxes, logits, total)


def _best_on_cpu(boxes: list[torch.Tensor], logits: list[torch.Tensor], total: int) -> Proposals:
    box, logit = torch.cat(boxes), torch.cat(logits)
    level = torch.cat([torch.full((len(of_level),), i) for i, of_level in enumerate(logits)])
    sound = _sound(box, logit)
    box, logit, level = box[sound], logit[sound], level[sound]
    kept = batched_nms(box, logit, level, PROPOSAL_IOU)[:total]
    return Proposals(box[kept], logit[kept])


def _best_on_device(boxes: list[torch.Tensor], logits: list[torch.Tensor], total: int) -> Proposals:
    box = pad_sequence(boxes, batch_first=True)  # [L, N, 4]; without area where a level has fewer
    logit = pad_sequence(logits, batch_first=True)  # [L, N]
    kept = nms_mask(box, _sound(box, logit), PROPOSAL_IOU)
    best, index = logit.where(kept, -math.inf).flatten().topk(min(total, logit.numel()))
    return Proposals(box.flatten(0, 1)[index].where((best > -math.inf)[:, None], 0), best)


def _sound(boxes: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Bool [...]: which boxes [..., 4] and logits [...] are numbers, and the boxes larger than nothing."""
    return has_area(boxes) & boxes.isfinite().all(-1) & logits.isfinite()


def choose_boxes(
    boxes: torch.Tensor, scores: torch.Tensor, *, score: float, nms: float, nms_over_classes: bool, most: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The detections among boxes [N, T, 4] of each class with scores [N, T]: boxes [M, 4], scores, classes, best first.

    Those above `score`, without those that overlap a better one of their class by an IoU above `nms`; at most `most`.
    """
    finite = boxes.sum(-1).isfinite()  # all four of a box
    row, label = ((scores > score) & finite).nonzero(as_tuple=True)
    box, value = boxes[row, label], scores[row, label]
    kept = batched_nms(box, value, torch.zeros_like(label) if nms_over_classes else label, nms)[:most]
    return box[kept], value[kept], label[kept]


def decode_detections(
    logits: torch.Tensor, deltas: torch.Tensor, proposals: torch.Tensor, size: Size
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes [N, T, 4] within an image of `size` and scores [N, T], of what a `BoxHead` says of proposals [N, 4]."""
    boxes = clip_boxes(decode_boxes(deltas.float(), proposals, BOX_WEIGHTS), size)
    return boxes, logits.float().softmax(1)[:, :-1]
