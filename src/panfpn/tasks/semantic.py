"""Semantic FPN with its loss and predictions. In: a Batch or images. Out: {name: loss}, or maps. What DDP wraps."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from panfpn.models import SemanticFPN
from panfpn.ops import Size, View, as_float, upsample_argmax
from panfpn.tasks.task import Task, pixels_at
from panfpn.tasks.views import check_batch_size, groups_of_a_size, view_sizes, window_starts
from panfpn.types import Batch, SemanticMap


class SemanticTask(Task):
    """Semantic FPN: batch -> {name: loss}, images -> SemanticMaps. Arguments as of `Task`."""

    model: SemanticFPN

    def forward(
        self, batch: Batch, *, pixels: torch.Tensor | None = None, share: float = 1.0
    ) -> dict[str, torch.Tensor]:
        """Loss terms by name; `pixels` and `share` as in `SemanticLoss`."""
        logits = without_padding(self.learn(batch.images, batch.sizes), batch)
        return self.loss(logits, batch.targets, pixels=pixels, share=share)

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
        for group in groups_of_a_size(images, batch_size):
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
        pixels = pixels_at(images, size, mirrored=mirrored)
        asked, divisor = self.inference, self.preprocess.size_divisor
        whole = asked.mode == "whole"
        height, width = (s if whole else min(w, s) for w, s in zip(asked.window, size, strict=True))
        tops, lefts = window_starts(size[0], height, asked.stride[0]), window_starts(size[1], width, asked.stride[1])
        windows = tuple(tuple(self.ask(pixels[:, t : t + height, x : x + width]) for x in lefts) for t in tops)
        padded = (height + -height % divisor, width + -width % divisor)
        return View(windows=windows, tops=tops, lefts=lefts, window=(height, width), padded=padded, size=size,
                    mirrored=mirrored)  # fmt: skip


def without_padding(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Logits [B, K, h, w] without those of the padding to `size_divisor`, float32 at least."""
    height, width = batch.images.shape[2:]
    return as_float(logits[:, :, : -(-height // 4), : -(-width // 4)])
