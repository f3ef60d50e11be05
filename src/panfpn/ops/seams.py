"""Labels of an image too large for memory, from windows of it. In: logits of windows. Out: labels.

All windows lie on one grid of cells, the logits' stride wide. Neighbours overlap; in a zone inside of the overlap their
logits are blended, from one to the other, and nowhere else. A few rows of cells are kept from band to band, so memory
grows with the width alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch

from panfpn.ops.views import upsample_argmax

ALIGNED = 32  # windows begin at multiples of this, so that all maps of a pyramid lie on one grid


@dataclass(frozen=True, slots=True)
class Cuts:
    """How one side of an image is cut: windows of pixels, and the zones in which neighbours are blended."""

    length: int  # pixels
    stride: int  # of a cell
    windows: tuple[tuple[int, int], ...]  # first pixel, and the one after the last
    zones: tuple[tuple[int, int], ...]  # the same in cells; one fewer than windows

    @staticmethod
    def of(length: int, window: int, overlap: int, *, stride: int, align: int = ALIGNED) -> "Cuts":
        """Windows of at most `window` pixels that overlap by at least `overlap`, both multiples of `align`."""
        align = math.lcm(align, stride)
        assert window % align == 0 and overlap % align == 0 and window >= 3 * overlap > 0
        step = window - overlap
        starts = [0]
        while starts[-1] + window < length:
            starts.append(min(starts[-1] + step, -(-(length - window) // align) * align))
        windows = tuple((start, min(start + window, length)) for start in starts)
        zones = []
        for (_, stop), (start, _) in pairwise(windows):
            first = (start + (stop - start - overlap) // 2) // stride
            zones.append((first, first + overlap // stride))
        return Cuts(length, stride, windows, tuple(zones))

    @property
    def side(self) -> int:
        """Of its largest window, in pixels."""
        return max(stop - start for start, stop in self.windows)

    @property
    def cells(self) -> int:
        """How many there are."""
        return -(-self.length // self.stride)

    def used(self, i: int) -> tuple[int, int]:
        """The cells of window `i` that count, its zones included."""
        first = self.zones[i - 1][0] if i else 0
        return first, self.zones[i][1] if i < len(self.zones) else self.cells

    def own(self, i: int) -> tuple[int, int]:
        """Those that are final once window `i` is there: without the zone that the next one shares."""
        first, stop = self.used(i)
        return first, self.zones[i][0] if i < len(self.zones) else stop

    def pixels(self, i: int) -> tuple[int, int]:
        """The pixels that lie between final cells once window `i` is there, and did not before."""
        first, stop = self.own(i)
        half = self.stride // 2
        return (self.stride * first - half if i else 0,
                self.stride * stop - half if i < len(self.zones) else self.length)  # fmt: skip

    def middle(self, i: int) -> tuple[int, int]:
        """The pixels that are nearest to window `i`: cut in the middle of each overlap."""
        edges = [0, *(self.stride * (first + stop) // 2 for first, stop in self.zones), self.length]
        return edges[i], edges[i + 1]


class Seams:
    """Takes the logits of windows from left to right and from top to bottom, and gives labels.

    A window of which nothing is known (it has no data) is passed as None; its neighbours then stand for themselves.
    """

    def __init__(self, rows: Cuts, columns: Cuts, num_classes: int, device: torch.device) -> None:
        self.rows, self.columns = rows, columns
        self.num_classes, self.device = num_classes, device
        self._below: torch.Tensor | None = None  # [K, zone, cells] upper side of the zone under this band
        self._above: torch.Tensor | None = None  # [K, 1, cells] last final row of the band before
        self._right: torch.Tensor | None = None  # [K, rows, zone] left side of the zone on the right
        self._left: torch.Tensor | None = None  # [K, rows, 1] last final column
        self._gaps = False  # whether a window was None

    def add(self, i: int, j: int, logits: torch.Tensor | None) -> torch.Tensor:
        """Labels [h, w] of the pixels `rows.pixels(i)` × `columns.pixels(j)`, of the logits [K, h', w'] of a window."""
        (top, bottom), (left, right) = self.rows.used(i), self.columns.used(j)
        if logits is None:
            self._gaps = True
            cells = torch.full((self.num_classes, bottom - top, right - left), math.nan, device=self.device)
        else:
            down, across = (cuts.windows[k][0] // cuts.stride for cuts, k in ((self.rows, i), (self.columns, j)))
            cells = logits[:, top - down : bottom - down, left - across : right - across].float().clone()
        final = self._final(i, j, cells)  # [K, rows, columns] that nothing can change any more
        (top, bottom), (left, right) = self.rows.own(i), self.columns.own(j)
        if i:
            assert self._above is not None
            final = torch.cat((self._above[:, :, left:right], final), 1)
        last = final[:, -1:].clone()
        if j:
            assert self._left is not None
            final = torch.cat((self._left, final), 2)
        self._left = final[:, :, -1:].clone()
        if len(self.rows.zones):
            if self._above is None:
                self._above = last.new_empty(last.shape[0], 1, self.columns.cells)
            self._above[:, :, left:right] = last
        stride = self.rows.stride
        size = (stride * final.shape[1], stride * final.shape[2])
        labels, _ = upsample_argmax(final[None], size)
        (top, bottom), (left, right) = self.rows.pixels(i), self.columns.pixels(j)
        down, across = (stride // 2 if i else 0), (stride // 2 if j else 0)
        return labels[0, down : down + bottom - top, across : across + right - left]

    def state(self) -> dict[str, torch.Tensor]:
        """What the next band needs of those before it."""
        kept = {"below": self._below, "above": self._above, "gaps": torch.tensor(self._gaps)}
        return {name: tensor for name, tensor in kept.items() if tensor is not None}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on behind a band whose state this is."""
        kept = {name: state[name].to(self.device) for name in ("below", "above") if name in state}
        self._below, self._above = kept.get("below"), kept.get("above")
        self._gaps = bool(state["gaps"])

    def _final(self, i: int, j: int, cells: torch.Tensor) -> torch.Tensor:
        """Blend with the neighbours before, and keep what those to come need."""
        if j:
            assert self._right is not None
            width = self._right.shape[2]
            cells[:, :, :width] = self._blended(self._right, cells[:, :, :width], across=True)
        if j < len(self.columns.zones):
            width = self.columns.zones[j][1] - self.columns.zones[j][0]
            self._right, cells = cells[:, :, -width:].clone(), cells[:, :, :-width]
        left, right = self.columns.own(j)
        if i:
            assert self._below is not None
            height = self._below.shape[1]
            cells[:, :height] = self._blended(self._below[:, :, left:right], cells[:, :height], across=False)
        if i < len(self.rows.zones):
            height = self.rows.zones[i][1] - self.rows.zones[i][0]
            if self._below is None:
                self._below = cells.new_empty(len(cells), height, self.columns.cells)
            self._below[:, :, left:right], cells = cells[:, -height:], cells[:, :-height]
        return cells

    def _blended(self, before: torch.Tensor, after: torch.Tensor, *, across: bool) -> torch.Tensor:
        """From `before` to `after`, with weights that sum to one; equal values stay as they are, to the bit."""
        count = before.shape[2 if across else 1]
        share = (torch.arange(count, dtype=torch.float32, device=before.device) + 0.5) / count
        mixed = torch.lerp(before, after, share if across else share[:, None])
        if self._gaps:
            mixed = torch.where(before.isnan(), after, torch.where(after.isnan(), before, mixed))
        return mixed
