"""A network as exporters can follow it. In: a trained network. Out: its folded copy, of torch's own layers."""

import torch
from timm.layers import Conv2dSame
from torch import nn

from panfpn.deploy.fold import folded
from panfpn.models.depthwise import DepthwiseConv2d
from panfpn.models.pixels import PixelNetwork

_STRIDE = 32  # of a network's coarsest map: sides that divide by it are halved without remainder on the way there


def exportable(network: PixelNetwork) -> tuple[PixelNetwork, bool]:
    """The network in float32, and whether torch.export can follow it at every size.

    "Same" padding depends on the size. Where `divisor` makes sides multiples of 32 it is the same number for all, and
    becomes one; else symbols grow too fast, and only tracing is left.
    """
    twin = folded(network, torch.float32)
    twin.channels_last = False
    aligned = network.divisor % _STRIDE == 0
    return twin, _replace(twin, aligned=aligned) or aligned


def _replace(module: nn.Module, *, aligned: bool) -> bool:
    """Put torch's convolutions where others are, in place; False if a size stays in one's padding."""
    free = True
    for name, child in module.named_children():
        if isinstance(child, Conv2dSame | DepthwiseConv2d):
            same = isinstance(child, Conv2dSame) or child.same
            stride = child.stride if isinstance(child, nn.Conv2d) else (child.stride,) * 2
            if same and not aligned and max(stride) > 1:
                free = False
            else:
                setattr(module, name, _plain(child, stride, same=same))
        else:
            free &= _replace(child, aligned=aligned)
    return free


def _plain(layer: Conv2dSame | DepthwiseConv2d, stride: tuple[int, ...], *, same: bool) -> nn.Module:
    groups = layer.groups if isinstance(layer, nn.Conv2d) else layer.weight.shape[0]
    dilation = tuple(layer.dilation) if isinstance(layer, nn.Conv2d) else (1, 1)
    out_channels, in_channels, *kernel = layer.weight.shape
    conv = nn.Conv2d(
        in_channels * groups, out_channels, (kernel[0], kernel[1]), (stride[0], stride[1]),
        padding=0 if same else layer.padding, groups=groups, dilation=(dilation[0], dilation[1]),
        bias=layer.bias is not None,
    )  # fmt: skip
    conv.weight, conv.bias = layer.weight, layer.bias
    if not same:
        return conv
    (rows, columns) = (d * (k - 1) + 1 - s for k, s, d in zip(kernel, stride, dilation, strict=True))  # to be padded
    if rows % 2 == columns % 2 == 0:
        conv.padding = (rows // 2, columns // 2)
        return conv
    return nn.Sequential(nn.ZeroPad2d((columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)), conv)
