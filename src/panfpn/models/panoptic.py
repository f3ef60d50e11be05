"""Panoptic FPN. In: images [B, C, H, W], normalised. Out: semantic logits, the pyramid, its anchors. Paper §3."""

from typing import Literal, NamedTuple, cast

import torch
from torch import nn

from panfpn.labels import IGNORE, LabelTable
from panfpn.models.backbone import AnyBackbone, make_backbone
from panfpn.models.instance import BoxHead, MaskHead, RPNHead
from panfpn.models.pyramid import Pyramid, make_levels, make_pyramid, stride_of
from panfpn.models.semantic import Norm, SemanticHead


class DenseMaps(NamedTuple):
    """What a Panoptic FPN gives before any box is chosen."""

    semantic: torch.Tensor  # logits [B, K, H/4, W/4]
    pyramid: list[torch.Tensor]  # p2…p5 [B, C, H/s, W/s]
    objectness: list[torch.Tensor]  # of p2…p6: [B, A, H/s, W/s]
    deltas: list[torch.Tensor]  # [B, 4 A, H/s, W/s]


class PanopticFPN(nn.Module):
    """Backbone, FPN, the semantic head, and Mask R-CNN's heads beside it.

    Args: `table` says which classes are things. `semantic_things` "other" gives the semantic branch one class for all
    things (its channel 0; the stuff classes follow in the table's order), "all" every class of the table. An anchor's
    side is `anchor_scale` times the stride that its level has with a ResNet. The others are those of `SemanticFPN`; the
    paper and detectron2 take norm "group" and no dropout.

    Raises:
        ValueError: a label table without things, or a backbone that does not fit.
        ConnectionError: the pretrained weights cannot be fetched.
    """

    def __init__(
        self,
        backbone: str | AnyBackbone,
        table: LabelTable,
        *,
        in_channels: int = 3,
        pretrained_backbone: bool = False,
        pyramid: Pyramid | None = None,
        fpn_channels: int = 256,
        head_channels: int = 128,
        norm: Norm = "batch",
        dropout: float = 0.1,
        semantic_things: Literal["other", "all"] = "other",
        anchor_scale: float = 8.0,
        box_channels: int = 1024,
        mask_channels: int = 256,
    ) -> None:
        super().__init__()
        self.num_classes = table.num_classes
        self.thing_ids = tuple(k for k, c in enumerate(table.classes) if c.thing)  # train id of each class of boxes
        stuff_ids = tuple(k for k, c in enumerate(table.classes) if not c.thing)
        if not self.thing_ids:
            raise ValueError(
                f"label table {table.name!r} has no things, so there is nothing for the instance branch to find; take "
                "Semantic FPN (model.architecture SemanticFPN), or declare `thing: true` where classes are counted"
            )
        # Train id of each channel of the semantic branch.
        self.semantic_ids = (IGNORE, *stuff_ids) if semantic_things == "other" else tuple(range(table.num_classes))
        self.anchor_scale = anchor_scale
        # Of each train id, and last of IGNORE: its channel of the semantic branch, and its class of boxes. In int64, as
        # DDP sends buffers around, but none of 16 bits.
        channels = [self.semantic_ids.index(k) if k in self.semantic_ids else 0 for k in range(table.num_classes)]
        things = [self.thing_ids.index(k) if c.thing else len(self.thing_ids) for k, c in enumerate(table.classes)]
        self.semantic_index: torch.Tensor
        self.thing_index: torch.Tensor
        self.register_buffer("semantic_index", torch.tensor([*channels, IGNORE]), persistent=False)
        self.register_buffer("thing_index", torch.tensor([*things, len(self.thing_ids)]), persistent=False)
        self.backbone = make_backbone(backbone, in_channels=in_channels, pretrained=pretrained_backbone)
        self.stride = stride_of(cast(AnyBackbone, self.backbone))
        self.fpn = make_pyramid(cast(AnyBackbone, self.backbone), fpn_channels, pyramid)
        self.head = SemanticHead(
            fpn_channels, len(self.semantic_ids), channels=head_channels, norm=norm, dropout=dropout
        )
        self.rpn = RPNHead(fpn_channels)
        self.box_head = BoxHead(fpn_channels, len(self.thing_ids), box_channels)
        self.mask_head = MaskHead(fpn_channels, len(self.thing_ids), mask_channels)

    def forward(self, images: torch.Tensor) -> DenseMaps:
        """Normalised images [B, C, H, W] of any size -> the maps of the dense part; the heads of boxes come later.

        The padding that brings H and W to multiples of 32 is the caller's.
        """
        pyramid = make_levels(self.backbone, self.fpn, self.backbone(images), images.shape[2:])
        objectness, deltas = self.rpn(pyramid)
        return DenseMaps(self.head(pyramid), pyramid, objectness, deltas)
