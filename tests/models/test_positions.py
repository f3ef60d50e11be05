import pytest
import torch
import torch.nn.functional as F

from panfpn.models.positions import ExportablePositions, antialiased_bicubic

# None of one column and another number of rows: torch 2.15 reads its own intermediate [.., 7, 1] in the wrong order.
SIZES = [(7, 9), (14, 14), (3, 40), (16, 17), (37, 5), (1, 7)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("have", [(14, 14), (7, 7), (37, 20)])
def test_matrices_resize_as_torch_does(have: tuple[int, int], size: tuple[int, int]) -> None:
    maps = torch.randn(2, 5, *have, dtype=torch.float64)
    theirs = F.interpolate(maps, size=size, mode="bicubic", antialias=True)
    torch.testing.assert_close(antialiased_bicubic(maps, size), theirs, rtol=1e-5, atol=1e-5)


def test_only_that_resize_is_replaced() -> None:
    maps = torch.randn(1, 2, 8, 8)
    with ExportablePositions():
        plain = F.interpolate(maps, size=(5, 5), mode="bicubic")
        found = F.interpolate(maps, size=(5, 5), mode="bicubic", antialias=True)
    assert torch.equal(plain, F.interpolate(maps, size=(5, 5), mode="bicubic"))
    assert torch.equal(found, antialiased_bicubic(maps, (5, 5)))
