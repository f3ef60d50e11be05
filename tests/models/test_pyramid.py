"""Levels of one stride: mmsegmentation's module, detectron2's formulas, and whole networks on plain transformers."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from panfpn.labels import LabelTable
from panfpn.models import Backbone, Feature2Pyramid, PanopticFPN, SemanticFPN, SimpleFeaturePyramid
from panfpn.models.pyramid import Pyramid, make_pyramid, stride_of

# What mmsegmentation calls the steps of its module, by patch.
_THEIRS = {16: ("upsample_4x", "upsample_2x"), 8: ("upsample_2x",)}
SIZES = [(97, 131), (64, 96), (33, 300), (129, 65), (80, 48)]  # one of them of whole patches
TRANSFORMERS = {
    16: "vit_tiny_patch16_224", 14: "vit_small_patch14_reg4_dinov2", 8: "vit_small_patch8_224",
    32: "vit_small_patch32_224",
}  # fmt: skip


@pytest.mark.parametrize("patch", [16, 8])
def test_feature2pyramid_is_mmsegmentations(patch: int, fill: ModuleType, golden_files: Path) -> None:
    golden = np.load(golden_files / "mmseg_feature2pyramid.npz")
    module = Feature2Pyramid([6] * 4, patch).eval()
    ours = dict(zip(_THEIRS[patch], module.steps, strict=False))
    found = {f"{theirs}.{name}": t for theirs, step in ours.items() for name, t in step.state_dict().items()}
    assert sorted(f"{n} {tuple(t.shape)}" for n, t in found.items()) == sorted(golden[f"{patch}/names"])
    assert len(found) == len(module.state_dict())
    for name, tensor in found.items():
        if tensor.dtype == torch.float32:
            tensor.copy_(torch.from_numpy(fill.values(name, tuple(tensor.shape))))
    with torch.no_grad():
        levels = module([torch.from_numpy(fill.values(f"map{i}", (2, 6, 5, 7))) for i in range(4)])
    for i, level in enumerate(levels):
        expected = torch.from_numpy(golden[f"{patch}/{i}"])
        assert level.shape == expected.shape
        assert (level - expected).abs().max() <= 1e-5 * expected.abs().max()


def layer_norm(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    """detectron2's: over channels, eps 1e-6."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]


def test_simple_pyramid_is_detectron2s_formulas() -> None:
    torch.manual_seed(0)
    module = SimpleFeaturePyramid(16, 16, 12)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    last = torch.randn(2, 16, 5, 7)
    levels = module([torch.full_like(last, torch.nan)] * 3 + [last])
    up4, up2, same, down = (list(level[0].children()) if i < 3 else [] for i, level in enumerate(module.levels))
    assert [type(layer).__name__ for layer in up4] == ["ConvTranspose2d", "LayerNorm2d", "GELU", "ConvTranspose2d"]
    assert [(layer.in_channels, layer.out_channels) for layer in (up4[0], up4[3], up2[0])] == [(16, 8), (8, 4), (16, 8)]
    assert len(same) == len(down) == 0
    first = F.gelu(layer_norm(F.conv_transpose2d(last, up4[0].weight, up4[0].bias, stride=2), up4[1]))
    maps = [
        F.conv_transpose2d(first, up4[3].weight, up4[3].bias, stride=2),
        F.conv_transpose2d(last, up2[0].weight, up2[0].bias, stride=2),
        last,
        F.max_pool2d(last, 2, 2),
    ]
    for level, (_, conv1, norm1, conv2, norm2), x in zip(levels, module.levels, maps, strict=True):
        assert conv1.bias is conv2.bias is None
        x = layer_norm(F.conv2d(x, conv1.weight), norm1)
        x = layer_norm(F.conv2d(x, conv2.weight, padding=1), norm2)
        torch.testing.assert_close(level, x, rtol=1e-4, atol=1e-5)
    assert [tuple(level.shape[1:]) for level in levels] == [(12, 20, 28), (12, 10, 14), (12, 5, 7), (12, 2, 3)]


@pytest.mark.parametrize("patch", TRANSFORMERS)
@pytest.mark.parametrize("pyramid", ["feature2pyramid", "simple"])
def test_plain_transformers_train_at_odd_sizes(patch: int, pyramid: Pyramid) -> None:
    network = SemanticFPN(TRANSFORMERS[patch], 3, pyramid=pyramid, fpn_channels=16, head_channels=8)
    assert network.stride == 4
    for height, width in SIZES:
        logits = network(torch.randn(2, 3, height, width))
        assert logits.shape == (2, 3, -(-height // 4), -(-width // 4))
        logits.square().mean().backward()
    unused = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    # Only the last map counts for the simple pyramid, and all of the backbone leads to it.
    assert unused == []


def test_a_network_of_stride_8_has_logits_of_stride_8() -> None:
    network = SemanticFPN("csatv2", 3, fpn_channels=16, head_channels=8).eval()
    assert network.backbone.strides == (8, 16, 32, 64)
    assert network.stride == 8
    with torch.no_grad():
        assert network(torch.randn(1, 3, 97, 131)).shape == (1, 3, 13, 17)


def test_a_missing_level_is_pooled() -> None:
    backbone = Backbone("efficientvit_m0")
    assert (backbone.strides, backbone.channels[2:]) == ((16, 32, 64, 128), (192, 192))
    maps = backbone(torch.randn(2, 3, 128, 256))
    assert torch.equal(maps[3], F.max_pool2d(maps[2], 2, ceil_mode=True))


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "efficientvit_m0"])
def test_panoptic_fpn_knows_its_strides(backbone: str) -> None:
    table = LabelTable.named("cityscapes")
    torch.manual_seed(0)
    network = PanopticFPN(backbone, table, fpn_channels=16, box_channels=16, mask_channels=16).eval()
    with torch.no_grad():
        maps = network(torch.randn(1, 3, 128, 256))
    first = 128 // network.stride
    assert [m.shape[2] for m in maps.objectness] == [first, first // 2, first // 4, first // 8, -(-first // 16)]


@pytest.mark.parametrize("pyramid", ["feature2pyramid", "simple"])
def test_images_smaller_than_a_step(pyramid: Pyramid) -> None:
    network = SemanticFPN("test_vit", 3, pyramid=pyramid, fpn_channels=8, head_channels=8).eval()
    with torch.no_grad():
        for height, width in ((8, 8), (16, 40), (1, 70)):
            assert network(torch.randn(1, 3, height, width)).shape == (1, 3, -(-height // 4), -(-width // 4))


def test_blocks_and_final_norm() -> None:
    torch.manual_seed(0)
    plain = Backbone("vit_tiny_patch16_224").eval()
    assert plain.plan.out_indices == (2, 5, 8, 11)
    named = Backbone("vit_tiny_patch16_224", blocks=(3, 5, 7, 11), final_norm=True).eval()
    assert named.plan.out_indices == (3, 5, 7, 11)
    state = named.body.state_dict()
    plain.body.load_state_dict({n: t for n, t in state.items() if n in plain.body.state_dict()})
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        theirs, ours = named(images)[-1], plain(images)[-1]
        normed = named.body.model.norm(ours.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(theirs, normed)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"blocks": (1, 2, 3)}, r"model.blocks is \(1, 2, 3\); .* blocks 0 to 11, of which four"),
        ({"blocks": (1, 2, 3, 12)}, "blocks 0 to 11"),
        ({"blocks": (5, 2, 3, 4)}, "rising"),
    ],
)
def test_impossible_blocks(options: dict[str, tuple[int, ...]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Backbone("vit_tiny_patch16_224", **options)  # type: ignore[arg-type]


def test_what_is_for_one_stride_is_refused_elsewhere() -> None:
    with pytest.raises(ValueError, match=r"model\.blocks is for networks of one stride.* levels at strides 2, 4, 8"):
        Backbone("resnet18", blocks=(0, 1, 2, 3))
    with pytest.raises(ValueError, match=r"model\.pyramid simple is for backbones of one stride.*4, 8, 16, 32"):
        SemanticFPN("resnet18", 3, pyramid="simple")


class OneStride(nn.Module):
    """A backbone of the user's with one stride."""

    channels, mean, std, strides = (4, 4, 4, 4), (120.0,) * 3, (60.0,) * 3, (8, 8, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, stride=8)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.conv(images)] * 4


def test_a_module_of_ones_own() -> None:
    network = SemanticFPN(OneStride(), 3, fpn_channels=8, head_channels=8)
    assert network(torch.randn(2, 3, 64, 96)).shape == (2, 3, 16, 24)
    assert stride_of(network.backbone) == 4
    assert isinstance(make_pyramid(OneStride(), 8, "simple"), SimpleFeaturePyramid)
    wrong = OneStride()
    wrong.strides = (4, 8, 16, 64)
    with pytest.raises(ValueError, match=r"OneStride has strides \(4, 8, 16, 64\); four that begin"):
        SemanticFPN(wrong, 3)
