"""Tables of positions at the size of an image, in a form that exported graphs can hold.

timm resizes them by antialiased bicubic interpolation, for which exporters and engines have no operator. In: what it
calls. Out: the same as two products with matrices of weights.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class ExportablePositions(TorchFunctionMode):
    """Within it, F.interpolate with mode "bicubic" and antialias is `antialiased_bicubic`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.interpolate and kwargs.get("antialias") and kwargs.get("mode") == "bicubic":
            return antialiased_bicubic(args[0] if args else kwargs["input"], kwargs["size"])
        return func(*args, **kwargs)


def antialiased_bicubic(maps: torch.Tensor, size: Any) -> torch.Tensor:
    """Maps [B, C, h, w] at `size`, numbers or symbols or traced tensors: [B, C, H, W].

    torch's (UpSampleKernel.cpp): Keys' cubic with a = −0.5, widened where the map shrinks; weights beyond the border
    are left out and the others divided by their sum.
    """
    rows, columns = (_weights(have, want, maps) for have, want in zip(maps.shape[2:], size, strict=True))
    return rows @ maps @ columns.transpose(0, 1)


def _weights(have: int, want: Any, like: torch.Tensor) -> torch.Tensor:
    """[want, have]: how much each place there counts for each place here."""
    scale = have / (torch.zeros_like(like[0, 0, 0, 0]) + want)  # a tensor in any case
    wide = scale.clamp(min=1)
    centre = (torch.arange(want, device=like.device).to(like.dtype) + 0.5) * scale  # [want]
    place = torch.arange(have, device=like.device, dtype=like.dtype) + 0.5
    x = ((place - centre[:, None]) / wide).abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weights / weights.sum(1, keepdim=True)
