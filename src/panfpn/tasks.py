"""A network with its losses and predictions. In: a Batch or images. Out: {name: loss}, or maps. What DDP wraps."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Protocol

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


class Runtime(Protocol):
    """A faster copy of the network for predictions; panfpn.runtime has three."""

    engine: str
    compiled: bool

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels uint8 [B, h, w, 3] -> logits [B, K, h/4, w/4] with those of the padding."""


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
        self.runtime: Runtime | None = None  # makes the predictions, if there is one
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

    def train(self, mode: bool = True) -> "SemanticTask":
        """As of every module; training leaves the runtime behind, which holds the weights as they were."""
        if mode:
            self.runtime = None
        return super().train(mode)

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
        self, images: Sequence[npt.NDArray[np.uint8]], *, names: Sequence[str] | None = None, confidence: bool = False,
        batch_size: int = 1,
    ) -> list[SemanticMap]:  # fmt: skip
        """Label maps at each image's own size, of RGB images [H, W, 3] of any sizes.

        With the default `batch_size` every image goes through the network by itself, so its labels never depend on its
        neighbours; more makes up to that many neighbours of one size share a run, which GPUs like.
        """
        check_batch_size(batch_size)
        names = names or ["image"] * len(images)
        maps = []
        for group in _groups(images, batch_size):
            labels, winner = self._labels([images[i] for i in group], confidence)
            for place, i in enumerate(group):
                maps.append(SemanticMap(
                    labels=labels[place].cpu().numpy(), table=self.table, image=images[i], name=names[i],
                    confidence=None if winner is None else winner[place].cpu().numpy(),
                ))  # fmt: skip
        return maps

    def _labels(
        self, images: Sequence[npt.NDArray[np.uint8]], confidence: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Labels (and the winner's probability) [B, H, W] of images of one size."""
        size = (images[0].shape[0], images[0].shape[1])
        mirrors = (False, True) if self.inference.flip else (False,)
        views = [
            self._view(images, s, mirrored)
            for s in view_sizes(*size, self.preprocess, self.inference)
            for mirrored in mirrors
        ]
        return upsample_argmax(views, size, confidence=confidence)

    def _view(self, images: Sequence[npt.NDArray[np.uint8]], size: Size, mirrored: bool) -> View:
        """Run the network over images at `size`, in one piece or in windows."""
        resized = [resized_image(image, size) for image in images]
        array = resized[0][None] if len(resized) == 1 else np.stack(resized)  # [B, h, w, 3]
        array = array[:, :, ::-1].copy() if mirrored else array  # torch takes no negative strides
        pixels = torch.from_numpy(np.require(array, requirements=("C", "W")))
        asked, divisor = self.inference, self.preprocess.size_divisor
        whole = asked.mode == "whole"
        height, width = (s if whole else min(w, s) for w, s in zip(asked.window, size, strict=True))
        tops, lefts = window_starts(size[0], height, asked.stride[0]), window_starts(size[1], width, asked.stride[1])
        windows = tuple(tuple(self._ask(pixels[:, t : t + height, x : x + width]) for x in lefts) for t in tops)
        padded = (height + -height % divisor, width + -width % divisor)
        return View(windows=windows, tops=tops, lefts=lefts, window=(height, width), padded=padded, size=size,
                    mirrored=mirrored)  # fmt: skip

    def _ask(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels uint8 [B, h, w, 3] -> logits [B, K, h/4, w/4]; never by the compiled model, as sizes vary."""
        if self.runtime is not None:
            return self.runtime(pixels)
        images = pixels.permute(0, 3, 1, 2).to(self.get_buffer("mean").device)
        return self._logits(self.model, self._normalised(images))


def check_batch_size(batch_size: int) -> None:
    """ValueError unless at least one image goes through the network at a time."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")


def _groups(images: Sequence[npt.NDArray[np.uint8]], batch_size: int) -> Iterator[list[int]]:
    """Numbers of neighbouring images of one size, at most `batch_size` together."""
    for _, group in groupby(range(len(images)), key=lambda i: images[i].shape):
        numbers = list(group)
        yield from (numbers[i : i + batch_size] for i in range(0, len(numbers), batch_size))


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
