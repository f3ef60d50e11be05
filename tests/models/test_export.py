"""torch.export: one graph of Semantic FPN for every batch, height and width."""

import pytest
import torch
from torch import nn

from panfpn.models import Backbone, SemanticFPN
from small_backbone import OneConvolutionALevel

DYNAMIC = torch.export.Dim.DYNAMIC
SIZES = [(1, 64, 96), (3, 97, 131), (2, 81, 95), (1, 255, 70), (4, 128, 64)]


@pytest.mark.parametrize(
    ("name", "example"), [("small", (2, 96, 128)), ("small", (2, 101, 75)), ("resnet18", (2, 96, 128))]
)
def test_one_graph_for_every_size(name: str, example: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    backbone: nn.Module = OneConvolutionALevel() if name == "small" else Backbone(name)
    network = SemanticFPN(backbone, 3, fpn_channels=8, head_channels=8).eval()
    nn.init.normal_(network.head.classifier.weight)
    batch, *size = example
    program = torch.export.export(
        network, (torch.randn(batch, 3, *size),), dynamic_shapes=({0: DYNAMIC, 2: DYNAMIC, 3: DYNAMIC},)
    )
    exported = program.module()
    for batch, *size in SIZES:
        images = torch.randn(batch, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(exported(images), network(images), rtol=1e-5, atol=1e-6)
