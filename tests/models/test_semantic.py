"""Semantic FPN: sizes, norms, dropout, gradients, and equality with mmsegmentation."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from panfpn.config import Model
from panfpn.labels import IGNORE
from panfpn.losses import SemanticLoss
from panfpn.models import SemanticFPN
from panfpn.models.semantic import Norm, SemanticHead
from panfpn.weights.interop.mmseg import mmseg_name


@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 131), (33, 250), (128, 64)])
def test_logits_are_of_stride_4_at_any_size(height: int, width: int) -> None:
    network = SemanticFPN("resnet18", 5).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, 3, height, width))
    assert tuple(logits.shape) == (1, 5, -(-height // 4), -(-width // 4))
    assert logits.isfinite().all()


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_norm_and_gradient(norm: Norm) -> None:
    network = SemanticFPN("resnet18", 5, norm=norm, head_channels=48)
    norms = [m for m in network.head.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    assert len(norms) == 1 + 1 + 2 + 3
    if norm == "group":  # the largest power of two that divides 48
        assert all(isinstance(m, nn.GroupNorm) and m.num_groups == 16 for m in norms)
    else:
        assert all(isinstance(m, nn.BatchNorm2d) for m in norms)
    with torch.no_grad():  # timm starts the last scale of each residual branch at 0, which stops the gradient there
        for parameter in network.backbone.parameters():
            if not parameter.any():
                parameter.fill_(0.1)
    network(torch.randn(2, 3, 97, 131)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_papers_32_groups() -> None:
    head = SemanticHead(256, 3, norm="group")
    assert {m.num_groups for m in head.modules() if isinstance(m, nn.GroupNorm)} == {32}


def test_training_mode_changes_neither_type_nor_size() -> None:
    network = SemanticFPN("resnet18", 5)
    images = torch.randn(2, 3, 64, 96)
    assert network(images).shape == network.eval()(images).shape == (2, 5, 16, 24)


def _pyramid() -> list[torch.Tensor]:
    return [torch.randn(1, 16, 32 // s, 48 // s) for s in (1, 2, 4, 8)]


def test_dropout_only_in_training() -> None:
    torch.manual_seed(0)
    pyramid = _pyramid()
    head = SemanticHead(16, 3, channels=8, norm="group", dropout=0.5)
    with torch.no_grad():
        assert not torch.equal(head(pyramid), head(pyramid))
        head.eval()
        assert torch.equal(head(pyramid), head(pyramid))
        without = SemanticHead(16, 3, channels=8, norm="group", dropout=0.0)
        without.load_state_dict(head.state_dict())
        assert torch.equal(without.train()(pyramid), head(pyramid))


def test_dropout_zeroes_whole_channels() -> None:
    torch.manual_seed(0)
    head = SemanticHead(16, 3, channels=8, norm="group", dropout=0.5)
    seen: list[torch.Tensor] = []
    head.classifier.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    pyramid = _pyramid()
    head(pyramid)
    head.eval()(pyramid)
    dropped, whole = (x.flatten(2) for x in seen)  # [1, 8, H/4 × W/4]
    gone = (dropped == 0).all(-1)
    assert 0 < gone.sum() < 8
    torch.testing.assert_close(dropped, whole * 2 * ~gone[..., None])


def test_every_level_reaches_the_logits() -> None:
    head = SemanticHead(16, 3, channels=8).eval()
    pyramid = [level.requires_grad_() for level in _pyramid()]
    head(pyramid).sum().backward()
    assert all(level.grad is not None and level.grad.abs().sum() > 0 for level in pyramid)


@pytest.mark.parametrize(("data", "num_classes"), [("cityscapes", 19), ("ade20k", 150)])
def test_equals_mmsegmentation(data: str, num_classes: int, fill: ModuleType, golden_files: Path) -> None:
    network = SemanticFPN("resnet50c", num_classes).eval()
    model = Model(backbone="resnet50c")
    peers = {mmseg_name(name, model): tensor for name, tensor in network.state_dict().items()}
    keys = [line.split("\t")[0] for line in (golden_files / "mmseg_keys_r50.tsv").read_text().splitlines()]
    assert sorted(peers) == sorted(k for k in keys if k)
    for name, tensor in peers.items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(fill.values(name, tuple(tensor.shape))))
    expected = np.load(golden_files / f"mmseg_r50_{data}.npz")
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    for height, width in ((64, 128), (97, 131)):
        image = torch.from_numpy(fill.image(height, width, 7)).float()
        logits = network(((image - mean) / std).permute(2, 0, 1)[None])
        golden = torch.from_numpy(expected[f"{height}x{width}/logits"])
        assert logits.shape == golden.shape
        assert (logits - golden).abs().max() <= 1e-4 * golden.abs().max()
        labels = torch.from_numpy(fill.labels(height, width, num_classes, 7).astype(np.int16))[None]
        targets = torch.where(labels == 255, IGNORE, labels)
        for denominator, key in (("labelled", "loss_labelled_pixels"), ("all", "loss_all_pixels")):
            loss = SemanticLoss(weights={"cross_entropy": 1.0}, denominator=denominator)(logits, targets)
            value = loss["cross_entropy"]
            assert value.item() == pytest.approx(float(expected[f"{height}x{width}/{key}"]), rel=1e-5)
        network.zero_grad()
        value.backward()  # of the loss over all pixels, as the peer's
        compared = 0
        for name, parameter in network.named_parameters():
            key = f"{height}x{width}/grad_norm/{mmseg_name(name, model)}"
            if key in expected:
                assert parameter.grad is not None
                assert parameter.grad.norm().item() == pytest.approx(float(expected[key]), rel=1e-4), name
                compared += 1
        assert compared == 6
