"""What torch's Python surface decides by the device before anything is dispatched, autocast among it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from fake_cuda.tensor import CUDA, CudaTensor, is_cuda_name

if TYPE_CHECKING:
    from fake_cuda.device import FakeCuda

_SET_DATA = torch.Tensor.data.__set__  # type: ignore[attr-defined]


class Surface(TorchFunctionMode):
    """Sends calls that name the device, or get its tensors, the way that reaches the dispatch mode."""

    def __init__(self, device: "FakeCuda") -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else None
        on_device = isinstance(first, CudaTensor)
        if func is torch.Tensor.cuda:
            func, args = torch.Tensor.to, (first, CUDA)
            kwargs = {k: v for k, v in kwargs.items() if k in ("non_blocking", "memory_format")}
        if func is torch.Tensor.to and on_device:
            if _is_meta(args, kwargs):
                return self._to_meta(first)
            args, kwargs = _to_arguments(args, kwargs)
            if len(args) == 1 and not {"dtype", "memory_format", "copy", "device", "other"} & set(kwargs):
                return first
        elif func is torch.Tensor.new_tensor and on_device:
            return torch.tensor(args[1], dtype=kwargs.get("dtype", first.dtype)).to(CUDA)
        elif func in (torch.tensor, torch.as_tensor, torch.asarray) and is_cuda_name(kwargs.get("device")):
            if on_device:
                return first if kwargs.get("dtype") in (None, first.dtype) else first.to(kwargs["dtype"])
            return func(*args, **{k: v for k, v in kwargs.items() if k != "device"}).to(CUDA)
        elif func is torch.Tensor.__setitem__ and on_device and not isinstance(args[2], torch.Tensor):
            args = (first, args[1], torch.tensor(args[2], dtype=first.dtype))  # torch makes it on the CPU
        elif func == _SET_DATA and (on_device or isinstance(args[1], CudaTensor)):  # Module.to, off the device
            return _set_data(first, args[1])
        # Without an index torch asks the driver which device is current.
        args = tuple(CUDA if is_cuda_name(a) else a for a in args)
        if is_cuda_name(kwargs.get("device")):
            kwargs = {**kwargs, "device": CUDA}
        if torch.is_autocast_enabled("cuda"):
            args, kwargs, back = _cast(func, args, kwargs)
            if back is not None:
                return func(*args, **kwargs).to(back)
        if not _is_meta(args, kwargs):
            return func(*args, **kwargs)
        self.device.real_meta += 1
        try:
            return func(*args, **kwargs)
        finally:
            self.device.real_meta -= 1

    def _to_meta(self, tensor: torch.Tensor) -> torch.Tensor:
        self.device.real_meta += 1
        try:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        finally:
            self.device.real_meta -= 1


def _to_arguments(args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Arguments of `to` for a tensor on the device already: the device itself, and tensors like it, fall out."""
    args = tuple(a for a in args if not is_cuda_name(a))
    args = tuple(a.dtype if isinstance(a, CudaTensor) and i else a for i, a in enumerate(args))
    return args, {k: v for k, v in kwargs.items() if not (k == "device" and is_cuda_name(v))}


def _set_data(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """`tensor.data = value`; a tensor that changes its device stays who it is."""
    fresh = value.detach().clone()
    if isinstance(tensor, torch.nn.Parameter):
        fresh = torch.nn.Parameter(fresh, tensor.requires_grad)
    torch.utils.swap_tensors(tensor, fresh)


def _is_meta(args: Any, kwargs: dict[str, Any]) -> bool:
    def meta(value: Any) -> bool:
        if isinstance(value, torch.Tensor):
            return not isinstance(value, CudaTensor) and value.is_meta
        return str(value) == "meta" if isinstance(value, str | torch.device) else False

    lists = (v for a in args if isinstance(a, list | tuple) for v in a if isinstance(v, torch.Tensor))
    return meta(kwargs.get("device")) or any(map(meta, args)) or any(map(meta, lists))


def _operators(macro: str) -> set[str]:
    """The operators in one of autocast's lists, of the torch that is installed."""
    text = (Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h").read_text("utf-8")
    body = text.split(f"#define {macro}(_)")[1].split("#define")[0]
    return set(re.findall(r"_\((\w+)", body))


_LOWER, _FLOAT32 = _operators("AT_FORALL_LOWER_PRECISION_FP"), _operators("AT_FORALL_FP32")
_SUMS = _operators("AT_FORALL_FP32_SET_OPT_DTYPE")
_WITH_DTYPE = ("softmax", "log_softmax", "prod", "sum", "cumsum", "cumprod")
_INNER_NAMES = {
    "interpolate": "upsample_bilinear2d", "cross_entropy": "nll_loss", "__matmul__": "matmul", "__pow__": "pow",
    "binary_cross_entropy_with_logits": "binary_cross_entropy_with_logits",
}  # fmt: skip


def _cast(func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any], torch.dtype | None]:
    """Arguments as CUDA's autocast hands them on, and the type that the result is brought back to.

    Autocast itself looks at the C++ device, so it does not see these tensors; this follows its lists.
    """
    name = getattr(func, "__name__", "")
    name = _INNER_NAMES.get(name, name)
    if "torchvision" in str(func) and "roi_align" in str(func):
        return (*_as((args, kwargs), torch.float32), args[0].dtype)
    if name in _LOWER:
        return (*_as((args, kwargs), torch.get_autocast_dtype("cuda")), None)
    if name in _FLOAT32:
        return (*_as((args, kwargs), torch.float32), None)
    if name in _SUMS and "dtype" not in kwargs and args and _is_castable(args[0]):
        if name in _WITH_DTYPE:
            return args, {**kwargs, "dtype": torch.float32}, None
        return (*_as((args, kwargs), torch.float32), None)
    return args, kwargs, None


def _is_castable(value: Any) -> bool:
    return isinstance(value, CudaTensor) and value.dtype in (torch.float32, torch.float16, torch.bfloat16)


def _as(values: Any, dtype: torch.dtype) -> Any:
    return tree_map(lambda t: t.to(dtype) if _is_castable(t) else t, values)
