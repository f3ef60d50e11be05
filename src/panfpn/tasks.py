"""A network with its losses and predictions. In: a Batch or images. Out: {name: loss}, or maps. What DDP wraps."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from panfpn.config import Inference
from panfpn.data.transforms import fit_size, resized_image
from panfpn.labels import LabelTable
from panfpn.losses import SemanticLoss
from panfpn.models import SemanticFPN
from panfpn.ops import Size, View, as_float, upsample_argmax
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
        inference: Inference = Inference(),  # noqa: B008 - frozen
        loss: SemanticLoss | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if model.num_classes != table.num_classes:
            raise ValueError(
                f"the model has {model.num_classes} classes but label table {table.name!r} {table.num_classes}"
            )
        self.model, self.table, self.precision = model, table, precision
        self.preprocess, self.inference = preprocess, inference
        self.loss = loss or SemanticLoss(weights={"cross_entropy": 1.0})
        self.layout = torch.channels_last  # of images, which the network's maps follow
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
        logits = self._logits(self.dense, images)[:, :, : -(-images.shape[2] // 4), : -(-images.shape[3] // 4)]
        return self.loss(as_float(logits), batch.targets, pixels=pixels, share=share)

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, C, H, W] -> float32."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return ((images.float() - mean) / std).contiguous(memory_format=self.layout)

    def _logits(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Normalised images -> [B, K, H/4, W/4], those of the padding to `size_divisor` included."""
        divisor, (height, width) = self.preprocess.size_divisor, images.shape[2:]
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            images = F.pad(images, (0, -width % divisor, 0, -height % divisor))
            return network(images)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def predict(
        self, images: Sequence[npt.NDArray[np.uint8]], *, names: Sequence[str] | None = None, confidence: bool = False
    ) -> list[SemanticMap]:
        """Label maps at each image's own size, of RGB images [H, W, 3] of any sizes.

        Every image goes through the network by itself, so its labels never depend on its neighbours.
        """
        maps = []
        for image, name in zip(images, names or ["image"] * len(images), strict=True):
            size = (image.shape[0], image.shape[1])
            sizes = view_sizes(*size, self.preprocess, self.inference)
            views = [
                self._view(image, s, m) for s in sizes for m in ((False, True) if self.inference.flip else (False,))
            ]
            labels, winner = upsample_argmax(views, size, confidence=confidence)
            maps.append(SemanticMap(
                labels=labels[0].cpu().numpy(), table=self.table, image=image, name=name,
                confidence=None if winner is None else winner[0].cpu().numpy(),
            ))  # fmt: skip
        return maps

    def _view(self, image: npt.NDArray[np.uint8], size: Size, mirrored: bool) -> View:
        """Run the network over the image at `size`, in one piece or in windows."""
        pixels = resized_image(image, size)  # [h, w, 3]
        pixels = pixels[:, ::-1].copy() if mirrored else pixels  # torch takes no negative strides
        batch = torch.from_numpy(np.require(pixels, requirements=("C", "W"))).permute(2, 0, 1)[None]
        images = self._normalised(batch.to(self.get_buffer("mean").device))
        asked, divisor = self.inference, self.preprocess.size_divisor
        whole = asked.mode == "whole"
        height, width = (s if whole else min(w, s) for w, s in zip(asked.window, size, strict=True))
        tops, lefts = window_starts(size[0], height, asked.stride[0]), window_starts(size[1], width, asked.stride[1])
        windows = tuple(
            tuple(self._logits(self.model, images[:, :, t : t + height, x : x + width]) for x in lefts) for t in tops
        )  # never the compiled model: sizes vary
        padded = (height + -height % divisor, width + -width % divisor)
        return View(windows=windows, tops=tops, lefts=lefts, window=(height, width), padded=padded, size=size,
                    mirrored=mirrored)  # fmt: skip


def view_sizes(height: int, width: int, preprocess: Preprocess, inference: Inference) -> list[Size]:
    """Sizes at which the network sees an image; rounded as mmsegmentation 0.x or 1.x does (FACTS B4)."""
    scale, ratios = preprocess.scale, inference.ratios
    if ratios == (1.0,) and not (inference.flip and inference.ratios_of == "original"):
        sizes = [fit_size(height, width, scale)]
    elif inference.ratios_of == "original":
        sizes = [fit_size(height, width, (int(max(height, width) * r + 0.5), int(min(height, width) * r + 0.5)))
                 for r in ratios]  # fmt: skip
    else:
        long, short = scale or (max(height, width), min(height, width))
        sizes = [fit_size(height, width, (max(1, int(long * r)), max(1, int(short * r)))) for r in ratios]
    if inference.stretch:
        divisor = preprocess.size_divisor
        sizes = [(h + -h % divisor, w + -w % divisor) for h, w in sizes]
    return sizes


def window_starts(length: int, window: int, stride: int) -> tuple[int, ...]:
    """Where windows begin along one side; the last is moved back to end with the image."""
    return tuple(min(i * stride, length - window) for i in range(-(-(length - window) // stride) + 1))
