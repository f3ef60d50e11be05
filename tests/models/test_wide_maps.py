"""3×3 convolutions on large maps: the gradients are torch's own, and everything else goes its usual way."""

from typing import Any

import pytest
import torch
from torch import nn

from panfpn.models import SemanticFPN, wide_maps
from panfpn.models.wide_maps import WideConv2d, speed_up_wide_maps


def pair(channels: int, outputs: int, bias: bool) -> tuple[nn.Conv2d, nn.Conv2d]:
    torch.manual_seed(0)
    plain = nn.Conv2d(channels, outputs, 3, padding=1, bias=bias).to(memory_format=torch.channels_last)
    fast = nn.Conv2d(channels, outputs, 3, padding=1, bias=bias).to(memory_format=torch.channels_last)
    fast.load_state_dict(plain.state_dict())
    speed_up_wide_maps(nn.Sequential(fast))  # in place
    return plain, fast


def gradients(layer: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    (y.float() * weight).sum().backward()
    found = [x.grad, *(p.grad for p in layer.parameters())]
    return [y.detach(), *(grad for grad in found if grad is not None)]


@pytest.mark.parametrize(("size", "batch"), [((46, 45), 3), ((3, 700), 1), ((64, 33), 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_torchs(size: tuple[int, int], batch: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = pair(32, 40, bias)
    assert type(fast) is WideConv2d and list(fast.state_dict()) == list(plain.state_dict())
    called: list[Any] = []
    slow = wide_maps.weight_gradient
    monkeypatch.setattr(wide_maps, "weight_gradient", lambda *a: called.append(1) or slow(*a))
    x = torch.randn(batch, 32, *size).to(memory_format=torch.channels_last)
    weight = torch.randn(batch, 40, *size)
    ours, theirs = gradients(fast, x, weight), gradients(plain, x, weight)
    assert called
    assert torch.equal(ours[0], theirs[0])
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4 * float(b.abs().max()))


@pytest.mark.parametrize("case", ["small", "bfloat16", "contiguous", "frozen", "no gradient"])
def test_other_cases_are_torchs_own(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_maps._Convolution, "apply", None)  # that it is called would be an error
    plain, fast = pair(32, 32, True)
    x = torch.randn(1, 32, *((8, 8) if case == "small" else (48, 48)))
    if case != "contiguous":
        x = x.to(memory_format=torch.channels_last)
    fast.weight.requires_grad_(case != "frozen")
    with torch.set_grad_enabled(case != "no gradient"), torch.autocast("cpu", torch.bfloat16, case == "bfloat16"):
        assert torch.equal(fast(x), plain(x))


def test_only_such_layers_are_changed() -> None:
    others = [
        nn.Conv2d(32, 32, 3, padding=1, stride=2),
        nn.Conv2d(32, 32, 3),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.Conv2d(8, 32, 3, padding=1),
        nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(32, 32, 3, padding=2, dilation=2),
    ]
    assert all(type(layer) is nn.Conv2d for layer in speed_up_wide_maps(nn.Sequential(*others)))
    network = speed_up_wide_maps(SemanticFPN("resnet18", 3, fpn_channels=32, head_channels=32))
    assert sum(isinstance(layer, WideConv2d) for layer in network.modules()) > 8


def test_a_large_network_trains_alike() -> None:
    torch.manual_seed(0)
    plain = SemanticFPN("resnet18", 3, fpn_channels=32, head_channels=32, dropout=0.0)
    fast = SemanticFPN("resnet18", 3, fpn_channels=32, head_channels=32, dropout=0.0)
    fast.load_state_dict(plain.state_dict())
    speed_up_wide_maps(fast)
    images = torch.randn(2, 3, 192, 224).to(memory_format=torch.channels_last)
    found = []
    for model in (plain, fast):
        model.to(memory_format=torch.channels_last).train()
        model(images).square().mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.cosine_similarity(*found, dim=0) > 1 - 1e-6
