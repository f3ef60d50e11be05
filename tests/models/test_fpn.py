import pytest
import torch
import torch.nn.functional as F

from panfpn.models.fpn import FPN

ALIGNED = [(16, 24), (8, 12), (4, 6), (2, 3)]
ODD = [(17, 23), (9, 12), (5, 6), (3, 3)]


@pytest.mark.parametrize("sizes", [ALIGNED, ODD])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_sums_in_place_are_the_sums_with_their_gradients(
    sizes: list[tuple[int, int]], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    fpn = FPN([3, 4, 5, 6], 8)
    maps = [
        torch.randn(2, width, *size).to(memory_format=layout).requires_grad_()
        for width, size in zip([3, 4, 5, 6], sizes, strict=True)
    ]
    merged = [lateral(m) for lateral, m in zip(fpn.lateral, maps, strict=True)]
    for i in (2, 1, 0):
        merged[i] = merged[i] + F.interpolate(merged[i + 1], size=merged[i].shape[2:], mode="nearest")
    expected = [output(m) for output, m in zip(fpn.output, merged, strict=True)]
    found = fpn(list(maps))
    wanted = [*maps, *fpn.parameters()]
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain)
    gradients = (torch.autograd.grad(sum(p.sin().sum() for p in pyramid), wanted) for pyramid in (found, expected))
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_a_list_is_emptied_and_a_tuple_is_not() -> None:
    fpn = FPN([3, 4, 5, 6], 8)
    maps = [torch.zeros(1, width, *size) for width, size in zip([3, 4, 5, 6], ALIGNED, strict=True)]
    fpn(tuple(maps))
    assert len(maps) == 4
    fpn(maps)
    assert not maps
