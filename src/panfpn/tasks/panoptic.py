"""Panoptic FPN with its losses and predictions. In: a Batch or images. Out: {name: loss}, or maps. Paper §3, §4.1."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from panfpn.labels import IGNORE, LabelTable
from panfpn.losses import BoxSample, box_losses, mask_loss, rpn_losses, sample_boxes
from panfpn.models import PanopticFPN
from panfpn.models.instance import (
    BOX_SIDE,
    MASK_SIDE,
    candidates,
    choose_boxes,
    decode_detections,
    propose,
)
from panfpn.models.merge import MergeRules, merge
from panfpn.models.panoptic import DenseMaps
from panfpn.ops import Size, View, upsample_argmax
from panfpn.ops.boxes import clip_boxes, has_area, pool_boxes
from panfpn.ops.paste import paste_mask
from panfpn.tasks.semantic import without_padding
from panfpn.tasks.task import Task, pixels_at
from panfpn.tasks.views import check_batch_size, groups_of_a_size, view_sizes
from panfpn.types import Batch, Detections, PanopticMap, Segment

_TRAIN_PROPOSALS = (2000, 1000)  # of each level, and in all; in prediction 1000 of each level


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What the network said of images at one size."""

    maps: DenseMaps
    size: Size
    mirrored: bool = False


class PanopticTask(Task):
    """Panoptic FPN: batch -> {name: loss}, images -> PanopticMaps. Arguments as of `Task`.

    `instance_weight` is the paper's λi, on all losses of the instance branch; λs is the weight in `loss`. `rois` is the
    number of boxes of an image that the box head learns from.
    """

    model: PanopticFPN
    instance_weight = 1.0
    rois = 512

    def forward(
        self, batch: Batch, *, pixels: torch.Tensor | None = None, share: float = 1.0
    ) -> dict[str, torch.Tensor]:
        """Loss terms by name; `pixels` and `share` as in `SemanticLoss`.

        ValueError for a batch without things (of a data set that was not opened as panoptic).
        """
        if batch.instances is None:
            raise ValueError("this batch has no things; open its data set with panoptic=True")
        maps: DenseMaps = self.learn(batch.images, batch.sizes)
        targets = self._channels(batch.targets)
        terms = self.loss(without_padding(maps.semantic, batch), targets, pixels=pixels, share=share)
        found = candidates(maps.objectness, maps.deltas, self.model.anchor_scale)
        instance = rpn_losses(
            torch.cat(found.boxes), torch.cat(found.logits, 1), torch.cat(found.deltas, 1), batch.instances
        )
        per_level, total = _TRAIN_PROPOSALS
        samples = [
            sample_boxes(propose(found, i, size, per_level=per_level, total=total)[0], instances, self.rois)
            for i, (size, instances) in enumerate(zip(batch.sizes, batch.instances, strict=True))
        ]
        instance |= self._box_and_mask_losses(maps.pyramid, samples)
        return terms | {name: self.instance_weight * share * value for name, value in instance.items()}

    @property
    def semantic_channels(self) -> npt.NDArray[np.int16]:
        """The channel of the semantic branch of each train id [K]; things it does not tell apart are 'other', 0."""
        channels = np.zeros(self.model.num_classes, np.int16)
        for channel, k in enumerate(self.model.semantic_ids):
            if k != IGNORE:
                channels[k] = channel
        return channels

    @property
    def semantic_names(self) -> tuple[str, ...]:
        """What the channels of the semantic branch are called."""
        return tuple("things" if k == IGNORE else self.table.names[k] for k in self.model.semantic_ids)

    def _channels(self, targets: torch.Tensor) -> torch.Tensor:
        """Train ids [B, H, W] as channels of the semantic branch, IGNORE as it is."""
        channels = torch.from_numpy(np.append(self.semantic_channels, np.int16(IGNORE)))
        return channels.to(targets.device)[targets.long()]

    def _box_and_mask_losses(
        self, pyramid: Sequence[torch.Tensor], samples: list[BoxSample]
    ) -> dict[str, torch.Tensor]:
        place = {k: i for i, k in enumerate(self.model.thing_ids)}
        background = len(place)
        labels = torch.cat([s.labels for s in samples])
        table = torch.tensor([*(place.get(k, background) for k in range(self.model.num_classes)), background])
        labels = table.to(labels.device)[labels]  # IGNORE, which is −1, is background
        pooled = pool_boxes(pyramid, [s.boxes for s in samples], BOX_SIDE)
        on_things = [s.boxes[: len(s.targets)] for s in samples]
        pooled_things = pool_boxes(pyramid, on_things, MASK_SIDE)
        with self.autocast():
            logits, deltas = self.model.box_head(pooled)
            masks = self.model.mask_head(pooled_things, labels[labels < background])
        losses = box_losses(logits.float(), deltas.float(), labels, samples)
        return losses | {"mask": mask_loss(masks.float(), samples)}

    @torch.inference_mode()
    def predict(
        self, images: Sequence[npt.NDArray[np.uint8]], *, names: Sequence[str] | None = None, batch_size: int = 1,
        every_mask: bool = False,
    ) -> list[PanopticMap]:  # fmt: skip
        """Panoptic maps at each image's own size, of RGB images [H, W, 3] of any sizes.

        With the default `batch_size` every image goes through the network by itself, so its map never depends on its
        neighbours. Masks are made for the detections that can enter the map, or with `every_mask` (which average
        precision needs) for all.
        """
        check_batch_size(batch_size)
        if self.inference.mode != "whole":
            raise ValueError(f"inference.mode is {self.inference.mode!r}; Panoptic FPN sees images whole")
        names = names or ["image"] * len(images)
        maps: list[PanopticMap] = []
        for group in groups_of_a_size(images, batch_size):
            seen = self._look([images[i] for i in group])
            for place, i in enumerate(group):
                views = [replace(view, maps=_of_image(view.maps, place)) for view in seen]
                maps.append(self.merged(views, images[i], names[i], every_mask=every_mask))
        return maps

    def _look(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[Seen]:
        """Run the network over images of one size, at all sizes and mirrored as `inference` asks."""
        size, mirrors = (images[0].shape[0], images[0].shape[1]), (False, True) if self.inference.flip else (False,)
        return [
            Seen(self.ask(pixels_at(images, s, mirrored=mirrored)), s, mirrored)
            for s in view_sizes(*size, self.preprocess, self.inference)
            for mirrored in mirrors
        ]

    def merged(
        self, views: list[Seen], image: npt.NDArray[np.uint8], name: str, *, every_mask: bool = False
    ) -> PanopticMap:
        """The map of one image [H, W, 3] of what the network said of it (B = 1); `every_mask` as in `predict`."""
        size, asked = (image.shape[0], image.shape[1]), self.inference
        semantic = self._semantic(views, size)
        detections = self._detect(views, size, 0.0 if every_mask else asked.confidence)
        stuff = np.array([IGNORE if c.thing else k for k, c in enumerate(self.table.classes)] + [IGNORE])[semantic]
        rules = MergeRules(confidence=asked.confidence, overlap=asked.overlap, stuff_area=asked.stuff_area)
        count = len(detections.masks)
        segments, found = merge(detections.scores[:count], detections.classes[:count], detections.masks, stuff, rules)
        info = describe(segments, found, detections.scores, self.table)
        return PanopticMap(segments=segments, info=info, table=self.table, semantic=semantic, detections=detections,
                           image=image, name=name)  # fmt: skip

    def _semantic(self, views: list[Seen], size: Size) -> npt.NDArray[np.int16]:
        """What the semantic branch says: train ids [H, W] at `size`, IGNORE for 'other'."""
        divisor = self.preprocess.size_divisor
        seen = []
        for view in views:
            padded = (view.size[0] + -view.size[0] % divisor, view.size[1] + -view.size[1] % divisor)
            windows = ((view.maps.semantic,),)
            seen.append(View(windows=windows, tops=(0,), lefts=(0,), window=view.size, padded=padded, size=view.size,
                             mirrored=view.mirrored))  # fmt: skip
        channels = upsample_argmax(seen, size)[0][0].cpu().numpy()
        return np.asarray(np.array(self.model.semantic_ids, np.int16)[channels])

    def _detect(self, views: list[Seen], size: Size, mask_score: float) -> Detections:
        """Detections in the image of `size`; masks only for those with a score of at least `mask_score`."""
        asked, first = self.inference, views[0].size
        boxes, scores = [], []
        for view in views:
            found = candidates(view.maps.objectness, view.maps.deltas, self.model.anchor_scale)
            proposals, _ = propose(found, 0, view.size)
            with self.autocast():
                logits, deltas = self.model.box_head(pool_boxes(view.maps.pyramid, [proposals], BOX_SIDE))
            box, score = decode_detections(logits, deltas, proposals, view.size)
            boxes.append(_between(box, view, first))
            scores.append(score)
        box, score, label = choose_boxes(
            torch.cat(boxes), torch.cat(scores), score=asked.box_score, nms=asked.nms,
            nms_over_classes=asked.nms_over_classes, most=asked.detections,
        )  # fmt: skip
        scale = box.new_tensor([size[1] / first[1], size[0] / first[0]]).repeat(2)
        final = clip_boxes(box * scale, size)
        kept = has_area(final)
        box, score, label, final = box[kept], score[kept], label[kept], final[kept]
        strong = int((score >= mask_score).sum())  # scores fall
        probabilities = self._masks(views, box[:strong], label[:strong]).cpu().numpy()
        places = final.cpu().numpy()
        masks = tuple(paste_mask(p, b, size) for p, b in zip(probabilities, places, strict=False))
        classes = np.array(self.model.thing_ids, np.int16)[label.cpu().numpy()]
        return Detections(boxes=places, scores=score.cpu().numpy(), classes=classes, masks=masks)

    def _masks(self, views: list[Seen], boxes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Probabilities [N, 28, 28] of the masks in boxes [N, 4] of the first view, mean over the views."""
        total = boxes.new_zeros((len(boxes), 2 * MASK_SIDE, 2 * MASK_SIDE))
        if not len(boxes):
            return total
        first = replace(views[0], mirrored=False)
        for view in views:
            own = _between(boxes, replace(first, mirrored=view.mirrored), view.size)
            with self.autocast():
                logits = self.model.mask_head(pool_boxes(view.maps.pyramid, [own], MASK_SIDE), labels)
            found = logits.float().sigmoid()
            total += found.flip(-1) if view.mirrored else found
        return total / len(views)


def _between(boxes: torch.Tensor, view: Seen, size: Size) -> torch.Tensor:
    """Boxes [..., 4] of a view, mirrored back if it is mirrored, as boxes of the image at `size`."""
    if view.mirrored:
        boxes = torch.stack(
            [view.size[1] - boxes[..., 2], boxes[..., 1], view.size[1] - boxes[..., 0], boxes[..., 3]], -1
        )
    if view.size == size:
        return boxes
    return boxes * boxes.new_tensor([size[1] / view.size[1], size[0] / view.size[0]]).repeat(2)


def _of_image(maps: DenseMaps, place: int) -> DenseMaps:
    part = slice(place, place + 1)
    return DenseMaps(maps.semantic[part], *([m[part] for m in level] for level in maps[1:]))


def describe(
    segments: npt.NDArray[np.int32],
    found: Sequence[tuple[int, int]],
    scores: npt.NDArray[np.float32],
    table: LabelTable,
) -> tuple[Segment, ...]:
    """What the segments [H, W] of `merge` are: class, score, area and box."""
    count = len(found) + 1
    rows, columns = (_extent(segments, axis, count) for axis in (0, 1))
    areas = np.bincount(segments.ravel(), minlength=count)
    info = []
    for number, (label, thing) in enumerate(found, 1):
        (top, bottom), (left, right) = rows[number], columns[number]
        info.append(Segment(
            id=number, train_id=label, name=table.names[label], thing=thing >= 0, area=int(areas[number]),
            box=(left, top, right - left, bottom - top), score=float(scores[thing]) if thing >= 0 else None,
        ))  # fmt: skip
    return tuple(info)


def _extent(segments: npt.NDArray[np.int32], axis: int, count: int) -> list[tuple[int, int]]:
    """First row (axis 0) or column (1), and the one after the last, of each segment."""
    length = segments.shape[axis]
    place = np.arange(length).reshape((-1, 1) if axis == 0 else (1, -1)) * count + segments
    there = np.bincount(place.ravel(), minlength=length * count).reshape(length, count) > 0
    last = length - there[::-1].argmax(0)
    return list(zip(there.argmax(0).tolist(), last.tolist(), strict=True))
