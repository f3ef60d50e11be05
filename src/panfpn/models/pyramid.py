"""Levels where the backbone has one stride (plain transformers). In: maps of that stride. Out: what c2…c5 or p2…p5 are.

Two ways are published: mmsegmentation's Feature2Pyramid (of BEiT, MAE, XCiT), which the FPN follows as it follows a
ResNet, and ViTDet's simple feature pyramid (Li et al. 2022; detectron2), which takes the FPN's place.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import nn

from panfpn.models.backbone import AnyBackbone, has_one_stride, strides_of
from panfpn.models.fpn import FPN

Pyramid = Literal["feature2pyramid", "simple"]
_LEVELS = (4, 8, 16, 32)  # strides that one stride is made into


class Feature2Pyramid(nn.Module):
    """Four maps of one stride, each of another block, brought to strides 4, 8, 16 and 32; widths stay.

    Up by transposed 2×2 convolutions of step 2, between two of which stand batch norm and GELU, down by maximum
    pooling. mmsegmentation 1.2.2, necks/featurepyramid.py; XCiT's networks of patch 8 have it one step lower. Patches
    of 32 pixels take one more step up.
    """

    def __init__(self, channels: Sequence[int], stride: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            _rescaled([width] * (_doublings(stride, level) + 1), nn.BatchNorm2d, stride, level)
            for width, level in zip(channels, _LEVELS, strict=True)
        )

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Four maps [B, C, H/s, W/s] -> [B, C, H/4, W/4] … [B, C, H/32, W/32]."""
        return [step(m) for step, m in zip(self.steps, maps, strict=True)]


class SimpleFeaturePyramid(nn.Module):
    """p2…p5 of the last map alone, without lateral connections and top-down path.

    Widths halve with each step up, layer norms stand where others have none, and each level ends in a 1×1 and a 3×3
    convolution, both with layer norm (detectron2, modeling/backbone/vit.py).
    """

    def __init__(self, in_channels: int, stride: int, channels: int = 256) -> None:
        super().__init__()
        self.channels = channels
        self.levels = nn.ModuleList()
        for level in _LEVELS:
            widths = [in_channels >> i for i in range(_doublings(stride, level) + 1)]
            self.levels.append(
                nn.Sequential(
                    _rescaled(widths, LayerNorm2d, stride, level),
                    nn.Conv2d(widths[-1], channels, 1, bias=False),
                    LayerNorm2d(channels),
                    nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                    LayerNorm2d(channels),
                )
            )

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Maps of one stride, the last of which counts -> p2…p5, each [B, channels, H/s, W/s]."""
        return [level(maps[-1]) for level in self.levels]


def make_pyramid(backbone: AnyBackbone, channels: int, pyramid: Pyramid | None = None) -> nn.Module:
    """What makes p2…p5 of a backbone's maps: the FPN, or what its one stride needs (None: Feature2Pyramid and FPN).

    ValueError for a `pyramid` where the backbone has levels of its own.
    """
    strides = strides_of(backbone)
    if not has_one_stride(backbone):
        if pyramid is not None:
            raise ValueError(f"model.pyramid {pyramid} is for backbones of one stride, such as plain transformers; "
                             f"this one has levels at strides {', '.join(map(str, strides))}")  # fmt: skip
        return FPN(backbone.channels, channels)
    if pyramid == "simple":
        return SimpleFeaturePyramid(backbone.channels[-1], strides[-1], channels)
    return FPN(backbone.channels, channels, levels=Feature2Pyramid(backbone.channels, strides[0]))


def stride_of(backbone: AnyBackbone) -> int:
    """The stride of p2, and so of the semantic logits: 4, or 8 or 16 where the backbone's maps begin there."""
    return _LEVELS[0] if has_one_stride(backbone) else strides_of(backbone)[0]


def make_levels(
    backbone: nn.Module, fpn: nn.Module, maps: Sequence[torch.Tensor], size: Sequence[int]
) -> list[torch.Tensor]:
    """p2…p5 of a backbone's maps of images of `size`, of sides ceil(H/s) at most where it has one stride."""
    levels: list[torch.Tensor] = fpn(maps)
    if has_one_stride(cast(AnyBackbone, backbone)):  # whole patches are made into levels: some too large
        height, width = size
        levels = [
            x[:, :, : (height + s - 1) // s, : (width + s - 1) // s] for x, s in zip(levels, _LEVELS, strict=True)
        ]
    return levels


def _doublings(stride: int, level: int) -> int:
    """How many steps up lead from a stride to a level's."""
    return max(0, int(math.log2(stride / level)))


class _Pool(nn.MaxPool2d):
    """Rows and columns that do not fill a step are left out, as published, but for maps that would vanish."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[B, C, h, w] -> [B, C, h // step, w // step], 1 at least."""
        step = self.kernel_size
        assert isinstance(step, int)
        graph: bool = torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        vanishes = not graph and min(maps.shape[2:]) < step  # a graph serves every size, and images that fill a step
        return F.max_pool2d(maps, step, ceil_mode=vanishes)


def _rescaled(widths: Sequence[int], norm: type[nn.Module], stride: int, level: int) -> nn.Module:
    """From `stride` to `level`'s: up through `widths`, or down."""
    if level > stride:
        return _Pool(level // stride)
    layers: list[nn.Module] = []
    for have, want in pairwise(widths):
        if layers:
            layers += [norm(have), nn.GELU()]
        layers.append(nn.ConvTranspose2d(have, want, 2, stride=2))
    return nn.Sequential(*layers)
