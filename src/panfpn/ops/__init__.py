"""Fused tensor kernels without parameters: upsampling together with what is made of its result; and sizes."""

from panfpn.ops.resize import as_float, constant
from panfpn.ops.sizes import Size, grown
from panfpn.ops.tiles import TileIndex, each_tile, sum_over_tiles, upsample_cross_entropy, with_gradient
from panfpn.ops.views import View, logits_at, upsample_argmax

__all__ = [
    "Size", "TileIndex", "View", "as_float", "constant", "each_tile", "grown", "logits_at", "sum_over_tiles",
    "upsample_argmax", "upsample_cross_entropy", "with_gradient",
]  # fmt: skip
