"""Fused tensor kernels without parameters: what needs every class at every pixel, done a few rows at a time.

In: logits [B, K, h, w] at stride 4. Out: labels or sums at the size of the labels. K × H × W never exists:
blocks of rows are upsampled, used and dropped, so memory is bounded whatever K and H × W.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

BLOCK_ELEMENTS = 1 << 22  # upsampled logits alive at a time: 16 MiB in float32


def upsample_blocks(logits: torch.Tensor, size: tuple[int, int]) -> Iterator[tuple[slice, torch.Tensor]]:
    """Blocks of rows of the bilinear upsampling of [B, K, h, w] to `size`, as (rows, [B, K, rows, W] float32).

    Equal to `F.interpolate(..., mode="bilinear", align_corners=False)` up to rounding.
    """
    batch, classes, height_in, _ = logits.shape
    height, width = size
    rows = max(1, min(height, BLOCK_ELEMENTS // (batch * classes * width)))
    above, below, weights = _row_weights(height_in, height)
    weights = weights.to(logits.device)  # [H, h]
    for start in range(0, height, rows):
        taken = slice(start, min(start + rows, height))
        first, last = above[taken][0], below[taken][-1] + 1  # on the host: no block waits for the device
        block = weights[taken, first:last] @ logits[:, :, first:last].float()  # [B, K, rows, w]
        yield taken, F.interpolate(block, size=(block.shape[2], width), mode="bilinear", align_corners=False)


def _row_weights(size_in: int, size_out: int) -> tuple[list[int], list[int], torch.Tensor]:
    """The input rows above and below each output row, and their bilinear weights [size_out, size_in].

    A product with the weights is fast forward and backward, where gathering rows is not.
    """
    position = ((torch.arange(size_out, dtype=torch.float32) + 0.5) * (size_in / size_out) - 0.5).clamp(min=0)
    above = position.long().clamp(max=size_in - 1)
    below = (above + 1).clamp(max=size_in - 1)
    share = position - above
    weights = torch.zeros(size_out, size_in)
    row = torch.arange(size_out)
    weights[row, above] = 1 - share
    weights[row, below] += share
    return above.tolist(), below.tolist(), weights


def upsample_argmax(
    logits: torch.Tensor, size: tuple[int, int], *, confidence: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Labels of logits [B, K, h, w] at `size`: (uint8, or int16 for more than 256 classes [B, H, W], float32 or None).

    With `confidence`, the second tensor [B, H, W] is the softmax probability of the winner.
    """
    batch, classes = logits.shape[:2]
    kind = torch.uint8 if classes <= 256 else torch.int16
    labels = torch.empty((batch, *size), dtype=kind, device=logits.device)
    winner = torch.empty((batch, *size), device=logits.device) if confidence else None
    for rows, block in upsample_blocks(logits, size):
        best, index = block.max(1)
        labels[:, rows] = index.to(kind)
        if winner is not None:
            winner[:, rows] = (best - block.logsumexp(1)).exp()
    return labels, winner


class _SumOverRows(torch.autograd.Function):
    """Sum of a per-block function of upsampled logits; its gradient is taken block by block in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        size: tuple[int, int],
        function: Callable[[torch.Tensor, slice], torch.Tensor],
    ) -> torch.Tensor:
        leaf = logits.detach().float().requires_grad_(logits.requires_grad)
        total = torch.zeros((), device=logits.device)
        with torch.set_grad_enabled(logits.requires_grad):
            for rows, block in upsample_blocks(leaf, size):
                part = function(block, rows)
                if logits.requires_grad:
                    torch.autograd.backward(part)
                total = total + part.detach()
        grad = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
        ctx.save_for_backward(grad.to(logits.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return ctx.saved_tensors[0] * grad, None, None


def sum_over_rows(
    logits: torch.Tensor, size: tuple[int, int], function: Callable[[torch.Tensor, slice], torch.Tensor]
) -> torch.Tensor:
    """Sum of `function(block, rows)` over row blocks of the logits upsampled to `size`; gradients are exact.

    `function` gets [B, K, rows, W] and the slice of rows and returns a scalar. Only one block's graph is alive.
    """
    return _SumOverRows.apply(logits, size, function)  # type: ignore[no-any-return]


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
            kind = torch.float32 if k > 3 else weight.dtype
            _, grad_weight, _ = torch.ops.aten.convolution_backward(
                grad.to(kind), x.to(kind), weight.to(kind), None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0],
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
