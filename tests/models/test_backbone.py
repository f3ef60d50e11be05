"""Backbones of every family at awkward sizes, what is refused and how, and weights from a file."""

import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from panfpn.config import Model
from panfpn.models import Backbone, SemanticFPN, timm_networks
from panfpn.models.backbone import freeze, make_backbone
from panfpn.models.timm_networks import STRIDES
from panfpn.weights.foreign import read_foreign, state_dict_of
from panfpn.weights.interop.mmseg import mmseg_name
from small_backbone import OneConvolutionALevel

LITE0 = Path(__file__).parents[3] / "shared" / "weights" / "tf_efficientnet_lite0.safetensors"

# One small network a family; docs/backbones.md holds the long list. Beside it: what the image is padded to.
FAMILIES = {
    "resnet18": 1,
    "seresnext26d_32x4d": 1,
    "regnetx_002": 1,
    "convnext_atto": 1,
    "tf_efficientnet_lite0": 1,
    "mobilenetv3_small_050": 1,
    "mobilenetv4_conv_small_035": 1,
    "ghostnet_050": 1,
    "repvgg_a0": 1,
    "densenet121": 1,
    "cs3darknet_s": 1,
    "legacy_xception": 1,
    "pvt_v2_b0": 1,
    "poolformer_s12": 1,
    "edgenext_xx_small": 1,
    "mobilevitv2_050": 1,
    "fastvit_t8": 1,
    "twins_pcpvt_small": 1,
    "mambaout_femto": 1,
    "swin_tiny_patch4_window7_224": 4,
    "dla46_c": 32,
    "hrnet_w18_small": 32,
    "test_maxvit": 160,
}


def needs(name: str) -> None:
    if name == "test_maxvit" and not timm.is_model(name):
        pytest.skip("this timm has no small MaxViT")


@pytest.mark.parametrize("name", FAMILIES)
def test_trains_at_an_odd_size(name: str) -> None:
    needs(name)
    backbone = Backbone(name)
    assert backbone.training
    assert backbone.multiple == FAMILIES[name]
    maps = backbone(torch.randn(2, 3, 97, 131))
    assert tuple(m.shape[1] for m in maps) == backbone.channels
    for m, stride in zip(maps, STRIDES, strict=True):
        for got, side in zip(m.shape[2:], (97, 131), strict=True):
            assert abs(got - side / stride) < (2 if backbone.multiple == 1 else 1)
    sum(m.square().mean() for m in maps).backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "dla46_c", "test_maxvit"])
def test_padded_maps_are_those_of_the_padded_image(name: str) -> None:
    needs(name)
    backbone = Backbone(name).eval()
    images = torch.randn(1, 3, 65, 90)
    bottom, right = -65 % backbone.multiple, -90 % backbone.multiple
    with torch.no_grad():
        maps = backbone(images)
        whole = backbone(nn.functional.pad(images, (0, right, 0, bottom)))
    assert [tuple(m.shape[2:]) for m in maps] == [(17, 23), (9, 12), (5, 6), (3, 3)]
    for m, w in zip(maps, whole, strict=True):
        assert torch.equal(m, w[:, :, : m.shape[2], : m.shape[3]])


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "mambaout_femto"])
def test_unpadded_maps_are_timms_to_the_bit(name: str) -> None:
    backbone = Backbone(name).eval()
    peer = timm.create_model(name, features_only=True).eval()
    peer.load_state_dict(backbone.body.state_dict())
    images = torch.randn(1, 3, 97, 131)
    with torch.no_grad():
        maps, theirs = backbone(images), peer(images)[-4:]
    if name == "mambaout_femto":  # timm gives [B, H, W, C]
        theirs = [m.permute(0, 3, 1, 2) for m in theirs]
    assert all(torch.equal(m, t) for m, t in zip(maps, theirs, strict=True))


def test_channels_last_network_comes_out_channels_first() -> None:
    # As many rows as channels: a guess from the shape would leave these maps as they are.
    backbone = Backbone("mambaout_femto").eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 4 * backbone.channels[0], 64))
    assert [m.shape[1] for m in maps] == list(backbone.channels)
    assert tuple(maps[0].shape[2:]) == (backbone.channels[0], 16)


@pytest.mark.parametrize(
    ("name", "in_channels"),
    [("resnet18", 1), ("resnet18", 4), ("tf_efficientnet_lite0", 6), ("swin_tiny_patch4_window7_224", 4)],
)
def test_in_channels(name: str, in_channels: int) -> None:
    backbone = Backbone(name, in_channels=in_channels).eval()
    with torch.no_grad():
        assert backbone(torch.randn(1, in_channels, 64, 96))[0].shape[2:] == (16, 24)
    assert len(backbone.mean) == len(backbone.std) == in_channels


def test_mean_and_std_are_the_pretraining_ones() -> None:
    assert Backbone("resnet18").mean == pytest.approx((123.675, 116.28, 103.53))
    assert Backbone("tf_efficientnet_lite0").std == pytest.approx((127.5, 127.5, 127.5))


def test_the_plan_without_shapes_alone_is_the_same_and_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = timm_networks._tried

    def needs_numbers(name: str, device: str, *options: Any) -> timm_networks.Plan:  # as timm < 1.0.24 does
        if device == "meta":
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        return tried(name, device, *options)

    plan = timm_networks.plan_network("resnet18")
    monkeypatch.setattr(timm_networks, "_tried", needs_numbers)
    before = torch.get_rng_state()
    assert timm_networks.plan_network.__wrapped__("resnet18") == plan
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("crossvit_9_240", "feature maps at strides 12, 17; a pyramid needs 4, 8, 16 and 32.*resnet50c"),
        ("inception_v4", r"at 97x131 its map of stride 4 is \(160,"),
    ],
)
def test_refusals_say_why(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"backbone '{name}'.*{why}"):
        Backbone(name)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("resnte50", "resnet50"), ("swin_tny", "swin_tiny_patch4_window7_224"), ("convnxt_tiny", "convnext_tiny")],
)
def test_unknown_name_gets_the_nearest(typo: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"no backbone '{typo}'; nearest: {meant}, "):
        SemanticFPN(typo)


def test_unknown_weights_tag() -> None:
    with pytest.raises(ValueError, match=r"no weights 'a9' for 'resnet50'; it has: resnet50\.a1_in1k"):
        Backbone("resnet50.a9")


def test_no_pretrained_weights() -> None:
    with pytest.raises(ValueError, match="no pretrained weights for 'vovnet39a'"):
        Backbone("vovnet39a", pretrained=True)


@pytest.mark.parametrize("name", ["vgg11", "densenet121"])
def test_drop_path_is_not_ignored(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' has no stochastic depth; drop_path must be 0, not 0.1"):
        Backbone(name, drop_path=0.1)
    assert any("DropPath" in type(m).__name__ for m in Backbone("resnet18", drop_path=0.1).modules())


def load(backbone: Backbone, path: Path) -> None:
    backbone.load(state_dict_of(read_foreign(path)), path)


def _classifier(name: str, seed: int) -> nn.Module:
    """A whole timm classifier with every tensor drawn anew, so that none can be missed without a difference."""
    torch.manual_seed(seed)
    options = {"strict_img_size": False} if name.startswith("swin") else {}
    network = timm.create_model(name, pretrained=False, **options).eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:  # scales, shifts, statistics, layer scales
            tensor.uniform_(0.5, 1.0)
    return network


def _maps_by_hooks(classifier: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The maps seen in the classifier's own forward, with none of timm's feature code; empty where it names none."""
    names = {f["reduction"]: f["module"] for f in classifier.feature_info}
    modules = dict(classifier.named_modules())
    seen: list[torch.Tensor] = []
    if any(names[stride] not in modules for stride in STRIDES):
        return seen
    for stride in STRIDES:
        modules[names[stride]].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    classifier(images)
    return seen


# timm takes networks apart (joined names: convnext, swin), rebuilds (efficientnet), wraps (twins) or hooks into them.
@pytest.mark.parametrize(
    "name",
    [
        "resnet50c",
        "convnext_atto",
        "tf_efficientnet_lite0",
        "mobilenetv4_conv_small_035",
        "swin_tiny_patch4_window7_224",
        "pvt_v2_b0",
        "twins_pcpvt_small",
        "legacy_xception",
    ],
)
def test_a_classifiers_file_gives_its_maps(name: str, tmp_path: Path) -> None:
    classifier = _classifier(name, seed=1)
    safetensors.torch.save_model(classifier, str(tmp_path / "w.safetensors"))
    backbone = Backbone(name).eval()
    load(backbone, tmp_path / "w.safetensors")
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = backbone(images)
        theirs = _maps_by_hooks(classifier, images) or classifier.forward_intermediates(
            images, intermediates_only=True, output_fmt="NCHW"
        )
    for m, t in zip(maps, theirs[-4:], strict=True):
        if name.startswith("swin"):  # timm gives [B, H, W, C]
            t = t.permute(0, 3, 1, 2)
        assert t.isfinite().all()
        torch.testing.assert_close(m, t, rtol=1e-4, atol=1e-4 * float(t.abs().max()))


def test_a_pth_file_with_its_wrapping(tmp_path: Path) -> None:
    source, target = Backbone("resnet18"), Backbone("resnet18")
    torch.save({"state_dict": source.body.state_dict(), "epoch": 3}, tmp_path / "w.pth")
    load(target, tmp_path / "w.pth")
    loaded = target.body.state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in source.body.state_dict().items())


@pytest.mark.skipif(not LITE0.exists(), reason="tf_efficientnet_lite0.safetensors is not here")
def test_the_real_weights_load_whole() -> None:
    backbone = Backbone("tf_efficientnet_lite0")
    load(backbone, LITE0)
    weights = safetensors.torch.load_file(LITE0)
    own = backbone.body.state_dict()
    assert [n for n in own if n not in weights and not n.endswith("num_batches_tracked")] == []
    assert all(torch.equal(own[n], weights[n]) for n in own if n in weights)


def _drawn(network: nn.Module) -> nn.Module:
    """The network with every scale, shift and statistic drawn anew: none can be missed without a difference."""
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.0)
    return network.eval()


def _gives(backbone: Backbone, maps: list[torch.Tensor], images: torch.Tensor) -> bool:
    with torch.no_grad():
        return all(
            torch.allclose(m, t, rtol=1e-5, atol=1e-5) for m, t in zip(backbone.eval()(images), maps, strict=True)
        )


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "encoder."])  # as it is, of DDP, of a network, of smp
def test_torchvisions_weights(prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = _drawn(torchvision.models.resnet18(weights=None))
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        x = source.maxpool(source.relu(source.bn1(source.conv1(images))))
        maps = [x := layer(x) for layer in (source.layer1, source.layer2, source.layer3, source.layer4)]
    others = {"decoder.p5.weight": torch.zeros(3), "segmentation_head.0.bias": torch.zeros(1)}
    torch.save({prefix + n: t for n, t in source.state_dict().items()} | others, tmp_path / "w.pth")
    backbone = Backbone("resnet18")
    assert not _gives(backbone, maps, images)
    load(backbone, tmp_path / "w.pth")
    assert _gives(backbone, maps, images)


@pytest.mark.parametrize("name", ["resnet18c", "resnet50c", "resnet18d", "resnet18"])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_mmsegmentations_weights(name: str, prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = Backbone(name)
    _drawn(source)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = source(images)
    theirs = {mmseg_name(f"backbone.body.{n}", Model(backbone=name)): t for n, t in source.body.state_dict().items()}
    assert ("backbone.stem.7.weight" in theirs) == (name != "resnet18")
    state = {prefix + n.removeprefix("backbone."): t for n, t in theirs.items()}
    torch.save({"state_dict": state | {"decode_head.conv_seg.bias": torch.zeros(2)}}, tmp_path / "w.pth")
    backbone = Backbone(name)
    assert not _gives(backbone, maps, images)
    load(backbone, tmp_path / "w.pth")
    assert _gives(backbone, maps, images)


def test_smps_wrapped_timm_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = Backbone("convnext_atto")
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = source.eval()(images)
    torch.save({f"encoder.model.{n}": t for n, t in source.body.state_dict().items()}, tmp_path / "w.pth")
    backbone = Backbone("convnext_atto")
    load(backbone, tmp_path / "w.pth")
    assert _gives(backbone, maps, images)


@pytest.mark.parametrize("name", ["resnet18c", "resnet34c"])
def test_deep_stems_that_timm_has_no_name_for(name: str) -> None:
    backbone = Backbone(name)
    plain = Backbone(name[:-1])
    assert (backbone.channels, backbone.multiple) == (plain.channels, 1) == ((64, 128, 256, 512), 1)
    stem = [m for m in backbone.body.conv1.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.stride) for m in stem] == [
        (3, 32, (2, 2)), (32, 32, (1, 1)), (32, 64, (1, 1)),
    ]  # fmt: skip
    backbone(torch.randn(2, 3, 97, 131))[3].sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())
    shortcuts = [m for n, m in backbone.body.named_modules() if n.endswith("downsample")]
    assert len(shortcuts) == 3 and not any(isinstance(m, nn.AvgPool2d) for s in shortcuts for m in s.modules())
    with pytest.raises(ValueError, match=f"no pretrained weights for '{name}'; give a local file"):
        Backbone(name, pretrained=True)


@pytest.mark.parametrize("name", ["resnet50_msra", "resnet101_msra"])
def test_msras_resnets_stride_in_the_first_convolution(name: str, tmp_path: Path) -> None:
    backbone, plain = Backbone(name), Backbone(name.removesuffix("_msra"))
    assert (backbone.channels, backbone.multiple) == (plain.channels, plain.multiple)
    assert (backbone.mean, backbone.std) == (plain.mean, plain.std)
    for stage, stride in ((1, 1), (2, 2), (3, 2), (4, 2)):
        block = getattr(backbone.body, f"layer{stage}")[0]
        steps = [block.conv1.stride, block.conv2.stride, block.downsample[0].stride]
        assert steps == [(stride, stride), (1, 1), (stride, stride)]
    _drawn(plain)
    load(backbone, _file(tmp_path / "w.safetensors", plain.body.state_dict()))
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        maps, others = backbone.eval()(images), plain.eval()(images)
    assert [m.shape for m in maps] == [m.shape for m in others]
    assert torch.equal(maps[0], others[0]) and not torch.allclose(maps[1], others[1])
    with pytest.raises(ValueError, match=f"no pretrained weights for '{name}'; give a local file"):
        Backbone(name, pretrained=True)
    with pytest.raises(ValueError, match=f"nearest: {name}, "):
        Backbone(name.replace("msra", "mrsa"))


def _file(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    safetensors.torch.save_file({n: t.contiguous() for n, t in weights.items()}, path)
    return path


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    weights = Backbone("resnet18").body.state_dict()
    backbone = Backbone("resnet18", in_channels=4)
    before = {n: t.clone() for n, t in backbone.state_dict().items()}
    path = _file(tmp_path / "two.safetensors", Backbone("resnet18", in_channels=2).body.state_dict())
    shapes = re.escape("conv1.weight is (64, 2, 7, 7) instead of (64, 4, 7, 7)")
    with pytest.raises(ValueError, match=rf"two\.safetensors: .*{shapes}.*another number of input channels"):
        load(backbone, path)
    path = _file(tmp_path / "less.safetensors", {n: t for n, t in weights.items() if "layer3" not in n})
    with pytest.raises(ValueError, match=r"less\.safetensors: .*tensors are missing, such as layer3\.0\.conv1\.weight"):
        load(backbone, path)
    path = _file(tmp_path / "other.safetensors", Backbone("convnext_atto").body.state_dict())
    with pytest.raises(ValueError, match=r"other\.safetensors: not weights of backbone 'resnet18' in timm's names"):
        load(backbone, path)
    assert all(torch.equal(before[n], t) for n, t in backbone.state_dict().items())  # nothing half loaded


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pth", "empty.pth"])
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"\x10\x00\x00\x00not weights at all")
    with pytest.raises(ValueError, match=rf"{re.escape(name)}: cannot be read as a checkpoint"):
        load(Backbone("resnet18"), tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.safetensors: no such file"):
        load(Backbone("resnet18"), tmp_path / "nowhere.safetensors")


# A module of one's own ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(64, 96), (97, 131)])
def test_a_module_of_ones_own(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    backbone = OneConvolutionALevel()
    backbone.levels[1].eval()
    before, random = {n: t.clone() for n, t in backbone.state_dict().items()}, torch.get_rng_state()
    make_backbone(backbone, in_channels=3, pretrained=False)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[n], t) for n, t in backbone.state_dict().items())
    assert [level.training for level in backbone.levels] == [True, False, True, True]
    network = SemanticFPN(backbone, 3, fpn_channels=8, head_channels=8)
    assert network.backbone is backbone
    logits = network(torch.randn(2, 3, *size))
    assert tuple(logits.shape) == (2, 3, -(-size[0] // 4), -(-size[1] // 4))
    logits.square().mean().backward()
    assert all(p.grad is not None for p in backbone.parameters())


def _without(name: str) -> nn.Module:
    backbone = OneConvolutionALevel()
    delattr(backbone, name)
    return backbone


def _changed(**attributes: object) -> nn.Module:
    backbone = OneConvolutionALevel()
    for name, value in attributes.items():
        setattr(backbone, name, value)
    return backbone


@pytest.mark.parametrize(
    ("backbone", "why"),
    [
        (_without("channels"), r"OneConvolutionALevel has no attribute 'channels' \(the widths of c2…c5\)"),
        (_without("mean"), r"has no attribute 'mean' \(of images in 0\.\.255, by channel\)"),
        (_without("std"), "has no attribute 'std'"),
        (_changed(channels=(4, 6, 8)), r"has 3 channels \(one for each of c2…c5 is wanted\), 3 entries in mean and 3 "),
        (_changed(std=(60.0,)), "3 entries in mean and 1 in std"),
        (_changed(mean=(120.0,), std=(60.0,)), r"fails on zeros \[1, 1, 128, 192\]: RuntimeError: .*channels"),
        (_changed(channels=(4, 6, 8, 12)), r"gives c5 \[1, 10, 4, 6\] of .* channels\[3\] and stride 32 call for "
                                           r"\[1, 12, 4, 6\]"),
        (OneConvolutionALevel(strides=(2, 2, 2, 2)), r"gives c2 \[1, 4, 64, 96\] .* stride 4 call for "
                                                    r"\[1, 4, 32, 48\]"),
        (_changed(forward=lambda images: images), "must give a list of four tensors, c2…c5, but gives Tensor"),
        (_changed(forward=lambda images: [images] * 3), "must give a list of four tensors, c2…c5, but gives 3 things"),
        (3, "backbone 3 is neither timm's name of a network nor an nn.Module"),
    ],
)  # fmt: skip
def test_a_module_that_does_not_fit_is_refused(backbone: nn.Module, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        SemanticFPN(backbone)


def test_what_goes_only_with_a_name_is_refused_beside_a_module() -> None:
    with pytest.raises(ValueError, match="pretrained_backbone=True is for backbones by name"):
        SemanticFPN(OneConvolutionALevel(), pretrained_backbone=True)
    with pytest.raises(ValueError, match="in_channels is 4, but the backbone's mean has 3 entries"):
        SemanticFPN(Backbone("resnet18"), in_channels=4)


@pytest.mark.parametrize("name", ["resnet18", "of one's own"])
def test_freezing_a_level_freezes_what_it_depends_on(name: str) -> None:
    backbone = Backbone(name) if name == "resnet18" else OneConvolutionALevel()
    backbone.train()
    before = {n: t.clone() for n, t in backbone.state_dict().items()}
    freeze(backbone, 0)
    assert all(p.requires_grad for p in backbone.parameters())
    freeze(backbone, 3)
    frozen = {n for n, p in backbone.named_parameters() if not p.requires_grad}
    parts = ("body.conv1", "body.bn1", "body.layer1", "body.layer2") if name == "resnet18" else ("levels.0", "levels.1")
    assert frozen == {n for n, _ in backbone.named_parameters() if n.startswith(parts)}
    assert backbone.training and all(torch.equal(before[n], t) for n, t in backbone.state_dict().items())
