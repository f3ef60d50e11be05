"""A whole prediction as one module, which can be exported. In: pixels uint8 [B, H, W, C] of any size. Out: tensors.

Nothing here asks how large a tensor is: sizes are symbols (torch.export), or tensors (tracing).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import nms

from panfpn.models.pixels import PixelNetwork
from panfpn.ops import Size, grown
from panfpn.types import Preprocess

_MOST = 1 << 31  # boxes
_STRIPS = 8  # in which logits are brought to the size of the image


class Graph(nn.Module, ABC):
    """Fitting to `scale`, normalisation, padding, network and maps at the input's size.

    `names` are those of the tensors that `forward` gives, in its order.
    """

    names: tuple[str, ...]

    def __init__(self, pixels: PixelNetwork, preprocess: Preprocess) -> None:
        super().__init__()
        self.pixels, self.scale, self.divisor = pixels, preprocess.scale, preprocess.size_divisor

    @property
    def network(self) -> Any:
        """The plain network."""
        return self.pixels.network

    @abstractmethod
    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tensors of `names`."""

    def fitted(self, pixels: torch.Tensor) -> tuple[torch.Tensor, Size]:
        """Pixels [B, h, w, C] as the network sees them, and h and w."""
        height, width = pixels.shape[1:3]
        if self.scale is None:
            return pixels, (height, width)
        size = fitted_size(height, width, self.scale)
        return resized(pixels, size), size

    def each_pixel(
        self, logits: torch.Tensor, seen: Size, size: Size,
        what: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
    ) -> tuple[torch.Tensor, ...]:  # fmt: skip
        """`what` of the logits at every pixel of the input's `size`, of which the network saw `seen`.

        Logits are [B, K, h/4, w/4]; `what` gets [B, K, n, W], a strip of rows at a time, and gives tensors whose last
        sides are n and W: logits of the whole image, the largest of all tensors, never exist.
        """
        padded = grown(seen, self.divisor)
        logits = logits.float()
        rows = (size[0] + _STRIPS - 1) // _STRIPS
        strips = []
        for number in range(_STRIPS):
            place = (torch.arange(rows, device=logits.device) + number * rows).clamp(max=size[0] - 1)
            if self.scale is None:
                strip = _rows(logits, place, padded[0])
            else:
                above, below, share = _neighbours(place, seen[0], size[0])
                strip = _rows(logits, above, padded[0]) * (1 - share) + _rows(logits, below, padded[0]) * share
            strip = F.interpolate(strip, size=(rows, padded[1]), mode="bilinear", align_corners=False)
            if self.divisor > 1:
                strip = strip[:, :, :, : seen[1]]
            if self.scale is not None:
                strip = F.interpolate(strip, size=(rows, size[1]), mode="bilinear", align_corners=False)
            strips.append(what(strip))
        return tuple(torch.cat(parts, -2)[..., : size[0], :] for parts in zip(*strips, strict=True))


def _rows(maps: torch.Tensor, place: torch.Tensor, height: Any) -> torch.Tensor:
    """Rows of maps [B, K, h, w] as they would be at `height`: [B, K, n, w]."""
    above, below, share = _neighbours(place, maps.shape[2], height)
    return maps.index_select(2, above) * (1 - share) + maps.index_select(2, below) * share


def _neighbours(place: torch.Tensor, have: Any, want: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of places on a side of `want`: the two rows of `have` that they lie between, and the second's share [n, 1]."""
    exact = ((place.float() + 0.5) * (have / want) - 0.5).clamp(min=0)
    whole = exact.floor()
    first = whole.long().minimum(torch.zeros_like(place) + (have - 1))
    return first, (first + 1).minimum(torch.zeros_like(place) + (have - 1)), (exact - whole)[:, None]


def resized(pixels: torch.Tensor, size: tuple[Any, Any]) -> torch.Tensor:
    """Pixels [B, H, W, C] at another size, as whole floats: what cv2.resize gives with INTER_LINEAR, rounding included.

    OpenCV computes in fixed point (resize.cpp, HResizeLinear and VResizeLinear): weights of 11 bits, 4 bits dropped
    between columns and rows, the two rows rounded down by themselves; and weights at the border are only clamped along
    rows. A product that float32 rounds across a whole number is one level off; that is one in 100,000 pixels.
    """
    first, second, low, high = _taps(pixels.shape[2], size[1], pixels.device, clamp=True)
    columns = (
        pixels.index_select(2, first).float() * low[:, None] + pixels.index_select(2, second).float() * high[:, None]
    )
    columns = (columns / 16).floor()
    first, second, low, high = _taps(pixels.shape[1], size[0], pixels.device, clamp=False)
    above = (columns.index_select(1, first) * low[:, None, None] / 65536).floor()
    below = (columns.index_select(1, second) * high[:, None, None] / 65536).floor()
    return ((above + below + 2) / 4).floor()


def _taps(
    have: Any, want: Any, device: torch.device, *, clamp: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each place of a side of `want`: its two neighbours on one of `have`, and their weights of 2048."""
    place = torch.arange(want, device=device)
    shifted = (2 * place + 1) * have + want  # 2 `want` (place there + 1): never negative, so all engines round it down
    whole = torch.div(shifted, 2 * want, rounding_mode="floor")
    rest = (shifted - whole * (2 * want)).float() / (2 * want)
    whole = whole - 1
    exact = whole.float() + rest  # which OpenCV has in 32 bits: far from the origin it keeps few of the rest's
    share = exact - whole.float()
    if clamp:
        share = share * ((whole >= 0) & (whole < have - 1)).float()
    last = have - 1
    return (
        whole.clamp(min=0).minimum(torch.zeros_like(whole) + last), (whole + 1).minimum(torch.zeros_like(whole) + last),
        ((1 - share) * 2048).round(), (share * 2048).round(),
    )  # fmt: skip


def fitted_size(height: Any, width: Any, scale: tuple[int, int]) -> tuple[Any, Any]:
    """`panfpn.data.transforms.fit_size` in whole numbers, which may be symbols or tensors."""
    long, short = max(scale), min(scale)
    longer, shorter = larger(height, width), smaller(height, width)
    sides = []
    for side in (height, width):
        by_long, by_short = (2 * side * long + longer) // (2 * longer), (2 * side * short + shorter) // (2 * shorter)
        sides.append(larger(smaller(by_long, by_short), 1))
    return sides[0], sides[1]


def larger(a: Any, b: Any) -> Any:
    """The larger of two sizes, numbers or symbols or tensors."""
    return torch.maximum(a, torch.as_tensor(b)) if isinstance(a, torch.Tensor) else torch.sym_max(a, b)


def smaller(a: Any, b: Any) -> Any:
    """The smaller of two sizes."""
    return torch.minimum(a, torch.as_tensor(b)) if isinstance(a, torch.Tensor) else torch.sym_min(a, b)


def grouped_nms(
    boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, threshold: float, size: Size
) -> torch.Tensor:
    """Indices of boxes [N, 4] within `size` that overlap no better one of their group, best first.

    One NMS for all: groups are moved apart, as torchvision's `batched_nms` does it with few boxes.
    """
    apart = boxes + (groups.to(boxes.dtype) * (larger(*size) + 1))[:, None]
    # torch.export takes it for granted that two boxes stay (torchvision's kernel says so): these always do.
    apart = torch.cat([apart, apart.new_tensor([[-9.0, -9.0, -8.0, -8.0], [-5.0, -5.0, -4.0, -4.0]])])
    kept: torch.Tensor = nms(apart, torch.cat([scores, scores.new_full((2,), -math.inf)]), threshold)
    return kept.index_select(0, where(kept < boxes.shape[0]))


def where(mask: torch.Tensor) -> torch.Tensor:
    """Indices at which a mask [N] holds."""
    return bounded(mask.nonzero()[:, 0])


def bounded(indices: torch.Tensor) -> torch.Tensor:
    """Indices of which torch.export shall know that they are few: it counts with 2⁶³, of which multiples overflow."""
    if torch.compiler.is_exporting():
        torch._check(indices.shape[0] <= _MOST)
    return indices


def first_of_each(image: torch.Tensor, batch: Any, most: int) -> torch.Tensor:
    """Indices of those among boxes of images [N] (numbers in 0 … batch − 1) that are the first `most` of theirs."""
    numbers = torch.arange(batch, device=image.device)
    rank = ((image[:, None] == numbers).int().cumsum(0) * (image[:, None] == numbers)).sum(1)
    return where(rank <= most)
