"""Panoptic FPN at work. In: a Batch or images. Out: {name: loss}, or panoptic maps and scores. Paper §3, §4.1."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from panfpn.config import Model, TrainConfig
from panfpn.data import Dataset
from panfpn.labels import IGNORE, LabelTable
from panfpn.losses import BoxSample, box_losses, in_first, mask_loss, rpn_losses, sample_boxes
from panfpn.metrics import PanopticScores
from panfpn.models import PanopticFPN
from panfpn.models.backbone import AnyBackbone
from panfpn.models.instance import BOX_SIDE, MASK_SIDE, candidates, propose
from panfpn.models.merge import MergeRules, detections_of, merge, only_stuff
from panfpn.models.panoptic import DenseMaps
from panfpn.models.pixels import PixelNetwork
from panfpn.ops import Size, View, grown, upsample_argmax
from panfpn.ops.boxes import pool_boxes
from panfpn.ops.seams import Cuts
from panfpn.tasks.detect import DenseView, detect, of_image
from panfpn.tasks.panoptic_graph import PanopticGraph
from panfpn.tasks.scorers import PanopticScorer
from panfpn.tasks.semantic import without_padding
from panfpn.tasks.task import Image, Loss, Task
from panfpn.tasks.tiles import JoinedTiles, Tiles, check_plain
from panfpn.tasks.views import check_batch_size, groups_of_a_size, list_views, pixels_at
from panfpn.types import Batch, Detections, PanopticMap, Segment
from panfpn.weights.exported.program import Arrays

_TRAIN_PROPOSALS = (2000, 1000)  # of each level, and in all; in prediction 1000 of each level
_NO_CONFIDENCE = (
    "a panoptic map has no confidence of each pixel; its things have scores, which NAME.json (panoptic) holds"
)


class PanopticTask(Task):
    """Panoptic FPN: batch -> {name: loss}, images -> PanopticMaps.

    `instance_weight` is the paper's λi, on all losses of the instance branch; λs is the weight in `loss`. `rois` is the
    number of boxes of an image that the box head learns from.
    """

    architecture = "PanopticFPN"
    network_type = PanopticFPN
    map_type = PanopticMap
    score_type = PanopticScores
    needs_segments = True
    class_tensors = ("head.classifier.", "box_head.classifier.", "box_head.deltas.", "mask_head.classifier.")

    instance_weight = 1.0
    rois = 512

    @classmethod
    def build(cls, config: TrainConfig, table: LabelTable, network: nn.Module, *, loss: Loss | None = None) -> Self:
        """See `Task.build`."""
        task = super().build(config, table, network, loss=loss)
        task.instance_weight, task.rois = config.loss.instance, config.train.rois
        return task

    @staticmethod
    def build_network(model: Model, backbone: AnyBackbone, table: LabelTable) -> PanopticFPN:
        """See `Task.build_network`."""
        return PanopticFPN(
            backbone, table, in_channels=model.in_channels, pyramid=model.pyramid, fpn_channels=model.fpn_channels,
            head_channels=model.head_channels, norm=model.norm, dropout=model.dropout,
            semantic_things=model.semantic_things, anchor_scale=model.anchor_scale, box_channels=model.box_channels,
            mask_channels=model.mask_channels,
        )  # fmt: skip

    @staticmethod
    def semantic_classes(model: Model, table: LabelTable) -> tuple[str, ...]:
        """The table's, or 'things' and then the stuff."""
        if model.semantic_things == "all":
            return table.names
        return ("things", *(c.name for c in table.classes if not c.thing))

    def forward(
        self, batch: Batch, *, pixels: torch.Tensor | None = None, share: float = 1.0
    ) -> dict[str, torch.Tensor]:
        """Loss terms by name; `pixels` and `share` as in `SemanticLoss`.

        ValueError for a batch without things (of a data set that was not opened as panoptic).
        """
        if batch.instances is None:
            raise ValueError("this batch has no things; open its data set with panoptic=True")
        maps: DenseMaps = self.pixels(batch.images.permute(0, 2, 3, 1), batch.extents)
        channels = self.model.semantic_index.to(batch.targets.dtype)
        targets = channels[batch.targets.long()]  # IGNORE as it is
        terms = self.loss(without_padding(maps.semantic, batch, self.stride), targets, pixels=pixels, share=share)
        anchors = candidates(maps.objectness, maps.deltas, self.model.anchor_scale, self.stride)
        instance = rpn_losses(
            torch.cat(anchors.boxes), torch.cat(anchors.logits, 1), torch.cat(anchors.deltas, 1), batch.instances
        )
        per_level, total = _TRAIN_PROPOSALS
        samples = []
        for i, (size, instances) in enumerate(zip(batch.sizes, batch.instances, strict=True)):
            proposals = propose(anchors, i, size, per_level=per_level, total=total)
            samples.append(sample_boxes(proposals.boxes, instances, self.rois, valid=proposals.valid))
        instance |= self._box_and_mask_losses(maps.pyramid, samples)
        return terms | {name: self.instance_weight * share * value for name, value in instance.items()}

    @property
    def semantic_channels(self) -> npt.NDArray[np.int16]:
        """The channel of the semantic branch of each train id [K]; things it does not tell apart are 'other', 0."""
        ids = self.model.semantic_ids
        return np.array([ids.index(k) if k in ids else 0 for k in range(self.table.num_classes)], np.int16)

    @property
    def semantic_names(self) -> tuple[str, ...]:
        """What the channels of the semantic branch are called."""
        return tuple("things" if k == IGNORE else self.table.names[k] for k in self.model.semantic_ids)

    def _box_and_mask_losses(
        self, pyramid: Sequence[torch.Tensor], samples: list[BoxSample]
    ) -> dict[str, torch.Tensor]:
        labels = self.model.thing_index[torch.cat([s.labels for s in samples])]  # IGNORE is background
        classes = in_first(labels, samples).clamp(max=len(self.model.thing_ids) - 1)
        pooled = pool_boxes(pyramid, [s.boxes for s in samples], BOX_SIDE, self.stride)
        on_things = [s.boxes[: len(s.positive)] for s in samples]
        pooled_things = pool_boxes(pyramid, on_things, MASK_SIDE, self.stride)
        with self.pixels.autocast():
            logits, deltas = self.model.box_head(pooled)
            masks = self.model.mask_head(pooled_things, classes)
        losses = box_losses(logits.float(), deltas.float(), labels, samples)
        return losses | {"mask": mask_loss(masks.float(), samples)}

    @torch.inference_mode()
    def predict(
        self, images: Sequence[Image], *, names: Sequence[str] | None = None, batch_size: int = 1,
        confidence: bool = False, every_mask: bool = False,
    ) -> list[PanopticMap]:  # fmt: skip
        """Panoptic maps at each image's own size; see `Task.predict`.

        Masks are made for the detections that can enter the map, or with `every_mask` (which average precision needs)
        for all.
        """
        self.check_outputs(confidence=confidence, every_mask=every_mask)
        check_batch_size(batch_size)
        names = names or ["image"] * len(images)
        maps: list[PanopticMap] = []
        for group in groups_of_a_size(images, batch_size):
            some = [images[i] for i in group]
            if self.program is not None:
                arrays = self.program(np.stack(some))
                maps += [self._of_arrays(arrays, j, images[i], names[i]) for j, i in enumerate(group)]
                continue
            views = []
            for size, mirrored in list_views(some[0].shape[0], some[0].shape[1], self.preprocess, self.inference):
                views.append(self._view(some, size, mirrored))
            for j, i in enumerate(group):
                single = [replace(view, maps=of_image(view.maps, j)) for view in views]
                maps.append(self._merged(single, images[i], names[i], every_mask=every_mask))
        return maps

    def graph(self, pixels: PixelNetwork, also: Sequence[str] = ()) -> PanopticGraph:
        """See `Task.graph`."""
        self.check_outputs(confidence="confidence" in also or "probabilities" in also)
        return PanopticGraph(pixels, self.preprocess, self.inference, every_mask="every_mask" in also)

    def _of_arrays(self, arrays: Arrays, index: int, image: Image, name: str) -> PanopticMap:
        """The map of one image, of what `PanopticGraph` gives for a batch."""
        boxes, scores, classes, masks, semantic = detections_of(
            arrays, index, self.model.thing_ids, self.model.semantic_ids
        )
        detections = Detections(boxes=boxes, scores=scores, classes=classes, masks=masks)
        return self._map(detections, semantic, image, name)

    def _view(self, images: Sequence[Image], size: Size, mirrored: bool) -> DenseView:
        """Run the network over images at `size`."""
        run = self.engine or self.pixels.forward
        return DenseView(run(pixels_at(images, size, mirrored=mirrored).to(self.device)), size, mirrored)

    def tiles(self, rows: Cuts, columns: Cuts) -> Tiles:
        """See `Task.tiles`."""
        check_plain(self.inference)
        return JoinedTiles(self, rows, columns)

    def check_outputs(self, *, confidence: bool = False, every_mask: bool = False) -> None:
        """See `Task.check_outputs`; also for an `inference.mode` that is not for this network."""
        if confidence:
            raise ValueError(_NO_CONFIDENCE)
        if every_mask and self.program is not None and "every_mask" not in self.program.names:
            raise ValueError(f"{self.program.file}: has masks of what enters the map alone; export the model with "
                             "--every-mask")  # fmt: skip
        if self.inference.mode != "whole":
            raise ValueError(f"inference.mode is {self.inference.mode!r}; Panoptic FPN sees images whole")

    def scorer(
        self, dataset: Dataset, *, trimap_width: int | None = None, average_precision: bool = False
    ) -> PanopticScorer:
        """See `Task.scorer`."""
        if trimap_width is not None:
            raise ValueError("Boundary IoU is counted for Semantic FPN only; leave --boundary out")
        images = tuple(map(dataset.name, range(len(dataset))))
        return PanopticScorer(self.table, self.semantic_channels, self.semantic_names, average_precision, images)

    def _merged(self, views: list[DenseView], image: Image, name: str, *, every_mask: bool = False) -> PanopticMap:
        """The map of one image [H, W, 3] from the views of it (B = 1); `every_mask` as in `predict`."""
        size, settings = (image.shape[0], image.shape[1]), self.inference
        detections = detect(
            self.model, views, size, settings, mask_score=0.0 if every_mask else settings.confidence,
            autocast=self.pixels.autocast,
        )  # fmt: skip
        return self._map(detections, self._semantic(views, size), image, name)

    def _map(self, detections: Detections, semantic: npt.NDArray[np.int16], image: Image, name: str) -> PanopticMap:
        """The map of detections and of what the semantic branch says [H, W]."""
        settings = self.inference
        stuff = only_stuff(semantic, [c.thing for c in self.table.classes])
        rules = MergeRules(confidence=settings.confidence, overlap=settings.overlap, stuff_area=settings.stuff_area)
        count = len(detections.masks)
        segments, sources = merge(detections.scores[:count], detections.classes[:count], detections.masks, stuff, rules)
        info = describe(segments, sources, detections.scores, self.table)
        return PanopticMap(segments=segments, info=info, table=self.table, semantic=semantic, detections=detections,
                           image=image, name=name)  # fmt: skip

    def _semantic(self, views: list[DenseView], size: Size) -> npt.NDArray[np.int16]:
        """What the semantic branch says: train ids [H, W] at `size`, IGNORE for 'other'."""
        divisor = self.preprocess.size_divisor
        semantic = []
        for view in views:
            windows, padded = ((view.maps.semantic,),), grown(view.size, divisor)
            semantic.append(View(windows=windows, tops=(0,), lefts=(0,), window=view.size, padded=padded,
                                 size=view.size, mirrored=view.mirrored))  # fmt: skip
        channels = upsample_argmax(semantic, size)[0][0].cpu().numpy()
        return np.asarray(np.array(self.model.semantic_ids, np.int16)[channels])


def describe(
    segments: npt.NDArray[np.int32],
    sources: Sequence[tuple[int, int]],
    scores: npt.NDArray[np.float32],
    table: LabelTable,
) -> tuple[Segment, ...]:
    """What the segments [H, W] of `merge` are, which came of `sources`: class, score, area and box."""
    count = len(sources) + 1
    rows, columns = (_extent(segments, axis, count) for axis in (0, 1))
    areas = np.bincount(segments.ravel(), minlength=count)
    info = []
    for number, (label, thing) in enumerate(sources, 1):
        (top, bottom), (left, right) = rows[number], columns[number]
        info.append(Segment(
            id=number, train_id=label, name=table.names[label], thing=thing >= 0, area=int(areas[number]),
            box=(left, top, right - left, bottom - top), score=float(scores[thing]) if thing >= 0 else None,
        ))  # fmt: skip
    return tuple(info)


def _extent(segments: npt.NDArray[np.int32], axis: int, count: int) -> list[tuple[int, int]]:
    """First row (axis 0) or column (1), and the one after the last, of each segment."""
    length = segments.shape[axis]
    position = np.arange(length).reshape((-1, 1) if axis == 0 else (1, -1)) * count + segments
    there = np.bincount(position.ravel(), minlength=length * count).reshape(length, count) > 0
    last = length - there[::-1].argmax(0)
    return list(zip(there.argmax(0).tolist(), last.tolist(), strict=True))
