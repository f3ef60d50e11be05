"""Labels from views of an image: what needs every class at every pixel, without all of it at once.

In: logits [B, K, h, w] at stride 4. Out: labels [B, H, W]. K × H × W never exists: blocks of rows (or of the pixels
where labels change) are upsampled, used and dropped, so memory is bounded whatever K and H × W.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from panfpn.ops.resize import as_float, constant, resize_rows, two_resizes
from panfpn.ops.sizes import Size

BLOCK_ELEMENTS = 1 << 22  # upsampled logits alive at a time: 16 MiB in float32


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class View:
    """The logits of an image that went through a network at `size`, mirrored or not, in one or more windows.

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

    @property
    def plain(self) -> bool:
        """Whether the image went through in one piece, and not mirrored."""
        return not self.mirrored and len(self.tops) == len(self.lefts) == 1

    def rows(self, size: Size, rows: slice) -> torch.Tensor:
        """Rows of the view brought to `size`: [B, K, rows, W] float32.

        Two bilinear resizes, logits -> view -> `size`, the second of which is often none. Both are linear maps of
        rows and of columns: those of rows are multiplied with each other before they meet the logits.
        """
        first, taken = resize_rows(self.size[0], size[0], rows.start, rows.stop)  # [rows, rows of the view]
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
            low, rows = resize_rows(logits.shape[2], self.padded[0], start - top, stop - top)
            part = slice(start - first, stop - first)
            weights = constant(((taken[:, part] / count[part]) @ rows).to(logits.dtype), logits.device)
            block = weights @ logits[:, :, low : low + rows.shape[1]]
            total = block if total is None else total + block
        assert total is not None, "windows cover the view"
        return _resize_columns(total, self.padded[1])[..., : self.window[1]]


def _resize_columns(block: torch.Tensor, width: int) -> torch.Tensor:
    if block.shape[3] == width:
        return block
    return F.interpolate(block, size=(block.shape[2], width), mode="bilinear", align_corners=False)


def _row_blocks(depth: int, size: Size) -> Iterator[slice]:
    step = max(1, min(size[0], BLOCK_ELEMENTS // (depth * size[1])))
    return (slice(start, min(start + step, size[0])) for start in range(0, size[0], step))


def logits_at(view: View, size: Size, places: torch.Tensor) -> torch.Tensor:
    """The logits [N, K] of one image's view brought to `size`, at pixels counted row by row (rising)."""
    classes = view.windows[0][0].shape[1]
    found = []
    for rows in _row_blocks(classes, size):
        first, last = torch.searchsorted(places, torch.tensor([rows.start * size[1], rows.stop * size[1]])).tolist()
        if first < last:
            block = view.rows(size, rows)[0].flatten(1)
            found.append(block[:, (places[first:last] - rows.start * size[1]).to(block.device)].T)
    return torch.cat(found).cpu() if found else torch.zeros(0, classes)


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
    dtype = torch.uint8 if classes <= 256 else torch.int16
    if not confidence and len(views) == 1 and views[0].plain:
        return torch.stack([_argmax_where_mixed(views[0], image, size, dtype) for image in logits]), None
    labels = torch.empty((batch, *size), dtype=dtype, device=logits.device)
    winner = torch.empty((batch, *size), device=logits.device) if confidence else None
    width = max(size[1], *(view.size[1] for view in views))
    for rows in _row_blocks(batch * classes, (size[0], width)):
        block = views[0].rows(size, rows) if len(views) == 1 else _mean_softmax(views, size, rows)
        best, index = block.max(1)
        labels[:, rows] = index.to(dtype)
        if winner is not None:
            winner[:, rows] = (best - block.logsumexp(1)).exp() if len(views) == 1 else best
    return labels, winner


def _mean_softmax(views: Sequence[View], size: Size, rows: slice) -> torch.Tensor:
    total = views[0].rows(size, rows).softmax(1)
    for view in views[1:]:
        total += view.rows(size, rows).softmax(1)
    return total / len(views)


def _argmax_where_mixed(view: View, logits: torch.Tensor, size: Size, dtype: torch.dtype) -> torch.Tensor:
    """Labels [H, W] of one image's logits [K, h, w], which are the only ones of the view.

    A pixel is a convex combination of the few logits around it. Where one class wins in all of those it wins in the
    pixel, so classes are compared only where labels change: a tenth of a usual photo. Memory is flat in K and H × W.
    """
    classes, height, width = logits.shape
    row, row_weights = two_resizes(height, view.padded[0], view.size[0], size[0], logits.device)  # [H], [H, taps]
    column, column_weights = two_resizes(width, view.padded[1], view.size[1], size[1], logits.device)
    rows, columns = (torch.arange(weights.shape[1], device=logits.device) for weights in (row_weights, column_weights))
    winner = logits.max(0).indices.to(torch.float32)[None]  # [1, h, w]
    kernel = (len(rows), len(columns))
    largest = F.max_pool2d(winner, kernel, 1)[0]  # by the corner of the taps
    mixed = largest != -F.max_pool2d(-winner, kernel, 1)[0]
    corners = largest.masked_fill(mixed, -1).to(torch.int16)
    known = corners.index_select(1, column).index_select(0, row)  # [H, W]; columns first: they are fewer then
    labels = known.to(dtype)
    table = as_float(logits).permute(1, 2, 0).reshape(height * width, classes).contiguous()
    y, x = (known < 0).nonzero(as_tuple=True)
    row, column, rows, columns = (index.int() for index in (row, column, rows, columns))
    step = max(1, BLOCK_ELEMENTS // (classes + 2 * len(rows) * len(columns)))
    for i, j in zip(torch.split(y, step), torch.split(x, step), strict=True):
        taps = ((row[i, None] + rows) * width)[:, :, None] + (column[j, None] + columns)[:, None]  # [n, taps, taps]
        weights = (row_weights[i][:, :, None] * column_weights[j][:, None]).to(table)
        values = F.embedding_bag(
            taps.flatten(1), table, mode="sum", per_sample_weights=weights.flatten(1)
        )  # the weighted sum of the taps: [n, K]
        labels[i, j] = values.max(1).indices.to(dtype)
    return labels
