"""Semantic FPN at work. In: a Batch or images. Out: {name: loss}, or label maps, and their scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from panfpn.config import Model
from panfpn.data import Dataset
from panfpn.labels import IGNORE, LabelTable
from panfpn.metrics import SemanticScores
from panfpn.models import SemanticFPN
from panfpn.models.backbone import AnyBackbone
from panfpn.models.pixels import PixelNetwork
from panfpn.ops import Size, View, as_float, grown, logits_at, upsample_argmax
from panfpn.ops.seams import Cuts
from panfpn.tasks.scorers import SemanticScorer
from panfpn.tasks.semantic_graph import SemanticGraph
from panfpn.tasks.task import Image, Task
from panfpn.tasks.tiles import BlendedTiles, CutTiles, Tiles, check_plain
from panfpn.tasks.views import check_batch_size, groups_of_a_size, list_views, pixels_at, window_starts
from panfpn.types import Batch, SemanticMap


class SemanticTask(Task):
    """Semantic FPN: batch -> {name: loss}, images -> SemanticMaps."""

    architecture = "SemanticFPN"
    network_type = SemanticFPN
    map_type = SemanticMap
    score_type = SemanticScores
    needs_segments = False
    class_tensors = ("head.classifier.",)

    @staticmethod
    def build_network(model: Model, backbone: AnyBackbone, table: LabelTable) -> SemanticFPN:
        """See `Task.build_network`."""
        return SemanticFPN(
            backbone, table.num_classes, in_channels=model.in_channels, pyramid=model.pyramid,
            fpn_channels=model.fpn_channels, head_channels=model.head_channels, norm=model.norm, dropout=model.dropout,
        )  # fmt: skip

    @staticmethod
    def semantic_classes(model: Model, table: LabelTable) -> tuple[str, ...]:
        """The table's."""
        return table.names

    def forward(
        self, batch: Batch, *, pixels: torch.Tensor | None = None, share: float = 1.0
    ) -> dict[str, torch.Tensor]:
        """Loss terms by name; `pixels` and `share` as in `SemanticLoss`."""
        if batch.features is None:
            logits = self.pixels(batch.images.permute(0, 2, 3, 1), batch.extents)
        else:
            logits = self.pixels.decoded(batch.features, (batch.images.shape[2], batch.images.shape[3]))
        logits = without_padding(logits, batch, self.stride)
        return self.loss(logits, batch.targets, pixels=pixels, share=share)

    @torch.inference_mode()
    def predict(
        self, images: Sequence[Image], *, names: Sequence[str] | None = None, batch_size: int = 1,
        confidence: bool = False, every_mask: bool = False,
    ) -> list[SemanticMap]:  # fmt: skip
        """Label maps at each image's own size; see `Task.predict`."""
        least = self.least_confidence
        self.check_outputs(confidence=confidence or least > 0, every_mask=every_mask)
        check_batch_size(batch_size)
        names = names or ["image"] * len(images)
        maps = []
        for group in groups_of_a_size(images, batch_size):
            labels, winner = self._labels([images[i] for i in group], confidence or least > 0)
            if least > 0 and winner is not None:
                labels = np.where(winner < least, IGNORE, labels.astype(np.int16))
            for j, i in enumerate(group):
                maps.append(SemanticMap(
                    labels=labels[j], table=self.table, image=images[i], name=names[i],
                    confidence=None if winner is None or not confidence else winner[j],
                ))  # fmt: skip
        return maps

    def _labels(
        self, images: Sequence[Image], confidence: bool
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]:
        """Labels [B, H, W] of images of one size, and how likely they are."""
        if self.program is not None:
            arrays = self.program(np.stack(images))
            return arrays["labels"], arrays.get("confidence") if confidence else None
        size = (images[0].shape[0], images[0].shape[1])
        views = []
        for view_size, mirrored in list_views(*size, self.preprocess, self.inference):
            views.append(self._view(images, view_size, mirrored))
        labels, winner = upsample_argmax(views, size, confidence=confidence)
        return labels.cpu().numpy(), None if winner is None else winner.cpu().numpy()

    @torch.inference_mode()
    def logits_at(self, image: Image, places: npt.NDArray[np.integer]) -> torch.Tensor:
        """Logits [N, K] of an image's pixels, counted row by row (rising): `predict` labels by the largest.

        ValueError for an exported graph, and where several views are averaged.
        """
        size = (image.shape[0], image.shape[1])
        views = list_views(*size, self.preprocess, self.inference)
        if self.program is not None or len(views) > 1:
            raise ValueError("logits are those of one view; leave inference.ratios and inference.flip at their "
                             "defaults, and take the release file")  # fmt: skip
        return logits_at(self._view([image], *views[0]), size, torch.from_numpy(places))

    def graph(self, pixels: PixelNetwork, also: Sequence[str] = ()) -> SemanticGraph:
        """See `Task.graph`."""
        self.check_outputs(every_mask="every_mask" in also)
        return SemanticGraph(pixels, self.preprocess, also)

    def tiles(self, rows: Cuts, columns: Cuts) -> Tiles:
        """See `Task.tiles`."""
        check_plain(self.inference)
        if self.least_confidence > 0:
            raise ValueError("unsure labels of rasters cannot be rejected; leave --reject out")
        return (BlendedTiles if self.program is None else CutTiles)(self, rows, columns)

    def _view(self, images: Sequence[Image], size: Size, mirrored: bool) -> View:
        """Run the network over images at `size`, in one piece or in windows."""
        pixels = pixels_at(images, size, mirrored=mirrored).to(self.device)
        settings, divisor, run = self.inference, self.preprocess.size_divisor, self.engine or self.pixels.forward
        whole = settings.mode == "whole"
        height, width = (s if whole else min(w, s) for w, s in zip(settings.window, size, strict=True))
        tops = window_starts(size[0], height, settings.stride[0])
        lefts = window_starts(size[1], width, settings.stride[1])
        windows: list[list[torch.Tensor]] = []
        for top in tops:
            windows.append([])
            for left in lefts:
                windows[-1].append(run(pixels[:, top : top + height, left : left + width]))
        padded = grown((height, width), divisor)
        return View(windows=tuple(map(tuple, windows)), tops=tops, lefts=lefts, window=(height, width), padded=padded,
                    size=size, mirrored=mirrored)  # fmt: skip

    def check_outputs(self, *, confidence: bool = False, every_mask: bool = False) -> None:
        """See `Task.check_outputs`."""
        if every_mask:
            raise ValueError("Semantic FPN has no masks of instances; every_mask is for Panoptic FPN")
        if confidence and self.program is not None and "confidence" not in self.program.names:
            raise ValueError(f"{self.program.file}: gives labels alone; export the model with --confidence")

    def scorer(
        self, dataset: Dataset, *, trimap_width: int | None = None, average_precision: bool = False
    ) -> SemanticScorer:
        """See `Task.scorer`."""
        if average_precision:
            raise ValueError("AP is of instances, which Semantic FPN does not tell apart; leave --ap out")
        return SemanticScorer(self.table, dataset, trimap_width)


def without_padding(logits: torch.Tensor, batch: Batch, stride: int) -> torch.Tensor:
    """Logits [B, K, h, w] of a stride without those of the padding to `size_divisor`, float32 at least."""
    height, width = batch.images.shape[2:]
    return as_float(logits[:, :, : -(-height // stride), : -(-width // stride)])
