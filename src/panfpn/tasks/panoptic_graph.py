"""Panoptic FPN's prediction up to the merge as one module: boxes, NMS, RoIAlign, masks, for a batch of any size.

In: pixels uint8 [B, H, W, C]. Out: detections of all images, best first, and what the semantic branch says.
"""

import math

import torch
from torchvision.ops import roi_align

from panfpn.config import Inference
from panfpn.models.instance import BOX_SIDE, MASK_SIDE, PROPOSAL_IOU, Candidates, candidates, decode_detections
from panfpn.models.pixels import PixelNetwork
from panfpn.ops import Size
from panfpn.ops.boxes import RPN_WEIGHTS, clip_boxes, decode_boxes, has_area, levels_of, scale_boxes
from panfpn.tasks.graph import Graph, bounded, first_of_each, grouped_nms, smaller, where
from panfpn.types import Preprocess

_PROPOSALS = 1000  # of each level, and in all


class PanopticGraph(Graph):
    """Detections N of all images together, scores falling; the first M have masks (all of them with `every_mask`).

    `boxes` float32 [N, 4] in the input's pixels, `scores` [N], `classes` int64 [N] (numbers of things), `images` int64
    [N], `masks` (or `every_mask`) float32 [M, 28, 28]: probabilities within their boxes, `semantic` uint8 [B, H, W]:
    channels of the semantic branch.
    """

    def __init__(
        self, pixels: PixelNetwork, preprocess: Preprocess, inference: Inference, *, every_mask: bool = False
    ) -> None:
        super().__init__(pixels, preprocess)
        self.inference, self.mask_score = inference, 0.0 if every_mask else inference.confidence
        self.names = ("boxes", "scores", "classes", "images", "every_mask" if every_mask else "masks", "semantic")

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See the class."""
        batch, size, settings = pixels.shape[0], (pixels.shape[1], pixels.shape[2]), self.inference
        images, seen = self.fitted(pixels)
        maps, network = self.pixels(images), self.network
        (semantic,) = self.each_pixel(maps.semantic, seen, size, lambda logits: (logits.argmax(1).to(torch.uint8),))
        anchors = candidates(maps.objectness, maps.deltas, network.anchor_scale, network.stride)
        proposals = self._proposals(anchors, batch, seen)  # [P, 5]: image, corners
        logits, deltas = network.box_head(self._pooled(maps.pyramid, proposals, BOX_SIDE))
        boxes, scores = decode_detections(logits, deltas, proposals[:, 1:], seen)
        finite = boxes.sum(-1).isfinite() & has_area(proposals[:, 1:])[:, None]
        row, label = bounded(((scores > settings.box_score) & finite).nonzero()).unbind(1)
        box, score, image = boxes[row, label], scores[row, label], proposals[row, 0].long()
        group = image if settings.nms_over_classes else image * network.box_head.num_things + label
        kept = grouped_nms(box, score, group, settings.nms, seen)
        kept = kept[first_of_each(image[kept], batch, settings.detections)]
        final = clip_boxes(scale_boxes(box[kept], seen, size), size)
        sound = where(has_area(final))
        kept, final = kept[sound], final[sound]
        score, label, image = score[kept], label[kept], image[kept]
        strong = where(score >= self.mask_score)  # the first ones: scores fall
        under = torch.cat([image[strong, None].float(), box[kept][strong]], 1)
        masks = network.mask_head(self._pooled(maps.pyramid, under, MASK_SIDE), label[strong]).float().sigmoid()
        return final, score, label, image, masks, semantic

    def _proposals(self, anchors: Candidates, batch: int, size: Size) -> torch.Tensor:
        """[P, 5] of all images, best first: image, corners; of each image at most 1000.

        An NMS for each level: one for all of them, with levels moved apart, takes engines four times as long.
        """
        boxes, logits, images = [], [], []
        for anchor, score, delta in zip(*anchors, strict=True):
            best, index = score.topk(smaller(score.shape[1], _PROPOSALS))  # [B, k]
            image = (torch.arange(batch, device=best.device)[:, None] + torch.zeros_like(index)).flatten()
            deltas = delta.flatten(0, 1)[image * score.shape[1] + index.flatten()]  # [B * k, 4]
            decoded = decode_boxes(deltas[:, None], anchor[index.flatten()], RPN_WEIGHTS)[:, 0]
            box = clip_boxes(decoded, size)
            sound = has_area(box) & box.isfinite().all(-1) & best.flatten().isfinite()
            box, logit = box.where(sound[:, None], 0), best.flatten().where(sound, -math.inf)
            kept = grouped_nms(box, logit, image, PROPOSAL_IOU, size)
            boxes.append(box[kept])
            logits.append(logit[kept])
            images.append(image[kept])
        logit = torch.cat(logits)
        _, order = logit.topk(logit.shape[0])
        box, image = torch.cat(boxes)[order], torch.cat(images)[order]
        first = first_of_each(image, batch, _PROPOSALS)
        return torch.cat([image[first, None].float(), box[first]], 1)

    def _pooled(self, pyramid: list[torch.Tensor], boxes: torch.Tensor, side: int) -> torch.Tensor:
        """RoIAlign of boxes [N, 5] (image, corners), each on its level: [N, C, side, side]."""
        stride = self.network.stride
        levels = levels_of(boxes, stride)
        pooled = boxes.new_zeros((boxes.shape[0], pyramid[0].shape[1], side, side))
        for level, features in enumerate(pyramid):
            index = where(levels == level)
            part = roi_align(features.float(), boxes[index], (side, side), 1 / (stride << level), 0, True)
            pooled = pooled.index_put((index,), part)
        return pooled
