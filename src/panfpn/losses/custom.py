"""A loss of the user's own. In: stride-4 logits and train ids. Out: {name: scalar}, as of SemanticLoss."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from panfpn.labels import IGNORE
from panfpn.ops import as_float

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor | Mapping[str, torch.Tensor]]


class CallableLoss(nn.Module):
    """`function(logits, target)` in the place of `SemanticLoss`.

    It gets logits [B, K, H/4, W/4], float32 at least, and train ids int64 [B, H, W] (IGNORE = −1 where a pixel is not
    labelled), and returns a scalar, or {name: scalar}, that is a mean over this batch. A module's own weights stay as
    they are: the optimiser has the network's.

    Raises:
        ValueError: something that is no function; in use, something else than scalars that depend on the logits.
    """

    __call__: Callable[..., dict[str, torch.Tensor]]

    def __init__(self, function: LossFunction) -> None:
        super().__init__()
        if not callable(function):
            raise ValueError(f"loss is {function!r}; pass a function of (logits, target) or a module")
        self.function = function

    def forward(
        self, logits: torch.Tensor, target: torch.Tensor, *, pixels: torch.Tensor | None = None, share: float = 1.0
    ) -> dict[str, torch.Tensor]:
        """The function's terms by name ("loss" if it names none) times `share`; `pixels` is of no use to a mean."""
        result = self.function(as_float(logits), target.long())
        terms = dict(result) if isinstance(result, Mapping) else {"loss": result}
        self._check(terms, torch.is_grad_enabled() and logits.requires_grad)
        return {name: term * share for name, term in terms.items()}

    def count(self, target: torch.Tensor) -> torch.Tensor:
        """The labelled pixels, as of `SemanticLoss`; a mean needs none of them."""
        return (target != IGNORE).sum()

    def _check(self, terms: dict[Any, Any], training: bool) -> None:
        """By type and shape alone: what the values are, only the device knows."""
        name = getattr(self.function, "__name__", type(self.function).__name__)
        if not terms:
            raise ValueError(f"loss {name} returned an empty mapping; return a scalar tensor or {{name: scalar}}")
        for key, term in terms.items():
            if not isinstance(key, str):
                raise ValueError(f"loss {name} returned a term named {key!r}; names are strings")
            if not isinstance(term, torch.Tensor):
                raise ValueError(f"loss {name} returned {type(term).__name__} for {key!r}; return a scalar tensor")
            if term.ndim or not term.is_floating_point():
                raise ValueError(f"loss {name} returned {term.dtype} {list(term.shape)} for {key!r}; return a scalar "
                                 "of floating point, such as .mean() gives")  # fmt: skip
        if training and not any(term.requires_grad for term in terms.values()):
            raise ValueError(f"loss {name} returned {', '.join(terms)} without gradients; compute them from the logits "
                             "with torch, without detach() or no_grad()")  # fmt: skip
