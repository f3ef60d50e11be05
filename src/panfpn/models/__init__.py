"""Networks: torch only, plain constructor arguments, `forward(images) -> logits`, always."""

from panfpn.models.backbone import AnyBackbone, Backbone
from panfpn.models.fpn import FPN
from panfpn.models.panoptic import PanopticFPN
from panfpn.models.pyramid import Feature2Pyramid, SimpleFeaturePyramid
from panfpn.models.semantic import SemanticFPN, SemanticHead

__all__ = [
    "FPN", "AnyBackbone", "Backbone", "Feature2Pyramid", "PanopticFPN", "SemanticFPN", "SemanticHead",
    "SimpleFeaturePyramid",
]  # fmt: skip
