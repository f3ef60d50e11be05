"""What is minimised. In: what a network gives, and the targets. Out: one scalar per term."""

from panfpn.losses.custom import CallableLoss
from panfpn.losses.instance import BoxSample, box_losses, in_first, mask_loss, rpn_losses, sample_boxes
from panfpn.losses.semantic import SemanticLoss

__all__ = [
    "BoxSample", "CallableLoss", "SemanticLoss", "box_losses", "in_first", "mask_loss", "rpn_losses", "sample_boxes",
]  # fmt: skip
