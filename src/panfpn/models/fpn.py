"""The feature pyramid. In: c2…c5. Out: p2…p5 of one width. Lin et al. 2017; paper §3.1; mmsegmentation 1.2.2."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class FPN(nn.Module):
    """Lateral 1×1 convolutions, a nearest-neighbour top-down path sized by the finer map, 3×3 output convolutions.

    Every convolution has a bias; there is no normalisation and no activation. `levels` makes c2…c5 of the maps of a
    backbone that has one stride.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256, *, levels: nn.Module | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.xavier_uniform_(conv.weight)
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.levels = levels

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """c2…c5 -> p2…p5, each [B, channels, H/s, W/s].

        A list is emptied on the way, and sums are made in place: c2 and p2 are the largest maps of the whole network.
        """
        if self.levels is not None:
            maps = self.levels(maps)
        remaining = maps if isinstance(maps, list) else list(maps)
        pyramid: list[torch.Tensor] = []
        merged: torch.Tensor | None = None
        for lateral, output in zip(reversed(self.lateral), reversed(self.output), strict=True):
            finer = lateral(remaining.pop())
            if merged is not None:
                finer = _add_nearest(finer, merged)
            merged = finer
            pyramid.insert(0, output(merged))
        return pyramid


def _add_nearest(finer: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
    """`finer` [B, C, H, W], in place, plus `coarser` at its size by nearest neighbour."""
    height, width = finer.shape[2:]
    # A graph serves every size, and a sum within a view would become scattered adds in it.
    any_size: bool = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if not any_size and (height, width) == (2 * coarser.shape[2], 2 * coarser.shape[3]):
        pairs = finer.unfold(2, 2, 2).unfold(3, 2, 2)  # a view [B, C, H/2, W/2, 2, 2]
        pairs += coarser[..., None, None]
        return finer
    return finer.add_(F.interpolate(coarser, size=(height, width), mode="nearest"))
