"""Tensors from a device to the host, with one wait for all of them. In: named tensors. Out: the same in host memory."""

from collections.abc import Mapping

import torch


def to_host(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same values in host memory, contiguous and without a graph; what lies there so already is not copied.

    From CUDA all copies are under way at once, into page-locked memory, and are waited for together.
    """
    copies = {name: _sent(tensor.detach()) for name, tensor in tensors.items()}
    for device in {tensor.device for tensor in tensors.values()}:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return copies


def _sent(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cuda":
        return tensor.cpu().contiguous()
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def first_not_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The name of the first tensor that holds a nan or an infinity; waits once for each device."""
    names = [name for name, tensor in tensors.items() if tensor.is_floating_point() or tensor.is_complex()]
    bad: set[str] = set()
    for device in {tensors[name].device for name in names}:
        there = [name for name in names if tensors[name].device == device]
        finite = torch.stack([tensors[name].detach().isfinite().all() for name in there]).tolist()
        bad.update(name for name, good in zip(there, finite, strict=True) if not good)
    return next((name for name in names if name in bad), None)
