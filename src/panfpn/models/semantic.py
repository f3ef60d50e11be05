"""Semantic FPN. In: images [B, C, H, W], normalised. Out: logits [B, K, H/4, W/4]. Paper §3.1 and Fig. 3.

Where the backbone's maps begin at stride 8 or 16, so do the pyramid's and the logits, as published (LSNet).
"""

import itertools
from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from panfpn.models.backbone import AnyBackbone, make_backbone
from panfpn.models.pyramid import Pyramid, make_levels, make_pyramid, stride_of

Norm = Literal["batch", "group"]


class ConvNormReLU(nn.Module):
    """3×3 convolution without bias, batch or group (32) norm, ReLU."""

    def __init__(self, in_channels: int, channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(num_groups(channels), channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, channels, H, W]."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


def num_groups(channels: int) -> int:
    """The paper's 32 groups, or the largest power of two that divides a narrower head."""
    groups = 32
    while channels % groups:
        groups //= 2
    return groups


class SemanticHead(nn.Module):
    """The paper's semantic branch: each level is convolved and doubled up to stride 4; the sum is classified."""

    def __init__(
        self, in_channels: int, num_classes: int, *, channels: int = 128, norm: Norm = "batch", dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.ModuleList(ConvNormReLU(in_channels if j == 0 else channels, channels, norm) for j in range(max(1, i)))
            for i in range(4)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]

    def forward(self, pyramid: Sequence[torch.Tensor]) -> torch.Tensor:
        """p2…p5 -> logits [B, K, H/4, W/4].

        torch.compile makes one graph for sizes that divide by 32 and one for any other; torch.export makes one for all.
        """
        size = pyramid[0].shape[2:]
        any_size: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call] # an exported graph's
        total = next(self.levels[0].children())(pyramid[0])  # [B, channels, H/4, W/4]
        coarse: list[torch.Tensor] = []  # before the last doubling, which is linear: those of a size can be added
        for units, x in zip(list(self.levels)[1:], pyramid[1:], strict=True):
            first, *others = units.children()
            x = first(x)
            for unit in others:
                x = unit(_doubled(x))
            coarse.append(x)
        compiling = torch.compiler.is_compiling()
        if not compiling and not any_size:
            coarse = _sums_by_size(coarse)
        elif not torch.compiler.is_exporting() and _are_aligned(pyramid):
            coarse = [coarse[0] + coarse[1] + coarse[2]]
        elif compiling:
            any_size = True
        for x in coarse:
            x = _doubled(x)
            if any_size or x.shape[2:] != size:  # the input's size does not divide by 32
                x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            total = total + x
        return self.classifier(self.dropout(total))  # type: ignore[no-any-return]


def _sums_by_size(maps: list[torch.Tensor]) -> list[torch.Tensor]:
    """The maps of one size as their sum, in the order in which sizes begin."""
    sums: list[torch.Tensor] = []
    for x in maps:
        for i, other in enumerate(sums):
            if other.shape[2:] == x.shape[2:]:
                sums[i] = other + x
                break
        else:
            sums.append(x)
    return sums


def _are_aligned(pyramid: Sequence[torch.Tensor]) -> bool:
    """Whether every level has half the size of the one before; one comparison makes one of two graphs, not of many."""
    misfit = 0
    for finer, coarser in itertools.pairwise(pyramid):
        misfit += (2 * coarser.shape[2] - finer.shape[2]) ** 2 + (2 * coarser.shape[3] - finer.shape[3]) ** 2
    return misfit == 0


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class SemanticFPN(nn.Module):
    """Backbone, FPN and the semantic head.

    Args: `backbone` is a timm name, a `Backbone` or a module of one's own (see `AnyBackbone`); `in_channels` of the
    images; `pretrained_backbone` fetches timm's weights of a backbone by name; `pyramid` is how levels are made where
    the backbone has one stride (see `panfpn.models.pyramid`); `norm` is the head's normalisation ("group" is the
    paper's, "batch" the published models'); `dropout` zeroes whole channels before the classifier. `stride` is that of
    the logits: 4, or 8 or 16 where the backbone's maps begin there.

    Raises:
        ValueError: a backbone that timm does not know or that has no such maps; a module that does not fit.
        ConnectionError: the pretrained weights cannot be fetched.
    """

    def __init__(
        self,
        backbone: str | AnyBackbone = "resnet50c",
        num_classes: int = 19,
        *,
        in_channels: int = 3,
        pretrained_backbone: bool = False,
        pyramid: Pyramid | None = None,
        fpn_channels: int = 256,
        head_channels: int = 128,
        norm: Norm = "batch",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = make_backbone(backbone, in_channels=in_channels, pretrained=pretrained_backbone)
        self.stride = stride_of(cast(AnyBackbone, self.backbone))
        self.fpn = make_pyramid(cast(AnyBackbone, self.backbone), fpn_channels, pyramid)
        self.head = SemanticHead(fpn_channels, num_classes, channels=head_channels, norm=norm, dropout=dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images [B, C, H, W] of any size -> logits [B, K, ceil(H/stride), ceil(W/stride)]."""
        return self.decode(self.backbone(images), images.shape[2:])

    def decode(self, maps: Sequence[torch.Tensor], size: Sequence[int]) -> torch.Tensor:
        """The backbone's maps of images of a size -> logits."""
        return self.head(make_levels(self.backbone, self.fpn, maps, size))  # type: ignore[no-any-return]
