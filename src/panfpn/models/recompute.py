"""Activation checkpointing (Chen et al. 2016): less memory in training for a second forward pass of each stage.

In: a network. Out: the same network, whose stages keep only what enters them until their backward pass.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_stages(network: nn.Module) -> nn.Module:
    """Let every stage of `network` (children with weights; those of containers one by one) forget and compute again.

    Gradients and norm statistics are those of a network that remembers: dropout draws the same, and batch norm counts
    a batch once. Names and weights do not change. It goes with torch.compile, but for debugging backends that run the
    graph as it is ("eager"): they would count a batch twice, and torch refuses.
    """
    for child in network.children():
        if isinstance(child, (nn.Sequential, nn.ModuleList)) or hasattr(child, "feature_info"):
            recompute_stages(child)
        elif any(True for _ in child.parameters()):
            _forget(child)
    return network


def _forget(stage: nn.Module) -> None:
    forward = stage.forward

    def again(*args: Any, **kwargs: Any) -> Any:
        if not (stage.training and torch.is_grad_enabled()):
            return forward(*args, **kwargs)
        if torch.compiler.is_compiling():  # which takes no contexts, and writes the statistics once in any case
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        contexts = lambda: (nullcontext(), _uncounted(stage))  # noqa: E731 - of the first and of the second pass
        return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    stage.forward = again


def _uncounted(stage: nn.Module) -> AbstractContextManager[None]:
    """Batch norms do not take the batch into their running statistics a second time."""
    norms: list[Any] = [m for m in stage.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    @contextmanager
    def context() -> Iterator[None]:
        kept = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, momentum, count in kept:
                norm.momentum = momentum
                norm.num_batches_tracked.copy_(count)

    return context()
