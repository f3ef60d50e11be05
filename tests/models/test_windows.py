import pytest
import torch
import torch.nn.functional as F

from panfpn.models import Backbone, SemanticFPN
from panfpn.models.windows import in_windows


def pooled(windows: torch.Tensor) -> list[torch.Tensor]:
    """What each window gives depends on the place alone, so that windows agree where they overlap."""
    return [F.avg_pool2d(windows, stride) for stride in (4, 8, 16, 32)]


@pytest.mark.parametrize("size", [(97, 131), (224, 224), (64, 700), (500, 33)])
def test_where_windows_agree_they_join_without_a_trace(size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size)
    for m, stride in zip(in_windows(pooled, images, 224, (4, 8, 16, 32)), (4, 8, 16, 32), strict=True):
        height, width = (side // stride for side in size)
        torch.testing.assert_close(m[:, :, :height, :width], F.avg_pool2d(images, stride), rtol=1e-5, atol=1e-5)


def test_there_are_no_seams() -> None:
    """Where windows disagree by their numbers, no step between neighbours is larger than the cross-fade's."""

    def numbered(windows: torch.Tensor) -> list[torch.Tensor]:
        numbers = torch.arange(len(windows), dtype=torch.float32)[:, None, None, None]
        return [numbers.expand(-1, 1, 56, 56)]

    (joined,) = in_windows(numbered, torch.zeros(1, 3, 224, 544), 224, (4,))
    row = joined[0, 0, 20]
    assert (row[0], row[-1]) == (0, 2)
    steps = row.diff()
    assert (steps >= 0).all() and steps.max() < 0.15  # two windows share 64 pixels, 16 places


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "efficientformer_l1"])
def test_a_network_of_one_size_takes_any(name: str) -> None:
    backbone = Backbone(name).eval()
    assert backbone.window == 224
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 97, 300))
        alone = backbone(images := torch.randn(1, 3, 224, 224))
        for m, plain in zip(alone, backbone.body(images), strict=True):
            torch.testing.assert_close(m, plain)  # one window is the network's own image
    assert [m.shape[2:] for m in maps] == [(-(-97 // s), -(-300 // s)) for s in backbone.strides]


def test_gradients_go_through_windows() -> None:
    network = SemanticFPN("efficientformer_l1", 3, fpn_channels=16, head_channels=8)
    network(torch.randn(1, 3, 97, 300)).square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_table_that_ends_beyond_the_size_a_network_is_made_for_gets_windows() -> None:
    backbone = Backbone("mvitv2_tiny").eval()  # its shapes fit at any size; its table of positions ends
    assert backbone.window == 224
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 64, 256))
    assert [m.shape[2:] for m in maps] == [(64 // s, 256 // s) for s in (4, 8, 16, 32)]
