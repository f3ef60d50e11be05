"""Batch norm multiplied into the convolutions before it. In: a trained network. Out: a faster one for predictions."""

import copy
from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from panfpn.models.depthwise import DepthwiseConv2d
from panfpn.models.pixels import PixelNetwork

_EXAMPLE = (64, 96)  # size of the image that is followed through the network


@torch.no_grad()
def folded(network: PixelNetwork, precision: torch.dtype) -> PixelNetwork:
    """A copy whose batch norms are multiplied into the convolutions before them, and whose large weights are cast.

    What does not change is shared with the original.
    """
    shared = {id(tensor): tensor for tensor in [*network.parameters(), *network.buffers()]}
    twin = copy.deepcopy(network, shared).eval()  # so that its hooks see nothing of who predicts meanwhile
    twin.precision = torch.float32
    for conv_name, norm_name in _foldable(twin):
        conv: Any = twin.get_submodule(conv_name)
        norm: Any = twin.get_submodule(norm_name)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        _cast(conv, precision)
        twin.set_submodule(norm_name, getattr(norm, "act", nn.Identity()))  # timm's norms carry their activation
    for module in twin.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, DepthwiseConv2d)):
            _cast(module, precision)
    twin.dtype = twin.precision = precision
    return twin


def _cast(module: nn.Module, precision: torch.dtype) -> None:
    for name, parameter in list(module.named_parameters(recurse=False)):
        if parameter.dtype != precision:
            setattr(module, name, nn.Parameter(parameter.to(precision), requires_grad=False))


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that read each tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: Counter[int] = Counter()
        self.kept: list[Any] = []  # so that no two tensors have the same identity

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count.update(id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
        result = func(*args, **(kwargs or {}))
        self.kept.append(result)
        return result


def _foldable(network: PixelNetwork) -> list[tuple[str, str]]:
    """Names of (convolution, norm) where nothing but the norm reads what the convolution gives, seen in a small run."""
    calls: Counter[nn.Module] = Counter()
    source: dict[int, nn.Module] = {}  # a result's identity -> its convolution
    pairs: list[tuple[nn.Module, nn.Module, int]] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        calls[module] += 1
        if not isinstance(module, nn.BatchNorm2d):
            source[id(output)] = module
        elif id(inputs[0]) in source and module.track_running_stats:
            pairs.append((source[id(inputs[0])], module, id(inputs[0])))

    types = (nn.Conv2d, DepthwiseConv2d, nn.BatchNorm2d)
    hooks = [module.register_forward_hook(note) for module in network.modules() if isinstance(module, types)]
    buffer = network.get_buffer("mean")
    try:
        with _Uses() as uses:
            network(torch.zeros(1, *_EXAMPLE, buffer.shape[0], dtype=torch.uint8, device=buffer.device))
    finally:
        for hook in hooks:
            hook.remove()
    names = {module: name for name, module in network.named_modules()}
    return [(names[c], names[n]) for c, n, made in pairs if calls[c] == calls[n] == uses.count[made] == 1]
