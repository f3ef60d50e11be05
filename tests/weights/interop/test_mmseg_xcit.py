"""Semantic FPN on XCiT as its authors publish it: names and shapes written out from their configurations."""

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F

from panfpn.build import load_task
from panfpn.labels import LabelTable
from panfpn.weights import convert_model
from panfpn.weights.interop import read_foreign_model
from panfpn.weights.interop.imported import semantic_shapes
from panfpn.weights.interop.mmseg import mmseg_name

Shapes = dict[str, tuple[int, ...]]
CONFIG = """
model = dict(
    type='EncoderDecoder',
    backbone=dict(
        type='XCiT', patch_size={patch}, embed_dim={width}, depth={depth}, num_heads={heads}, mlp_ratio=4,
        qkv_bias=True, eta=1.0, drop_path_rate=0.05, out_indices={blocks}),
    neck=dict(type='FPN', in_channels=[{width}] * 4, out_channels={width}, num_outs=4),
    decode_head=dict(
        type='FPNHead', in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32], channels=128, dropout_ratio=0.1,
        num_classes=150, norm_cfg=dict(type='SyncBN', requires_grad=True), align_corners=False),
    test_cfg=dict(mode='whole'))
data = dict(test=dict(type='ADE20KDataset', pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='MultiScaleFlipAug', img_scale=(2048, 512), flip=False, transforms=[
        dict(type='Resize', keep_ratio=True),
        dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)])]))
"""


def pair(name: str, *weight: int) -> Shapes:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def batch_norm(name: str, width: int) -> Shapes:
    return pair(name, width) | {
        f"{name}.running_mean": (width,), f"{name}.running_var": (width,), f"{name}.num_batches_tracked": ()
    }  # fmt: skip


def published(width: int, depth: int, heads: int, patch: int) -> Shapes:
    """Names and shapes of sem_fpn_xcit_*: semantic_segmentation/backbone/xcit.py, mmsegmentation's FPN and FPNHead."""
    shapes: Shapes = {}
    widths = {16: (3, width // 8, width // 4, width // 2, width), 8: (3, width // 4, width // 2, width)}[patch]
    for i in range(len(widths) - 1):
        shapes[f"backbone.patch_embed.proj.{2 * i}.0.weight"] = (widths[i + 1], widths[i], 3, 3)
        shapes |= batch_norm(f"backbone.patch_embed.proj.{2 * i}.1", widths[i + 1])
    for block in (f"backbone.blocks.{i}" for i in range(depth)):
        for k in (1, 2, 3):
            shapes[f"{block}.gamma{k}"] = (width,)
            shapes |= pair(f"{block}.norm{k}", width)
        shapes[f"{block}.attn.temperature"] = (heads, 1, 1)
        shapes |= pair(f"{block}.attn.qkv", 3 * width, width) | pair(f"{block}.attn.proj", width, width)
        shapes |= pair(f"{block}.mlp.fc1", 4 * width, width) | pair(f"{block}.mlp.fc2", width, 4 * width)
        shapes |= pair(f"{block}.local_mp.conv1", width, 1, 3, 3) | pair(f"{block}.local_mp.conv2", width, 1, 3, 3)
        shapes |= batch_norm(f"{block}.local_mp.bn", width)
    shapes |= pair("backbone.pos_embeder.token_projection", width, 64, 1, 1)
    shapes |= pair("backbone.fpn1.0", width, width, 2, 2)
    if patch == 16:
        shapes |= batch_norm("backbone.fpn1.1", width) | pair("backbone.fpn1.3", width, width, 2, 2)
        shapes |= pair("backbone.fpn2.0", width, width, 2, 2)
    for level, units in enumerate((1, 1, 2, 3)):
        shapes |= pair(f"neck.lateral_convs.{level}.conv", width, width, 1, 1)
        shapes |= pair(f"neck.fpn_convs.{level}.conv", width, width, 3, 3)
        for unit in range(units):
            layer = f"decode_head.scale_heads.{level}.{2 * unit}"
            shapes[f"{layer}.conv.weight"] = (128, 128 if unit else width, 3, 3)
            shapes |= batch_norm(f"{layer}.bn", 128)
    return shapes | pair("decode_head.conv_seg", 150, 128, 1, 1)


def checkpoint(width: int, depth: int, heads: int, patch: int, blocks: tuple[int, ...]) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.tensor(7) if not shape and name.endswith("tracked")
        else torch.rand(shape, generator=generator) + 0.5 if name.endswith("running_var")
        else 0.2 * torch.randn(shape, generator=generator)
        for name, shape in published(width, depth, heads, patch).items()
    }  # fmt: skip
    config = CONFIG.format(width=width, depth=depth, heads=heads, patch=patch, blocks=list(blocks))
    ade20k = LabelTable.named("ade20k")
    return {"meta": {"config": config, "CLASSES": ade20k.names}, "state_dict": state}


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads", "patch"),
    [
        ("xcit_tiny_12_p16_224", 192, 12, 4, 16), ("xcit_tiny_12_p8_224", 192, 12, 4, 8),
        ("xcit_small_12_p8_224", 384, 12, 8, 8), ("xcit_small_24_p16_224", 384, 24, 8, 16),
        ("xcit_medium_24_p16_224", 512, 24, 8, 16),
    ],
)  # fmt: skip
def test_names_and_shapes_are_the_published_ones(
    name: str, width: int, depth: int, heads: int, patch: int, tmp_path: Path
) -> None:
    shapes = published(width, depth, heads, patch)
    data = {"meta": {"CLASSES": LabelTable.named("ade20k").names},
            "state_dict": {n: torch.zeros(shape) for n, shape in shapes.items()}}  # fmt: skip
    torch.save(data, tmp_path / "x.pth")
    found = read_foreign_model(tmp_path / "x.pth")
    model = found.config.model
    assert (model.backbone, model.fpn_channels, model.head_channels) == (name, width, 128)
    assert model.blocks == ((3, 5, 7, 11) if depth == 12 else (7, 11, 15, 23))
    ours = semantic_shapes(model)
    assert {mmseg_name(n, model): tuple(shape) for n, shape in ours.items()} == shapes


@pytest.mark.parametrize("patch", [16, 8])
def test_it_computes_what_the_names_say_and_goes_back(patch: int, tmp_path: Path) -> None:
    blocks = (2, 4, 7, 11)
    data = checkpoint(192, 12, 4, patch, blocks)
    torch.save(data, tmp_path / "theirs.pth")
    ours, notes = convert_model(str(tmp_path / "theirs.pth"), tmp_path / "ours.safetensors")
    assert notes == ()
    task, release = load_task(ours, device="cpu", precision="float32")
    assert release.config.model.blocks == blocks and release.config.data.scale == (2048, 512)

    state: dict[str, torch.Tensor] = data["state_dict"]  # type: ignore[assignment]
    whole = timm.create_model(f"xcit_tiny_12_p{patch}_224").eval()
    theirs = {
        n.removeprefix("backbone.").replace("pos_embeder", "pos_embed"): t
        for n, t in state.items() if n.startswith("backbone.") and ".fpn" not in n
    }  # fmt: skip
    missing, unexpected = whole.load_state_dict(theirs, strict=False)
    assert not unexpected and all(n.startswith(("cls_", "norm.", "head.")) for n in missing)
    images = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        maps = whole.forward_intermediates(images, indices=list(blocks), intermediates_only=True)

        def up(m: torch.Tensor, name: str) -> torch.Tensor:
            weight, bias = state[f"backbone.{name}.weight"], state[f"backbone.{name}.bias"]
            return F.conv_transpose2d(m, weight, bias, stride=2)

        if patch == 16:
            norm = [state[f"backbone.fpn1.1.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
            levels = [
                up(F.gelu(F.batch_norm(up(maps[0], "fpn1.0"), *norm)), "fpn1.3"), up(maps[1], "fpn2.0"), maps[2],
                F.max_pool2d(maps[3], 2),
            ]  # fmt: skip
        else:
            levels = [up(maps[0], "fpn1.0"), maps[1], F.max_pool2d(maps[2], 2), F.max_pool2d(maps[3], 4)]
        network = task.model.eval()
        fpn = network.fpn
        made, fpn.levels = fpn.levels, torch.nn.Identity()
        expected = network.head(fpn(levels))
        fpn.levels = made
        largest = float(expected.abs().max())
        assert float((network(images) - expected).abs().max()) <= 2e-5 * largest

    back, _ = convert_model(str(ours), tmp_path / "back.pth")
    again = torch.load(back, weights_only=True)
    assert set(again["state_dict"]) == set(state)
    assert all(torch.equal(t, state[n]) for n, t in again["state_dict"].items())
    assert read_foreign_model(back).config.model.blocks == blocks
