"""Images of any size through a network that takes one size. In: images. Out: maps, without seams where windows meet.

Windows overlap by a quarter of their side at least, and each map counts less the nearer it is to its window's border.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

_ALIGNED = 32  # windows begin at multiples of it, so that they do so on the maps of every stride


def in_windows(
    network: Callable[[torch.Tensor], list[torch.Tensor]], images: torch.Tensor, side: int, strides: Sequence[int]
) -> list[torch.Tensor]:
    """The maps that `network` gives for windows [N, C, side, side] of images [B, C, H, W], joined at each stride.

    Images are padded on the right and below with zeros until windows cover them; the maps are those of all of it.
    """
    aligned = max(_ALIGNED, *strides)
    step = max(aligned, side * 3 // 4 // aligned * aligned)
    paddings = [(-max(length - side, 0)) % step + max(side - length, 0) for length in images.shape[2:]]
    images = F.pad(images, (0, paddings[1], 0, paddings[0]))
    windows = images.unfold(2, side, step).unfold(3, side, step)  # [B, C, rows, columns, side, side]
    batch, channels, rows, columns = windows.shape[:4]
    windows = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels, side, side)
    return [
        _joined(m, (batch, rows, columns), step // stride)
        for m, stride in zip(network(windows), strides, strict=True)
    ]  # fmt: skip


def _joined(maps: torch.Tensor, grid: tuple[int, int, int], step: int) -> torch.Tensor:
    """Maps of windows [B * rows * columns, C, s, s] as one map [B, C, H, W]; windows are `step` apart in it."""
    batch, rows, columns = grid
    channels, height, width = maps.shape[1:]
    weight = _ramp(height, step, maps)[:, None] * _ramp(width, step, maps)  # [s, s]
    size = ((rows - 1) * step + height, (columns - 1) * step + width)
    kernel = (height, width)
    parts = (maps * weight).reshape(batch, rows * columns, channels * height * width).transpose(1, 2)
    total = F.fold(parts, size, kernel, stride=step)
    share = weight.reshape(1, -1, 1).expand(1, -1, rows * columns)
    return total / F.fold(share, size, kernel, stride=step)


def _ramp(length: int, step: int, like: torch.Tensor) -> torch.Tensor:
    """Weights of a window along a side: they fall towards its ends within what overlaps, and are never 0."""
    overlap = max(1, length - step)
    place = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    return torch.minimum(place, length - place).clamp(max=overlap) / overlap
