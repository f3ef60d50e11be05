"""torch.compile: the same numbers, whole graphs, few of them however sizes change, with and without recomputing."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.backends.debugging import aot_eager

from panfpn.models import Backbone, SemanticFPN
from panfpn.models.recompute import recompute_stages
from small_backbone import OneConvolutionALevel

ALIGNED = [(64, 96), (96, 64), (128, 160), (64, 64)]
ODD = [(97, 131), (33, 250), (81, 95), (255, 70), (100, 132)]  # which of p3…p5 meet at one size differs


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Counting:
    """A backend that counts the graphs that it gets."""

    def __init__(self, backend: str = "eager") -> None:
        self.graphs, self.backend, self.recomputed = 0, backend, 0

    def __call__(self, module: Any, inputs: Any) -> Callable[..., Any]:
        self.graphs += 1
        self.recomputed += sum("checkpoint" in str(node.target) for node in module.graph.nodes)
        return module.forward if self.backend == "eager" else aot_eager(module, inputs)


def network(backbone: str = "small") -> SemanticFPN:
    torch.manual_seed(0)
    bottom_up = OneConvolutionALevel() if backbone == "small" else Backbone(backbone)
    return SemanticFPN(bottom_up, 3, fpn_channels=8, head_channels=8, dropout=0.2).train()


def step(model: nn.Module, size: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Logits, and the gradients and buffers after a step."""
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    torch.manual_seed(2)
    logits = model(images)
    logits.square().mean().backward()
    return logits, *(p.grad for p in model.parameters() if p.grad is not None), *(b.clone() for b in model.buffers())


def test_changing_sizes_make_few_whole_graphs() -> None:
    plain, model, backend = network(), network(), Counting()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for size in (*ODD, *ALIGNED):
        for ours, theirs in zip(step(compiled, size), step(plain, size), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert backend.graphs <= 4


def test_one_size_is_one_graph_with_the_numbers_of_the_plain_network() -> None:
    plain, model, backend = network(), network(), Counting()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(step(compiled, (64, 96)), step(plain, (64, 96)), strict=True))
    assert backend.graphs == 1


@pytest.mark.parametrize(("backbone", "backend"), [("small", "aot_eager"), ("convnext_atto", "eager")])
def test_recomputed_stages_compile(backbone: str, backend: str) -> None:
    """With aot_eager norm statistics count a batch once; "eager" runs stages twice, and takes none with statistics."""
    plain, model, counting = network(backbone), network(backbone), Counting(backend)
    for m in (plain, model):  # whose draws differ from the plain network's in a compiled graph
        for module in m.modules():
            if isinstance(module, nn.Dropout | nn.Dropout2d):
                module.p = 0.0
    recompute_stages(model.backbone)
    compiled = torch.compile(model, backend=counting, fullgraph=True)
    for size in ((64, 96), (64, 96)):
        for ours, theirs in zip(step(compiled, size), step(plain, size), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert counting.graphs == 1
    assert counting.recomputed >= 4  # stages
