"""Small networks from pixels to logits, whose batch norms are not the identity."""

from collections.abc import Sequence

import torch
from torch import nn

from panfpn.models import Backbone, SemanticFPN
from panfpn.models.depthwise import speed_up_depthwise
from panfpn.models.pixels import PixelNetwork

MEAN, STD = (120.0, 115.0, 100.0), (58.0, 57.0, 56.0)


def network(backbone: str = "test_resnet", divisor: int = 1) -> PixelNetwork:
    """A small network whose batch norms have learnt something."""
    torch.manual_seed(0)
    model = SemanticFPN(speed_up_depthwise(Backbone(backbone)), 5, fpn_channels=32, head_channels=32).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    nn.init.normal_(model.head.classifier.weight)
    return PixelNetwork(model, MEAN, STD, divisor).eval()


def pixels(shape: Sequence[int]) -> torch.Tensor:
    return torch.randint(256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
