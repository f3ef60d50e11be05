"""A loss of the user's own."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fake_cuda import CUDA, FakeCuda
from panfpn.labels import IGNORE
from panfpn.losses import CallableLoss, SemanticLoss

LOGITS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
TARGET = torch.randint(-1, 4, (2, 32, 32), generator=torch.Generator().manual_seed(1)).short()


def cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    up = F.interpolate(logits, size=target.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(up, target, ignore_index=IGNORE)


def test_it_stands_in_for_the_built_in_loss() -> None:
    mine, theirs = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    built_in = SemanticLoss(weights={"cross_entropy": 1.0})
    loss = CallableLoss(cross_entropy)
    assert loss.count(TARGET) == built_in.count(TARGET)
    terms = loss(mine, TARGET, pixels=torch.tensor(7.0), share=0.5)
    expected = 0.5 * built_in(theirs, TARGET)["cross_entropy"]
    assert set(terms) == {"loss"}
    torch.testing.assert_close(terms["loss"], expected)
    terms["loss"].backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_terms_by_name_of_logits_in_float32() -> None:
    types = []

    def two(logits: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        types.append((logits.dtype, target.dtype))
        return {"a": logits.mean(), "b": logits.square().mean().detach()}

    terms = CallableLoss(two)(LOGITS.bfloat16().requires_grad_(), TARGET)
    assert list(terms) == ["a", "b"] and types == [(torch.float32, torch.int64)]
    with torch.no_grad():  # a loss that is only measured needs no gradient
        assert CallableLoss(two)(LOGITS, TARGET)["b"] == LOGITS.square().mean()


def test_a_module_s_weights_are_its_parameters() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return self.factor * cross_entropy(logits, target)

    loss = CallableLoss(Weighted())
    loss(LOGITS, TARGET)["loss"].backward()
    assert [p.grad is not None for p in loss.parameters()] == [True]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x, t: 0.5, "loss <lambda> returned float for 'loss'; return a scalar tensor"),
        (lambda x, t: x.mean(1), r"loss <lambda> returned torch.float32 [2, 8, 8] for 'loss'; return a scalar"),
        (lambda x, t: t.sum(), "returned torch.int64 [] for 'loss'; return a scalar of floating point"),
        (lambda x, t: {"a": x.mean(), "b": 1}, "returned int for 'b'; return a scalar tensor"),
        (lambda x, t: {}, "returned an empty mapping; return a scalar tensor or {name: scalar}"),
        (lambda x, t: {0: x.mean()}, "returned a term named 0; names are strings"),
        (lambda x, t: [x.mean()], "returned list for 'loss'; return a scalar tensor"),
        (lambda x, t: x.mean().detach(), "returned loss without gradients; compute them from the logits with torch"),
    ],
)  # fmt: skip
def test_what_is_no_loss_is_refused(function: Callable[..., Any], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        CallableLoss(function)(LOGITS.clone().requires_grad_(), TARGET)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(ValueError, match="loss is 'dice'; pass a function"):
        CallableLoss("dice")  # type: ignore[arg-type]


def test_the_checks_make_nobody_wait(fake_cuda: FakeCuda) -> None:
    logits, target = LOGITS.to(CUDA).requires_grad_(), TARGET.to(CUDA)
    fake_cuda.reset()
    CallableLoss(cross_entropy)(logits, target, share=0.5)["loss"].backward()
    assert not fake_cuda.waits, fake_cuda.report()
