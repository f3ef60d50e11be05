"""Swaps a network's depthwise convolutions for ones with a fast backward pass on CPU. Same weights, names and results.

In: a module. Out: the same module.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn


class _DepthwiseConv2d(torch.autograd.Function):
    """Depthwise convolution whose backward pass avoids the slow CPU kernels for bfloat16.

    Measured on 2 cores with AVX512-BF16 (oneDNN, channels_last): the weight gradient of a 5×5 kernel is 5× faster in
    float32, the data gradient of a strided convolution over 5× as a stride-1 convolution of the spread-out gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        channels, _, k, _ = weight.shape
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            height, width = x.shape[2:]
            spread = grad
            if stride > 1:
                shape = (*grad.shape[:2], height + 2 * padding - k + 1, width + 2 * padding - k + 1)
                spread = torch.empty(shape, dtype=grad.dtype, memory_format=torch.channels_last).zero_()
                spread[:, :, ::stride, ::stride] = grad
            grad_x = F.conv2d(spread, weight.flip(2, 3), None, 1, k - 1 - padding, 1, channels)
        if ctx.needs_input_grad[1]:
            dtype = torch.float32 if k > 3 else weight.dtype
            _, grad_weight, _ = torch.ops.aten.convolution_backward(
                grad.to(dtype), x.to(dtype), weight.to(dtype), None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0],
                channels, [False, True, False],
            )  # fmt: skip
            grad_weight = grad_weight.to(weight.dtype)
        return grad_x, grad_weight, None, None


def depthwise_conv2d(x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
    """Depthwise convolution of [B, C, H, W] by [C, 1, k, k]; on CPU in bfloat16 with a fast backward pass."""
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        x, weight = (t.to(torch.get_autocast_dtype("cpu")) for t in (x, weight))
    if x.device.type == "cpu" and x.dtype == torch.bfloat16 and padding < weight.shape[2]:
        return _DepthwiseConv2d.apply(x, weight, stride, padding)  # type: ignore[no-any-return]
    return F.conv2d(x, weight, None, stride, padding, 1, weight.shape[0])


class DepthwiseConv2d(nn.Module):
    """A depthwise `nn.Conv2d` (square kernel, no dilation) or timm `Conv2dSame`, with that layer's parameters."""

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
        if not torch.is_grad_enabled():
            return F.conv2d(x, self.weight, self.bias, self.stride, padding, 1, self.weight.shape[0])
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
