import pytest
import timm
import torch

from panfpn.models.depthwise import DepthwiseConv2d, speed_up_depthwise


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
