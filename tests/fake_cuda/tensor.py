"""A tensor on the device that is not there."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)

Compute = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
active: list[Compute] = []  # computes an operator while a FakeCuda is entered; at most one


class CudaTensor(torch.Tensor):
    """Its C++ device is meta, so that nothing can read memory that a GPU would hold; `inner` holds its numbers."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "CudaTensor":
        end = sum((n - 1) * s for n, s in zip(inner.shape, inner.stride(), strict=True)) + 1 if inner.numel() else 0
        offset = inner.storage_offset()
        memory = torch.empty(end + offset, dtype=inner.dtype, device="meta")
        shadow = memory.as_strided(inner.shape, inner.stride(), offset)
        tensor = torch.Tensor._make_subclass(cls, shadow, False, dispatch_device=False, device_for_backend_keys=CUDA)
        tensor.inner = inner
        return tensor  # type: ignore[no-any-return]

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = is_meta = property(lambda self: False)  # type: ignore[assignment]

    def get_device(self) -> int:
        return 0

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory "
            "first."
        )

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def pin_memory(self, *_: Any) -> "CudaTensor":
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")

    def record_stream(self, stream: Any) -> None: ...

    def data_ptr(self) -> int:
        return 0  # Tensor.__deepcopy__ takes its way for subclasses without memory

    def __tensor_flatten__(self) -> tuple[list[str], None]:  # Module.to then swaps tensors, and keeps who they are
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], *_: Any) -> "CudaTensor":
        return CudaTensor(inner["inner"])

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"CudaTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if active:
            return active[0](func, args, kwargs or {})
        if func in (aten.detach.default, aten.alias.default):  # made by _make_subclass itself, or after the end
            return CudaTensor(args[0].inner.detach())
        raise RuntimeError(f"{func}: a tensor of FakeCuda outlived it")


def on_cpu(value: Any) -> Any:
    """Tensors of the device as plain ones, to compare (no wait is counted)."""
    return tree_map(lambda t: t.inner if isinstance(t, CudaTensor) else t, value)


def is_cuda_name(value: Any) -> bool:
    """Whether `value` names the device: "cuda", "cuda:0", torch.device("cuda")."""
    if isinstance(value, str):
        return value.split(":")[0] == "cuda"
    return isinstance(value, torch.device) and value.type == "cuda"
