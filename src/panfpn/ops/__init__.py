"""Fused tensor kernels without parameters: upsampling together with what is made of its result."""

from panfpn.ops.resize import Size, as_float
from panfpn.ops.tiles import Place, each_tile, sum_over_tiles, upsample_cross_entropy, with_gradient
from panfpn.ops.views import View, upsample_argmax

__all__ = [
    "Place", "Size", "View", "as_float", "each_tile", "sum_over_tiles", "upsample_argmax", "upsample_cross_entropy",
    "with_gradient",
]  # fmt: skip
