"""Functions of upsampled logits with exact gradients, a tile of one image at a time.

In: logits [B, K, h, w] at stride 4. Out: sums over the pixels of [B, K, H, W], which never exists. A tile fits into a
core's cache; both resizes, there and back, are small matrix products.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from panfpn.labels import IGNORE
from panfpn.ops.resize import as_float, constant, resize_rows
from panfpn.ops.sizes import Size

# Values in a tile, and its columns: measured on CPU (docs/log.md); on GPUs few launches count.
TILE = {"cpu": (1 << 17, 64)}
_OTHER = (1 << 25, 512)

TileIndex = tuple[int, slice, slice]  # image, rows, columns: into [B, H, W]
Bands = tuple[tuple[slice, slice, torch.Tensor], ...]  # outputs, the inputs that they need, weights [outputs, inputs]


@torch.no_grad()
def each_tile(
    logits: torch.Tensor, size: Size, function: Callable[[torch.Tensor, TileIndex], torch.Tensor | None]
) -> torch.Tensor:
    """Upsample logits [B, K, h, w] bilinearly to `size` (H, W) and call `function` with every tile.

    It gets a tile [rows, K, columns], float32 at least, and its index into [B, H, W]; it may keep the tile, change it,
    and return the gradient of something with respect to it. These are brought back to the logits: [B, K, h, w], float32
    at least.
    """
    batch, classes, height, width = logits.shape
    values, columns = TILE.get(logits.device.type, _OTHER)
    columns = min(columns, size[1])
    table = as_float(logits).permute(0, 2, 1, 3).contiguous()  # [B, h, K, w]
    gradient = torch.zeros_like(table)
    down = _bands(height, size[0], max(1, values // (classes * columns)), table.dtype, table.device)
    across = _bands(width, size[1], columns, table.dtype, table.device)
    for image in range(batch):
        for rows, taken, row_weights in down:
            strip = (row_weights @ table[image, taken].flatten(1)).view(-1, classes, width)  # [rows, K, w]
            strip_gradient: torch.Tensor | None = None
            for cols, used, weights in across:
                back = function(strip[:, :, used] @ weights.T, (image, rows, cols))
                if back is not None:
                    if strip_gradient is None:
                        strip_gradient = torch.zeros_like(strip)
                    strip_gradient[:, :, used] += back.to(weights) @ weights
            if strip_gradient is not None:
                gradient[image, taken] += (row_weights.T @ strip_gradient.flatten(1)).view(-1, classes, width)
    return gradient.permute(0, 2, 1, 3)


@functools.lru_cache(maxsize=32)  # crops are of one size, validation images of a few
def _bands(size_in: int, size_out: int, step: int, dtype: torch.dtype, device: torch.device) -> Bands:
    bands = []
    with torch.inference_mode(False):  # what is kept is used by training too
        for start in range(0, size_out, step):
            stop = min(start + step, size_out)
            first, weights = resize_rows(size_in, size_out, start, stop)
            inputs = slice(first, first + weights.shape[1])
            bands.append((slice(start, stop), inputs, constant(weights.to(dtype), device)))
    return tuple(bands)


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gradient.to(logits.dtype))
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return ctx.saved_tensors[0] * grad, None, None


def with_gradient(logits: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The scalar `value` as a function of `logits` whose gradient is known."""
    return _WithGradient.apply(logits, value, gradient)  # type: ignore[no-any-return]


def sum_over_tiles(
    logits: torch.Tensor, size: Size, function: Callable[[torch.Tensor, TileIndex], torch.Tensor]
) -> torch.Tensor:
    """Sum of the scalars `function(tile [rows, K, columns], index)`; autograd differentiates them tile by tile."""
    total = as_float(logits.new_zeros(()))

    def one(tile: torch.Tensor, index: TileIndex) -> torch.Tensor | None:
        nonlocal total
        with torch.enable_grad():
            part = function(tile.requires_grad_(), index)
        total = total + part.detach()
        return torch.autograd.grad(part, tile)[0] if logits.requires_grad else None

    gradient = each_tile(logits, size, one)
    return with_gradient(logits, total, gradient)


def upsample_cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, *, weights: torch.Tensor | None = None, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Sum over the labelled pixels of the cross-entropy of upsampled logits [B, K, h, w] and train ids [B, H, W].

    `weights` [K] and `label_smoothing` as in `F.cross_entropy`; divide by whatever count of pixels is meant.
    """
    classes = logits.shape[1]
    total = as_float(logits.new_zeros(()))
    weights = None if weights is None else weights.to(total)
    even = None  # what smoothing gives every class: its weight / K
    if label_smoothing:
        even = (total.new_ones(classes) if weights is None else weights)[:, None] * (label_smoothing / classes)

    def one(tile: torch.Tensor, index: TileIndex) -> torch.Tensor | None:
        nonlocal total
        truth = target[index].long()[:, None]  # [rows, 1, columns]
        labelled = (truth != IGNORE).to(tile)
        truth = truth.clamp(min=0)
        share = labelled if weights is None else weights[truth] * labelled
        share = share * (1 - label_smoothing)
        logp = F.log_softmax(tile, 1)
        total = total - (logp.gather(1, truth) * share).sum()
        mass = share
        if even is not None:
            total = total - (logp * (even * labelled)).sum()
            mass = share + even.sum() * labelled
        if not logits.requires_grad:
            return None
        gradient = logp.exp_().mul_(mass).scatter_add_(1, truth, -share)
        return gradient if even is None else gradient.sub_(even * labelled)

    gradient = each_tile(logits, (target.shape[1], target.shape[2]), one)
    return with_gradient(logits, total, gradient)
