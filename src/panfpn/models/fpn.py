"""The feature pyramid. In: c2…c5. Out: p2…p5 of one width. Lin et al. 2017; paper §3.1; mmsegmentation 1.2.2."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class FPN(nn.Module):
    """Lateral 1×1 convolutions, a nearest-neighbour top-down path sized by the finer map, 3×3 output convolutions.

    Every convolution has a bias; there is no normalisation and no activation.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.channels = channels
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.xavier_uniform_(conv.weight)
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """c2…c5 -> p2…p5, each [B, channels, H/s, W/s]."""
        laterals = [conv(c) for conv, c in zip(self.lateral, maps, strict=True)]
        for i in range(len(laterals) - 1, 0, -1):
            finer = laterals[i - 1]
            laterals[i - 1] = finer + F.interpolate(laterals[i], size=finer.shape[2:], mode="nearest")
        return [conv(x) for conv, x in zip(self.output, laterals, strict=True)]
