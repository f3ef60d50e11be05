"""A 3×3 convolution with a fast weight gradient on CPU, where maps are large. Same weights, names and results.

In: a module. Out: the same module.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

_KERNEL = 3
_LARGE = 2048  # positions of a map, below which oneDNN's own gradient is as fast
_WIDE = 32  # channels


class _Convolution(torch.autograd.Function):
    """Convolution with padding 1 whose weight gradient is nine matrix products over all positions.

    Measured on 2 cores with AVX2 (oneDNN, float32, channels_last): twice as fast as oneDNN's at 8×128×88×120, three
    times at 2×128×256×512, whose kernel leaves the caches.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        grad_x = torch.ops.aten.convolution_backward(  # asked for the bias, oneDNN computes the weight too
            grad, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [needed[0], False, False]
        )[0]
        grad_bias = grad.sum((0, 2, 3)) if needed[2] else None
        return grad_x, weight_gradient(x, grad) if needed[1] else None, grad_bias


def weight_gradient(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """[O, C, 3, 3] of maps [B, C, H, W] and the gradient [B, O, H, W] of their convolution with padding 1.

    Padded, and with the gradient at the upper left of as large a map, both are lists of positions, in which a shift by
    (row, column) is one by row × width + column: where the gradient is padding, it is 0.
    """
    batch, channels, height, width = x.shape
    outputs = grad.shape[1]
    padded = x.new_zeros(batch, height + 2, width + 2, channels)
    padded[:, 1:-1, 1:-1] = x.permute(0, 2, 3, 1)
    spread = grad.new_zeros(batch, height + 2, width + 2, outputs)
    spread[:, :height, :width] = grad.permute(0, 2, 3, 1)
    positions, gradients = padded.view(-1, channels), spread.view(-1, outputs)
    found = x.new_empty(_KERNEL, _KERNEL, outputs, channels)
    for row in range(_KERNEL):
        for column in range(_KERNEL):
            shift = row * (width + 2) + column
            torch.mm(gradients[: len(gradients) - shift].t(), positions[shift:], out=found[row, column])
    return found.permute(2, 3, 0, 1)


class WideConv2d(nn.Conv2d):
    """An `nn.Conv2d` of 3×3 with stride and padding 1, which others are made into by `speed_up_wide_maps`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, O, H, W]."""
        slow = (
            x.device.type == "cpu" and x.dtype == torch.float32 and self.weight.requires_grad
            and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
            and x.shape[2] * x.shape[3] >= _LARGE and x.is_contiguous(memory_format=torch.channels_last)
        )  # fmt: skip
        if slow:
            return _Convolution.apply(x, self.weight, self.bias)  # type: ignore[no-any-return]
        return super().forward(x)


def speed_up_wide_maps(module: nn.Module) -> nn.Module:
    """Let every 3×3 convolution in `module` be a `WideConv2d`, in place; parameters and their names stay."""
    for layer in module.modules():
        if type(layer) is not nn.Conv2d or layer.groups > 1 or layer.padding_mode != "zeros":
            continue
        geometry = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        if geometry == ((_KERNEL, _KERNEL), (1, 1), (1, 1), (1, 1)) and layer.in_channels >= _WIDE:
            layer.__class__ = WideConv2d
    return module
