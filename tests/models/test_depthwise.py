import pytest
import timm
import torch
import torch.nn.functional as F

from panfpn.models.depthwise import DepthwiseConv2d, depthwise_conv2d, speed_up_depthwise


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv2_050", "convnext_atto", "resnet18"])
def test_same_keys_and_same_results(name: str) -> None:
    torch.manual_seed(0)
    plain = timm.create_model(name, features_only=True, pretrained=False).eval()
    fast = timm.create_model(name, features_only=True, pretrained=False).eval()
    fast.load_state_dict(plain.state_dict())
    keys = list(fast.state_dict())
    speed_up_depthwise(fast)
    swapped = sum(isinstance(m, DepthwiseConv2d) for m in fast.modules())
    assert (swapped > 0) == (name != "resnet18")
    assert list(fast.state_dict()) == keys == list(plain.state_dict())
    images = torch.randn(1, 3, 65, 98)
    with torch.no_grad():
        for ours, theirs in zip(fast(images), plain(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_training_in_bfloat16_gives_close_gradients() -> None:
    torch.manual_seed(0)
    plain = timm.create_model("mobilenetv2_050", features_only=True, pretrained=False).train()
    fast = timm.create_model("mobilenetv2_050", features_only=True, pretrained=False).train()
    fast.load_state_dict(plain.state_dict())
    speed_up_depthwise(fast)
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    gradients = []
    for model in (plain, fast):
        with torch.autocast("cpu", torch.bfloat16):
            maps = model(images)
        sum(m.float().square().mean() for m in maps).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    cosine = torch.cosine_similarity(*gradients, dim=0)
    assert cosine > 0.99


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (3, 2, 0), (5, 1, 2), (5, 2, 2), (5, 2, 0), (7, 1, 3)]
)
@pytest.mark.parametrize("size", [(16, 16), (17, 22)])
def test_depthwise_gradients(kernel: int, stride: int, padding: int, size: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(kernel)
    x = torch.randn(2, 6, *size, generator=draw).bfloat16().contiguous(memory_format=torch.channels_last)
    weight = torch.randn(6, 1, kernel, kernel, generator=draw).bfloat16()
    results = []
    for function in (
        lambda a, b: depthwise_conv2d(a, b, stride, padding),
        lambda a, b: F.conv2d(a.float(), b.float(), None, stride, padding, 1, 6),
    ):
        a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = function(a, b)
        y.float().square().sum().backward()
        results.append((y.float(), a.grad, b.grad))
    for ours, reference in zip(*results, strict=True):
        assert ours.shape == reference.shape
        scale = reference.float().abs().max()
        assert (ours.float() - reference.float()).abs().max() <= 0.02 * scale  # bfloat16 holds 8 bits
