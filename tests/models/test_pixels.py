"""The one forward: from pixels to maps, trained, compiled and exported as it is."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from panfpn.models import SemanticFPN
from panfpn.models.pixels import PixelNetwork
from small_backbone import OneConvolutionALevel

DYNAMIC = torch.export.Dim.DYNAMIC
MEAN, STD = (120.0, 110.0, 100.0), (60.0, 55.0, 50.0)


def make(divisor: int = 32, precision: torch.dtype = torch.float32) -> PixelNetwork:
    torch.manual_seed(0)
    network = SemanticFPN(OneConvolutionALevel(), 3, fpn_channels=8, head_channels=8)
    nn.init.normal_(network.head.classifier.weight)
    return PixelNetwork(network, MEAN, STD, divisor, precision=precision).eval()


def pixels(*shape: int) -> torch.Tensor:
    return torch.randint(256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(sum(shape)))


def plain(network: PixelNetwork, batch: torch.Tensor) -> torch.Tensor:
    """By the definition: normalise, pad with zeros, run."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    images = (batch.permute(0, 3, 1, 2).float() - mean) / std
    height, width = batch.shape[1:3]
    images = F.pad(images, (0, -width % network.divisor, 0, -height % network.divisor))
    return network.network(images)  # type: ignore[no-any-return]


@torch.no_grad()
def test_normalised_padded_and_run() -> None:
    for divisor, size in ((1, (64, 96)), (32, (64, 96)), (32, (70, 41))):
        network, batch = make(divisor), pixels(2, *size)
        assert torch.equal(network(batch), plain(network, batch))


@torch.no_grad()
def test_what_lies_beyond_the_extents_is_the_mean_colour() -> None:
    network, batch = make(), pixels(2, 64, 96)
    other = batch.clone()
    other[1, 40:], other[1, :, 70:] = 7, 9  # nobody sees what padding holds
    extents = torch.tensor([[64, 96], [40, 70]])
    assert torch.equal(network(batch, extents), network(other, extents))
    assert torch.equal(network(batch, extents)[:1], network(batch)[:1])
    alone = network(batch[1:, :40, :70])  # padded to 64 by 96 by itself
    torch.testing.assert_close(network(batch, extents)[1:], alone)


@torch.no_grad()
def test_precision_is_a_part_of_it() -> None:
    exact, batch = make(), pixels(1, 64, 64)
    low = exact.at(torch.bfloat16)
    assert exact.precision == torch.float32 and low.network is exact.network
    assert low(batch).dtype == torch.bfloat16
    torch.testing.assert_close(low(batch).float(), exact(batch), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("divisor", [1, 32])
def test_one_exported_graph_for_every_batch_and_size(divisor: int) -> None:
    network = make(divisor)
    program = torch.export.export(
        network, (pixels(2, 101, 75),), dynamic_shapes=({0: DYNAMIC, 1: DYNAMIC, 2: DYNAMIC},)
    )
    exported = program.module()
    for shape in ((1, 64, 96), (3, 97, 131), (2, 128, 65)):
        with torch.no_grad():
            torch.testing.assert_close(exported(pixels(*shape)), network(pixels(*shape)), rtol=1e-5, atol=1e-5)


def test_compiled_it_learns_the_same() -> None:
    network, twin, batch = make().train(), make().train(), pixels(2, 64, 96)
    for dropout in (m for n in (network, twin) for m in n.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)):
        dropout.p = 0.0
    twin.compile(backend="eager", fullgraph=True)
    for one in (network, twin):
        one(batch, torch.tensor([[64, 96], [40, 70]])).square().mean().backward()
    for a, b in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
