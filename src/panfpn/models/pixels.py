"""The one forward: from pixels as they come to a network's maps. Trained, compiled, folded, predicted and exported."""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from panfpn.ops import grown


class PixelNetwork(nn.Module):
    """A network that takes pixels as they come: uint8 [B, H, W, C] -> its maps, those of the padding included.

    `mean` and `std` are of each channel in 0..255. Images are padded on the right and below, with the mean colour, to a
    multiple of `divisor`. `precision` is the dtype that the network computes in (autocast if it is not float32).
    """

    mean: torch.Tensor  # [C, 1, 1]
    std: torch.Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], divisor: int = 1, *,
        precision: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network: Any = network
        self.divisor, self.precision = divisor, precision
        self.dtype = torch.float32  # of the normalised images; an engine that casts the weights casts them too
        self.channels_last = True
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    @property
    def layout(self) -> torch.memory_format:
        """Of the images, which the maps follow; made here, as a pickle loses it where `__main__` has torch."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def forward(self, pixels: torch.Tensor, extents: torch.Tensor | None = None) -> Any:
        """[B, H, W, C] uint8 -> what the network gives.

        `extents` int64 [B, 2] is the height and width of each image; beyond it lies the mean colour, whatever the
        pixels are. None: all images fill their [H, W].
        """
        images = self._images(pixels, extents)
        with self.autocast():
            return self.network(images)

    def features(self, pixels: torch.Tensor, extents: torch.Tensor | None = None) -> Any:
        """What the network's backbone alone gives for them."""
        images = self._images(pixels, extents)
        with self.autocast():
            return self.network.backbone(images)

    def decoded(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> Any:
        """What the network makes of the features of images of a size."""
        with self.autocast():
            return self.network.decode([m.to(self.dtype) for m in features], grown(size, self.divisor))

    def _images(self, pixels: torch.Tensor, extents: torch.Tensor | None) -> torch.Tensor:
        """Normalised and padded images [B, C, H, W]."""
        images = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std  # [B, C, H, W]
        height, width = pixels.shape[1:3]
        if extents is not None:
            rows, columns = (torch.arange(side, device=pixels.device) for side in (height, width))
            inside = (rows < extents[:, :1])[:, None, :, None] & (columns < extents[:, 1:])[:, None, None, :]
            images = images.where(inside, 0)
        if self.divisor > 1:
            down, right = grown((height, width), self.divisor)
            images = F.pad(images, (0, right - width, 0, down - height))
        return images.to(self.dtype, memory_format=self.layout)

    def at(self, precision: torch.dtype) -> Self:
        """The same network, weights shared, computing in another precision."""
        twin = copy.copy(self)
        twin.precision = precision
        return twin

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the network computes."""
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.mean.device.type, self.precision)
