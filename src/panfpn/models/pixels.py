"""From pixels to what a network sees. In: uint8 images [B, H, W, C] as they come. Out: the network's maps."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def normalised(
    pixels: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    divisor: int,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> torch.Tensor:
    """Pixels uint8 [B, H, W, C] -> float32 [B, C, H, W], padded on the right and below to a multiple of `divisor`.

    `mean` and `std` [C, 1, 1] are of values in 0..255. The padding, and what lies outside of `sizes` (height and width
    of each image), is the mean colour: 0.
    """
    images = (pixels.permute(0, 3, 1, 2).float() - mean) / std
    for image, (height, width) in zip(images, sizes or (), strict=False):
        image[:, height:] = 0
        image[:, :, width:] = 0
    if divisor > 1:
        height, width = pixels.shape[1:3]
        images = F.pad(images, (0, -width % divisor, 0, -height % divisor))
    return images


class PixelNetwork(nn.Module):
    """A network that takes pixels as they come: uint8 [B, H, W, C] -> its maps, those of the padding included.

    `mean`, `std` and `divisor` as in `normalised`.
    """

    def __init__(self, network: nn.Module, mean: torch.Tensor, std: torch.Tensor, divisor: int) -> None:
        super().__init__()
        self.network, self.divisor = network, divisor
        self.dtype = torch.float32  # of the normalised images
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    def forward(self, pixels: torch.Tensor) -> Any:
        """[B, H, W, C] uint8 -> what the network gives for them."""
        images = normalised(pixels, self.get_buffer("mean"), self.get_buffer("std"), self.divisor)
        return self.network(images.to(self.dtype, memory_format=torch.channels_last))
