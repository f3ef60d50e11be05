"""Semantic FPN's whole prediction as one module. In: pixels uint8 [B, H, W, C]. Out: labels [B, H, W], and more."""

from collections.abc import Sequence

import torch

from panfpn.models.pixels import PixelNetwork
from panfpn.tasks.graph import Graph
from panfpn.types import Preprocess


class SemanticGraph(Graph):
    """Gives `labels`: train ids, uint8 (int16 for more than 256 classes).

    `also` `confidence`: the winner's probability, float32 [B, H, W], and `probabilities`: those of all [B, K, H, W].
    """

    def __init__(self, pixels: PixelNetwork, preprocess: Preprocess, also: Sequence[str] = ()) -> None:
        super().__init__(pixels, preprocess)
        self.names = ("labels", *(name for name in ("confidence", "probabilities") if name in also))
        self.dtype = torch.uint8 if self.network.num_classes <= 256 else torch.int16

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See the class."""
        size = (pixels.shape[1], pixels.shape[2])
        images, seen = self.fitted(pixels)
        return self.each_pixel(self.pixels(images), seen, size, self._outputs)

    def _outputs(self, logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = {"labels": logits.argmax(1).to(self.dtype)}
        if len(self.names) > 1:
            found["probabilities"] = logits.softmax(1)
            found["confidence"] = found["probabilities"].amax(1)
        return tuple(found[name] for name in self.names)
