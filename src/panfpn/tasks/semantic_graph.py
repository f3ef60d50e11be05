"""Semantic FPN's whole prediction as one module. In: pixels uint8 [B, H, W, C]. Out: labels [B, H, W], and more."""

import torch

from panfpn.models.pixels import PixelNetwork
from panfpn.tasks.graph import Graph
from panfpn.types import Preprocess


class SemanticGraph(Graph):
    """Gives `labels`: train ids, uint8 (int16 for more than 256 classes).

    On request also `confidence`: the winner's probability, float32 [B, H, W].
    """

    def __init__(self, pixels: PixelNetwork, preprocess: Preprocess, *, confidence: bool = False) -> None:
        super().__init__(pixels, preprocess)
        self.names = ("labels", "confidence") if confidence else ("labels",)
        self.dtype = torch.uint8 if self.network.num_classes <= 256 else torch.int16

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See the class."""
        size = (pixels.shape[1], pixels.shape[2])
        images, seen = self.fitted(pixels)
        logits = self.upsampled(self.pixels(images), seen, size)  # [B, K, H, W]
        labels = logits.argmax(1).to(self.dtype)
        return (labels, logits.softmax(1).amax(1)) if "confidence" in self.names else (labels,)
