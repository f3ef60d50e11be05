"""Non-maximum suppression of fixed shapes. In: boxes, best first. Out: a mask; the host does not wait for its count."""

import torch

ROUNDS = 64


def nms_mask(boxes: torch.Tensor, valid: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which of boxes [L, N, 4], by falling score in each of L rows, overlap no better one of their row that stays.

    A box stays if it is `valid` (bool [L, N]) and no better box that stays overlaps it by an IoU above `threshold`. The
    only mask of which that is true is torchvision's `nms`. The rounds start with every valid box, and each settles at
    least the next box of every chain of boxes of which each overlaps the one before: the mask is exact where no chain
    is longer than ROUNDS. (Of the 2000 best anchors of a level a network in training needed 20 rounds at most, smooth
    random logits 56, a ramp 199.) Beyond that, as ROUNDS is even, boxes may stay that should not, but none is lost.
    """
    overlaps = (_iou(boxes) > threshold).triu(1).half()  # [L, N, N] by row: a better box; by column: a worse one
    stays = valid
    for _ in range(ROUNDS):
        stays = valid & ((stays[:, None].half() @ overlaps)[:, 0] == 0)
    return stays


def _iou(boxes: torch.Tensor) -> torch.Tensor:
    """IoU [L, N, N] of the boxes of each row; NaN between two without area. Planes, as [L, N, N, 2] takes twice."""
    left, top, right, bottom = boxes.unbind(-1)
    area = (right - left) * (bottom - top)
    width = torch.minimum(right[:, :, None], right[:, None]) - torch.maximum(left[:, :, None], left[:, None])
    height = torch.minimum(bottom[:, :, None], bottom[:, None]) - torch.maximum(top[:, :, None], top[:, None])
    both = width.clamp_(min=0) * height.clamp_(min=0)
    return both / (area[:, :, None] + area[:, None] - both)
