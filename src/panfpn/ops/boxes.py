"""Boxes: anchors, coding, pooling of features under them. In and out: float32 [N, 4] left, top, right, bottom.

A box spans left..right (no "+ 1"), in pixels of the image that the network sees.
Semantics: detectron2 (docs/facts.md, C2).
"""

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

from panfpn.ops.resize import as_float
from panfpn.ops.sizes import Size

Weights = tuple[float, float]  # what deltas of the centre and of the size are multiplied with
BOX_WEIGHTS: Weights = (10.0, 5.0)
RPN_WEIGHTS: Weights = (1.0, 1.0)
RATIOS = (0.5, 1.0, 2.0)  # height by width of the anchors of a cell
_LARGEST_STEP = math.log(1000 / 16)  # of log width and log height
_BAGS = 1 << 22  # taps that are listed at a time when boxes are pooled: 48 MiB


def anchors(size: Size, stride: int, scale: float, device: torch.device) -> torch.Tensor:
    """Anchors [H * W * 3, 4] of a map [H, W]: centred on x = 0, stride, …, of area (scale * stride)²; not rounded."""
    y, x = (torch.arange(0, n * stride, stride, device=device, dtype=torch.float32) for n in size)
    centres = torch.stack([x + torch.zeros_like(y)[:, None], y[:, None] + torch.zeros_like(x)], 2)  # [H, W, 2]
    return (centres.repeat(1, 1, 2)[:, :, None] + _cell(scale * stride, device)).flatten(0, 2)


@functools.lru_cache(maxsize=64)  # the host would wait for each upload
@torch.inference_mode(False)  # what is made within could not be used in training
def _cell(side: float, device: torch.device) -> torch.Tensor:
    """Anchors [3, 4] of area side² around 0."""
    width = torch.tensor([math.sqrt(side * side / ratio) for ratio in RATIOS])
    height = width * torch.tensor(RATIOS)
    return (torch.stack([-width, -height, width, height], 1) / 2).to(device)


def encode_boxes(boxes: torch.Tensor, targets: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Deltas [N, 4] (dx, dy, dw, dh, times `weights`) that lead from boxes to targets."""
    (centre, size), (wanted, wanted_size) = _centred(boxes), _centred(targets)
    return torch.cat([(wanted - centre) / size * weights[0], (wanted_size / size).log() * weights[1]], 1)


def decode_boxes(deltas: torch.Tensor, boxes: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Boxes [N, k, 4] to which deltas [N, k, 4] lead from boxes [N, 4]."""
    centre, size = (part[:, None] for part in _centred(boxes))  # [N, 1, 2]
    centre = deltas[..., :2] / weights[0] * size + centre
    half = (deltas[..., 2:] / weights[1]).clamp(max=_LARGEST_STEP).exp() * size / 2
    return torch.cat([centre - half, centre + half], -1)


def _centred(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres and sizes, each [N, 2]."""
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + size / 2, size


def clip_boxes(boxes: torch.Tensor, size: Size) -> torch.Tensor:
    """Boxes [..., 4] within an image of height and width `size`."""
    x, y = boxes[..., 0::2].clamp(0, size[1]), boxes[..., 1::2].clamp(0, size[0])
    return torch.stack([x, y], -1).flatten(-2)


def scale_boxes(boxes: torch.Tensor, size: Size, to_size: Size) -> torch.Tensor:
    """Boxes [..., 4] of an image of height and width `size` in the same image at `to_size`."""
    x, y = boxes[..., 0::2] * (to_size[1] / size[1]), boxes[..., 1::2] * (to_size[0] / size[0])
    return torch.stack([x, y], -1).flatten(-2)


def mirror_boxes(boxes: torch.Tensor, width: int) -> torch.Tensor:
    """Boxes [..., 4] of an image of `width` in its mirror image."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack([width - right, top, width - left, bottom], -1)


def has_area(boxes: torch.Tensor) -> torch.Tensor:
    """Bool [...]: which boxes [..., 4] are wider and higher than nothing."""
    return (boxes[..., 2:] > boxes[..., :2]).all(-1)


def covered_share(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Share of each of the boxes [N] that each of the others [M] covers: [N, M]."""
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return (high - low).clamp(min=0).prod(2) / area[:, None].clamp(min=1e-6)


def pool_boxes(
    pyramid: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], side: int, stride: int = 4
) -> torch.Tensor:
    """Features under boxes, each pooled to side × side: [N, C, side, side] float32.

    `pyramid` holds p2…p5 [B, C, h, w], p2 at `stride`; `boxes` those of each image. A box of 224² pixels is read from
    the level of stride 16, one of half the width from that of 8, and so on; RoIAlign (aligned) with as many samples a
    bin as it has steps of the map.
    """
    numbers = [boxes_of.new_full((len(boxes_of), 1), i) for i, boxes_of in enumerate(boxes)]
    numbered = torch.cat([torch.cat(numbers), torch.cat(list(boxes))], 1)  # [N, 5]
    levels = levels_of(numbered, stride)
    pooled = pyramid[0].new_zeros((len(numbered), pyramid[0].shape[1], side, side), dtype=torch.float32)
    for level, features in enumerate(pyramid):
        on_level, scale = levels == level, 1 / (stride << level)
        if numbered.device.type != "cpu":  # which boxes are read here, the host does not wait to know:
            on_others_empty = numbered.where(on_level[:, None], 0)  # those have no sample to take, so they cost little
            pooled = pooled + roi_align(as_float(features), on_others_empty, (side, side), scale, 0, True)
        elif len(chosen := on_level.nonzero()[:, 0]):
            part = _pool_level(as_float(features), numbered[chosen], side, scale)
            pooled = pooled.index_copy(0, chosen, part)
    return pooled


def levels_of(boxes: torch.Tensor, stride: int = 4) -> torch.Tensor:
    """The level that each of boxes [N, 5] (image, corners) is read from, 0 for p2 (at `stride`), as float32 [N]."""
    extent = (boxes[:, 3:] - boxes[:, 1:3]).prod(1).clamp(min=0).sqrt()
    return (4 + torch.log2(extent / 224 + 1e-8)).floor().sub(math.log2(stride)).clamp(0, 3)


def _pool_level(features: torch.Tensor, boxes: torch.Tensor, side: int, scale: float) -> torch.Tensor:
    """RoIAlign of boxes [N, 5] (image, corners) on one map of a CPU: torchvision's by weighted sums."""
    samples = ((boxes[:, 3:] - boxes[:, 1:3]) * (scale / side)).ceil().amax(1)
    pooled = features.new_zeros((len(boxes), features.shape[1], side, side))
    for count in sorted(set(samples.tolist())):  # small boxes do not pay for the taps of large ones
        alike = (samples == count).nonzero()[:, 0]
        pooled = pooled.index_copy(0, alike, _pool_in_bags(features, boxes[alike], side, scale))
    return pooled


def _pool_in_bags(features: torch.Tensor, boxes: torch.Tensor, side: int, scale: float) -> torch.Tensor:
    """RoIAlign [N, C, side, side] on a CPU, where torchvision's kernel takes one value at a time.

    The samples of a bin are a grid and each is bilinear, so their mean is a weighted sum over rows times columns of the
    map; with channels last, each term is a whole vector of channels.
    """
    batch, channels, height, width = features.shape
    table = features.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    rows, row_weights = _bins(boxes[:, 2] * scale - 0.5, boxes[:, 4] * scale - 0.5, side, height)  # [N, side, taps]
    columns, column_weights = _bins(boxes[:, 1] * scale - 0.5, boxes[:, 3] * scale - 0.5, side, width)
    rows = rows + (boxes[:, 0].long() * height)[:, None, None]
    taps = rows.shape[2] * columns.shape[2]
    step = max(1, _BAGS // (side * side * taps))
    parts = []
    for i in range(0, len(boxes), step):
        part = slice(i, i + step)
        indices = (rows[part, :, None, :, None] * width + columns[part, None, :, None, :]).reshape(-1, taps)
        weights = (row_weights[part, :, None, :, None] * column_weights[part, None, :, None, :]).reshape(-1, taps)
        parts.append(F.embedding_bag(indices, table, mode="sum", per_sample_weights=weights))
    return torch.cat(parts).reshape(len(boxes), side, side, channels).permute(0, 3, 1, 2)


def _bins(low: torch.Tensor, high: torch.Tensor, side: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices along an axis of `length` and their weights, each [N, side, taps], of the bins that divide low..high [N].

    As RoIAlign: ceil(bin) samples, evenly spaced; one beyond the axis by more than 1 counts as 0, by less as its end.
    """
    step = (high - low) / side
    wide = step > 0  # a bin that float32 leaves no width has no sample either: 0
    samples = step.ceil().clamp(min=1)
    most = int(samples.max())
    k = torch.arange(most, device=low.device)
    at = torch.arange(side, device=low.device)[:, None] + (k + 0.5) / samples[:, None, None]  # [N, side, most] in bins
    at = low[:, None, None] + at * step[:, None, None]
    inside = (at >= -1) & (at <= length) & (k < samples[:, None, None]) & wide[:, None, None]
    at = at.clamp(0, length - 1)
    first = at.floor().long().clamp(max=max(0, length - 2))
    part = at - first
    share = inside / samples[:, None, None]
    start = first[:, :, :1]
    offset = (first - start).clamp(max=most - 1)  # steps are at most 1, so the samples reach over most + 1 indices
    weights = low.new_zeros((len(low), side, most + 1))
    weights.scatter_add_(2, offset, (1 - part) * share)
    weights.scatter_add_(2, offset + 1, part * share)
    return (start + torch.arange(most + 1, device=low.device)).clamp(max=length - 1), weights
