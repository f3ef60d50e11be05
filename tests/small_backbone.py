"""A backbone of the tests' own: as small as one can be."""

import torch
from torch import nn


class OneConvolutionALevel(nn.Module):
    """The smallest backbone that fits: what SemanticFPN and PanopticFPN take besides timm's networks."""

    def __init__(self, channels: tuple[int, ...] = (4, 6, 8, 10), strides: tuple[int, ...] = (4, 2, 2, 2)) -> None:
        super().__init__()
        self.channels, self.mean, self.std = channels, (120.0,) * 3, (60.0,) * 3
        widths = (3, *channels)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(widths[i], widths[i + 1], 3, s, 1), nn.BatchNorm2d(widths[i + 1]), nn.Dropout(0.5))
            for i, s in enumerate(strides)
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        maps = [images]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps[1:]
