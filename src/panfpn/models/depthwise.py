"""Swaps a network's depthwise convolutions for ones with a fast backward pass on CPU. Same weights, names and results.

In: a module. Out: the same module. What is gained stands in `panfpn.ops.depthwise_conv2d`.
"""

import torch
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn

from panfpn.ops import depthwise_conv2d


class DepthwiseConv2d(nn.Module):
    """A depthwise `nn.Conv2d` (square kernel, no dilation) or timm `Conv2dSame`, with that layer's own parameters."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.padding = int(conv.stride[0]), 0 if isinstance(conv, Conv2dSame) else int(conv.padding[0])
        self.same = isinstance(conv, Conv2dSame)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C, H/stride, W/stride]."""
        padding = self.padding
        if self.same:
            kernel = list(self.weight.shape[2:])
            if self.stride == 1:
                padding = kernel[0] // 2  # "same" at stride 1 is symmetric: no copy of the input is needed
            else:
                x = pad_same(x, kernel, [self.stride] * 2)
        y = depthwise_conv2d(x, self.weight, self.stride, padding)
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]


def speed_up_depthwise(module: nn.Module) -> nn.Module:
    """Replace every depthwise convolution in `module`, in place; state-dict keys stay as they are."""
    for name, child in module.named_children():
        if _is_depthwise(child):
            assert isinstance(child, nn.Conv2d)
            setattr(module, name, DepthwiseConv2d(child))
        else:
            speed_up_depthwise(child)
    return module


def _is_depthwise(module: nn.Module) -> bool:
    if type(module) not in (nn.Conv2d, Conv2dSame):
        return False
    assert isinstance(module, nn.Conv2d)
    return (
        module.groups == module.in_channels == module.out_channels > 1
        and len(set(module.kernel_size)) == len(set(module.stride)) == 1
        and module.kernel_size[0] % 2 == 1
        and tuple(module.dilation) == (1, 1)
        and module.padding_mode == "zeros"
        and (isinstance(module, Conv2dSame) or (not isinstance(module.padding, str) and len(set(module.padding)) == 1))
    )
