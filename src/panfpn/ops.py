"""Fused tensor kernels without parameters: what needs every class at every pixel, done a few rows at a time.

In: logits [B, K, h, w] at stride 4. Out: labels or sums at the size of the labels. K × H × W never exists:
blocks of rows are upsampled, used and dropped, so memory is bounded whatever K and H × W.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

BLOCK_ELEMENTS = 1 << 22  # upsampled logits alive at a time: 16 MiB in float32

Size = tuple[int, int]  # height, width


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class View:
    """What a network said about an image seen at `size`, mirrored or not, in one or more windows.

    `windows[i][j]` are the logits [B, K, h, w] of the window of size `window` whose corner is (tops[i], lefts[j]),
    `padded` to that size on the right and below. Where windows overlap, their upsampled logits are averaged
    (mmsegmentation's "slide").
    """

    windows: tuple[tuple[torch.Tensor, ...], ...]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    window: Size
    padded: Size
    size: Size
    mirrored: bool = False

    @staticmethod
    def whole(logits: torch.Tensor, size: Size) -> "View":
        """The view of an image that went through the network in one piece."""
        return View(windows=((logits,),), tops=(0,), lefts=(0,), window=size, padded=size, size=size)

    def rows(self, size: Size, rows: slice) -> torch.Tensor:
        """Rows of the view brought to `size`: [B, K, rows, W] float32.

        Two bilinear resizes, logits -> view -> `size`, the second of which is often none. Both are linear maps of
        rows and of columns: those of rows are multiplied with each other before they meet the logits.
        """
        first, taken = _resize_rows(self.size[0], size[0], rows.start, rows.stop)  # [rows, rows of the view]
        whole = self._strip(0, taken, first)
        if len(self.lefts) > 1:
            whole = F.pad(whole, (0, self.size[1] - self.window[1]))
            count = whole.new_zeros(self.size[1])
            count[: self.window[1]] = 1
            for j, left in enumerate(self.lefts[1:], 1):
                strip = self._strip(j, taken, first)
                whole[..., left : left + self.window[1]] += strip
                count[left : left + self.window[1]] += 1
            whole /= count
        if self.mirrored:
            whole = whole.flip(-1)
        return _resize_columns(whole, size[1])

    def _strip(self, j: int, taken: torch.Tensor, first: int) -> torch.Tensor:
        """The j-th column of windows, averaged over the windows above each other: [B, K, rows, width of a window]."""
        count = torch.zeros(taken.shape[1])  # windows that cover each row of the view, from `first` on
        parts = []
        for i, top in enumerate(self.tops):
            start, stop = max(top, first), min(top + self.window[0], first + taken.shape[1])
            if start < stop:
                count[start - first : stop - first] += 1
                parts.append((i, start, stop))
        total: torch.Tensor | None = None
        for i, start, stop in parts:
            logits, top = as_float(self.windows[i][j]), self.tops[i]
            low, rows = _resize_rows(logits.shape[2], self.padded[0], start - top, stop - top)
            part = slice(start - first, stop - first)
            weights = ((taken[:, part] / count[part]) @ rows).to(logits)
            block = weights @ logits[:, :, low : low + rows.shape[1]]
            total = block if total is None else total + block
        assert total is not None, "windows cover the view"
        return _resize_columns(total, self.padded[1])[..., : self.window[1]]


def _resize_rows(size_in: int, size_out: int, start: int, stop: int) -> tuple[int, torch.Tensor]:
    """The first input row that output rows start … stop − 1 need, and their bilinear weights [stop − start, inputs].

    A product with the weights is fast forward and backward, where gathering rows is not.
    """
    position = ((torch.arange(start, stop, dtype=torch.float32) + 0.5) * (size_in / size_out) - 0.5).clamp(min=0)
    above = position.long().clamp(max=size_in - 1)
    below = (above + 1).clamp(max=size_in - 1)
    share = position - above
    first, last = int(above[0]), int(below[-1])
    weights = torch.zeros(stop - start, last + 1 - first)
    row = torch.arange(stop - start)
    weights[row, above - first] = 1 - share
    weights[row, below - first] += share
    return first, weights


def as_float(x: torch.Tensor) -> torch.Tensor:
    """At least float32: what autocast left in 16 bits is widened."""
    return x if x.dtype == torch.float64 else x.float()


def _resize_columns(block: torch.Tensor, width: int) -> torch.Tensor:
    if block.shape[3] == width:
        return block
    return F.interpolate(block, size=(block.shape[2], width), mode="bilinear", align_corners=False)


def upsample_blocks(logits: torch.Tensor, size: Size) -> Iterator[tuple[slice, torch.Tensor]]:
    """Blocks of rows of the bilinear upsampling of [B, K, h, w] to `size`, as (rows, [B, K, rows, W] float32).

    Equal to `F.interpolate(..., mode="bilinear", align_corners=False)` up to rounding.
    """
    view = View.whole(logits, size)
    for rows in _row_blocks(logits.shape[0] * logits.shape[1], size):
        yield rows, view.rows(size, rows)


def _row_blocks(depth: int, size: Size) -> Iterator[slice]:
    step = max(1, min(size[0], BLOCK_ELEMENTS // (depth * size[1])))
    return (slice(start, min(start + step, size[0])) for start in range(0, size[0], step))


def upsample_argmax(
    views: torch.Tensor | Sequence[View], size: Size, *, confidence: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Labels at `size` of logits [B, K, h, w], or of the mean softmax of several views of one image.

    Returns labels [B, H, W] (uint8, or int16 for more than 256 classes) and, with `confidence`, the probability of the
    winner (float32 [B, H, W]).
    """
    views = [View.whole(views, size)] if isinstance(views, torch.Tensor) else views
    logits = views[0].windows[0][0]
    batch, classes = logits.shape[:2]
    kind = torch.uint8 if classes <= 256 else torch.int16
    labels = torch.empty((batch, *size), dtype=kind, device=logits.device)
    winner = torch.empty((batch, *size), device=logits.device) if confidence else None
    width = max(size[1], *(view.size[1] for view in views))
    for rows in _row_blocks(batch * classes, (size[0], width)):
        block = views[0].rows(size, rows) if len(views) == 1 else _mean_softmax(views, size, rows)
        best, index = block.max(1)
        labels[:, rows] = index.to(kind)
        if winner is not None:
            winner[:, rows] = (best - block.logsumexp(1)).exp() if len(views) == 1 else best
    return labels, winner


def _mean_softmax(views: Sequence[View], size: Size, rows: slice) -> torch.Tensor:
    total = views[0].rows(size, rows).softmax(1)
    for view in views[1:]:
        total += view.rows(size, rows).softmax(1)
    return total / len(views)


class _SumOverRows(torch.autograd.Function):
    """Sum of a per-block function of upsampled logits; its gradient is taken block by block in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        size: Size,
        function: Callable[[torch.Tensor, slice], torch.Tensor],
    ) -> torch.Tensor:
        leaf = as_float(logits.detach()).requires_grad_(logits.requires_grad)
        total = leaf.new_zeros(())
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
    logits: torch.Tensor, size: Size, function: Callable[[torch.Tensor, slice], torch.Tensor]
) -> torch.Tensor:
    """Sum of `function(block, rows)` over row blocks of the logits upsampled to `size`; gradients are exact.

    `function` gets [B, K, rows, W] and the slice of rows and returns a scalar. Only one block's graph is alive.
    """
    return _SumOverRows.apply(logits, size, function)  # type: ignore[no-any-return]
