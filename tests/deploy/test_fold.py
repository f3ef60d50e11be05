import torch
from torch import nn

from panfpn.deploy.fold import folded
from panfpn.deploy.runtime import TorchRuntime
from panfpn.models.pixels import PixelNetwork
from pixel_networks import MEAN, STD, network, pixels


def test_batch_norm_is_folded_away() -> None:
    plain = network("tf_efficientnet_lite0")
    fast = folded(plain, torch.float32)
    assert any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())


class _Shared(nn.Module):
    """A convolution whose result is used beside its norm too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.norm.weight.data.fill_(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + y  # type: ignore[no-any-return]


def test_a_norm_that_cannot_be_folded_stays() -> None:
    plain = PixelNetwork(_Shared(), MEAN, STD, 1).eval()
    with torch.no_grad():
        expected = plain(pixels((1, 20, 20)))
    runtime = TorchRuntime(plain, torch.float32)
    assert isinstance(runtime.network.network.norm, nn.BatchNorm2d)
    torch.testing.assert_close(runtime(pixels((1, 20, 20))), expected)
