"""What is minimised. In: what a network says, and the truth. Out: one scalar per term."""

from panfpn.losses.instance import BoxSample, box_losses, mask_loss, rpn_losses, sample_boxes
from panfpn.losses.semantic import SemanticLoss

__all__ = ["BoxSample", "SemanticLoss", "box_losses", "mask_loss", "rpn_losses", "sample_boxes"]
