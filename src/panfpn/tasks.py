"""A network with its losses and predictions. In: a Batch or images. Out: {name: loss}, or maps. What DDP wraps."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from panfpn.data.transforms import fit_size, resized_image
from panfpn.labels import LabelTable
from panfpn.losses import SemanticLoss
from panfpn.models import SemanticFPN
from panfpn.ops import upsample_argmax
from panfpn.types import Batch, Preprocess, SemanticMap


class SemanticTask(nn.Module):
    """Semantic FPN with what it needs to learn and to speak: label table, preprocessing, loss.

    `precision` is the dtype of the dense part (autocast if it is not float32).
    """

    def __init__(
        self,
        model: SemanticFPN,
        table: LabelTable,
        preprocess: Preprocess,
        *,
        loss: SemanticLoss | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if model.num_classes != table.num_classes:
            raise ValueError(
                f"the model has {model.num_classes} classes but label table {table.name!r} {table.num_classes}"
            )
        self.model, self.table, self.preprocess, self.precision = model, table, preprocess, precision
        self.loss = loss or SemanticLoss(weights={"cross_entropy": 1.0})
        self.dense: nn.Module = model  # the part that may be compiled; shares its weights with `model`
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocess.std).view(-1, 1, 1), persistent=False)

    def forward(
        self, batch: Batch, *, pixels: torch.Tensor | None = None, share: float = 1.0
    ) -> dict[str, torch.Tensor]:
        """Loss terms by name; `pixels` and `share` as in `SemanticLoss`."""
        images = self._normalised(batch.images)
        for i, (height, width) in enumerate(batch.sizes):
            images[i, :, height:] = 0  # padding is the mean colour, exactly
            images[i, :, :, width:] = 0
        return self.loss(self._logits(self.dense, images).float(), batch.targets, pixels=pixels, share=share)

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, C, H, W] -> float32, channels_last."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)

    def _logits(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            divisor, (height, width) = self.preprocess.size_divisor, images.shape[2:]
            images = F.pad(images, (0, -width % divisor, 0, -height % divisor))
            logits: torch.Tensor = network(images)  # [B, K, padded H/4, padded W/4]
        return logits if divisor == 1 else logits[:, :, : -(-height // 4), : -(-width // 4)]  # without the padding

    @torch.inference_mode()
    def predict(
        self, images: Sequence[npt.NDArray[np.uint8]], *, names: Sequence[str] | None = None, confidence: bool = False
    ) -> list[SemanticMap]:
        """Label maps at each image's own size, of RGB images [H, W, 3] of any sizes.

        Every image goes through the network by itself, so its labels never depend on its neighbours.
        """
        device = self.get_buffer("mean").device
        maps = []
        for image, name in zip(images, names or ["image"] * len(images), strict=True):
            size = (image.shape[0], image.shape[1])
            pixels = resized_image(image, fit_size(*size, self.preprocess.scale))  # [h, w, 3]
            batch = torch.from_numpy(np.require(pixels, requirements=("C", "W"))).to(device).permute(2, 0, 1)[None]
            logits = self._logits(self.model, self._normalised(batch))  # never the compiled one: sizes vary
            labels, winner = upsample_argmax(logits, size, confidence=confidence)
            maps.append(SemanticMap(
                labels=labels[0].cpu().numpy(), table=self.table, image=image, name=name,
                confidence=None if winner is None else winner[0].cpu().numpy(),
            ))  # fmt: skip
        return maps
