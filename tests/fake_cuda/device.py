"""The device: computes operators on the tensors inside, refuses what CUDA refuses, counts what the host waits for."""

import contextlib
import functools
import importlib.util
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # reads torch.cuda's functions when it is imported, so before they are replaced
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from fake_cuda import driver, tensor
from fake_cuda.surface import Surface
from fake_cuda.tensor import CUDA, CudaTensor, aten

CPU = torch.device("cpu")
_COPIES = {aten._to_copy.default, aten.copy_.default, aten.copy.default}
# Operators whose CUDA kernels read something back before they return.
_WAITING = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim",
    "aten::unique_consecutive", "aten::bincount", "aten::equal", "aten::repeat_interleave.Tensor", "aten::multinomial",
    "aten::histc", "aten::_ctc_loss", "torchvision::nms",
}  # fmt: skip
_INDEXING = {"aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put"}  # indices may be the CPU's
# Operators of aten that take no single number from the CPU beside tensors of the device.
_NO_NUMBERS = {
    "aten::index_select", "aten::gather", "aten::scatter_", "aten::scatter_add_", "aten::scatter_add", "aten::cat",
    "aten::stack", "aten::embedding", "aten::_embedding_bag", "aten::convolution", "aten::mm", "aten::bmm",
    "aten::addmm", "aten::native_batch_norm", "aten::index_add_", "aten::index_copy", "aten::take",
    "aten::nll_loss_forward", "aten::nll_loss2d_forward",
}  # fmt: skip

Line = tuple[str, str]  # source line, what happened there


class FakeCuda(TorchDispatchMode):
    """`waits`: (line of `package`, operator) -> how often the host waited; `launches`: operators on the device."""

    def __init__(self, package: str = "panfpn") -> None:
        super().__init__()
        spec = importlib.util.find_spec(package)
        self.root = str(Path(spec.origin).parent) if spec and spec.origin else package  # whose lines are named
        self.waits: Counter[Line] = Counter()
        self.launches: Counter[str] = Counter()
        self.pinned: dict[int, torch.UntypedStorage] = {}  # by address; kept, so that no other tensor gets it
        self.real_meta = 0  # above 0 while torch works on the true meta device
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "FakeCuda":
        assert not tensor.active, "one device is enough"
        self._stack.enter_context(driver.patched(self))
        super().__enter__()
        surface = self._stack.enter_context(Surface(self))
        run_backward = torch.autograd._engine_run_backward

        def with_surface(*args: Any, **kwargs: Any) -> Any:  # torch calls it without modes; checkpoints compute in it
            with surface:
                return run_backward(*args, **kwargs)

        self._stack.enter_context(mock.patch.object(torch.autograd, "_engine_run_backward", with_surface))
        tensor.active.append(self.compute)
        return self

    def __exit__(self, *error: Any) -> None:
        tensor.active.clear()
        self._stack.close()
        super().__exit__(*error)

    def reset(self) -> None:
        """Forget what was counted."""
        self.waits.clear()
        self.launches.clear()

    def report(self, title: str = "") -> str:
        """The waits, most frequent first."""
        lines = [f"{title}: {sum(self.waits.values())} waits, {sum(self.launches.values())} launches"]
        lines += [f"  {n:5d} × {where:32s} {what}" for (where, what), n in self.waits.most_common()]
        return "\n".join(lines)

    def wait(self, what: str) -> None:
        """The host waits for the device here."""
        self.waits[self.source_line(), what] += 1

    def source_line(self) -> str:
        """The innermost line of the package under test that leads to the present call."""
        frame: Any = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith(self.root):
                return f"{frame.f_code.co_filename[len(self.root) :].lstrip('/')}:{frame.f_lineno}"
            frame = frame.f_back
        return "elsewhere"

    def pin(self, host: torch.Tensor) -> torch.Tensor:
        """The tensor, whose memory counts as pinned from now on."""
        storage = host.untyped_storage()
        self.pinned[storage.data_ptr()] = storage
        return host

    def is_pinned(self, host: torch.Tensor) -> bool:
        """Whether the tensor lies in pinned memory, in whole or as a part of it."""
        return not isinstance(host, CudaTensor) and host.untyped_storage().data_ptr() in self.pinned

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.compute(func, args, kwargs or {})

    def compute(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """An operator's result, of the device if one of its tensors is or if the device is named."""
        if _is_composite(func):  # in inference mode these come whole
            TorchDispatchMode.__enter__(self)
            try:
                return func.decompose(*args, **kwargs)
            finally:
                TorchDispatchMode.__exit__(self, None, None, None)
        leaves, form = tree_flatten((args, kwargs))
        on_device = any(isinstance(t, CudaTensor) for t in leaves)
        device = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if not on_device and (device is None or device.type == "cpu" or (device.type == "meta" and self.real_meta)):
            return self._on_host(func, args, kwargs)
        if device is not None and device.type == "meta" and not self.real_meta:
            device = CUDA  # C++ code takes it from a tensor's options
        if func in _COPIES:
            return self._copy(func, args, kwargs, device)
        name = func._schema.name + (f".{func._schema.overload_name}" if func._schema.overload_name else "")
        if on_device:
            self._refuse_mixed(func, name, args, leaves)
            self._count_waits(name, args)
        self.launches[func._schema.name] += 1
        inner = [t.inner if isinstance(t, CudaTensor) else t for t in leaves]
        inner_args, inner_kwargs = tree_unflatten(inner, form)
        if "device" in inner_kwargs:
            inner_kwargs["device"] = CPU
        result = func(*inner_args, **inner_kwargs)
        return result if device is not None and device.type == "cpu" else _wrapped(func, args, kwargs, result)

    def _on_host(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if kwargs.get("pin_memory"):
            return self.pin(func(*args, **{**kwargs, "pin_memory": False}))
        return func(*args, **kwargs)

    def _refuse_mixed(self, func: Any, name: str, args: Any, leaves: list[Any]) -> None:
        """RuntimeError for another device's tensors, but for single numbers and indices, as CUDA has it."""
        plain = [t for t in leaves if isinstance(t, torch.Tensor) and not isinstance(t, CudaTensor)]
        wrong = [t for t in plain if t.ndim or t.is_meta]
        operator = name.split(".")[0]
        if operator in _INDEXING and isinstance(args[0], CudaTensor):
            values = args[2:3]
            wrong = [t for t in wrong if any(t is v for v in values)]
        into = func._schema.arguments[0].alias_info if args and isinstance(args[0], torch.Tensor) else None
        if into is not None and into.is_write and not isinstance(args[0], CudaTensor):
            wrong.append(args[0])
        if not name.startswith("aten::") or name.startswith("aten::_fused_") or operator in _NO_NUMBERS:
            wrong = wrong or plain
        if wrong:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
                f"{wrong[0].device}! ({name} at {self.source_line()})"
            )

    def _count_waits(self, name: str, args: Any) -> None:
        if name in _WAITING:
            self.wait(name)
        if name.split(".")[0] not in _INDEXING:
            return
        indices = [i for i in args[1] if i is not None]
        masks = sum(i.dtype in (torch.bool, torch.uint8) for i in indices)
        number = len(args) > 2 and args[2].numel() == 1 and not isinstance(args[2], CudaTensor)
        if not (number and len(indices) == 1):  # one number under one mask is masked_fill
            for _ in range(masks):
                self.wait(f"{name} by mask")
        for index in indices:
            if not isinstance(index, CudaTensor) and index.ndim:
                self.wait(f"{name} by an index on the CPU")

    def _copy(self, func: Any, args: Any, kwargs: dict[str, Any], device: torch.device | None) -> Any:
        """Between devices, where only an asynchronous copy from or to pinned memory lets the host go on."""
        if func is aten._to_copy.default:
            source = args[0]
            target = device or source.device
            inner = source.inner if isinstance(source, CudaTensor) else source
            if target.type == "meta":
                return func(inner, **{**kwargs, "device": target})
            to_device = target.type == "cuda"
            self._count_copy(source, None, to_device, bool(kwargs.get("non_blocking")))
            result = func(inner, **{**kwargs, "device": CPU})
            return CudaTensor(result) if to_device else result
        into, source = args[:2]
        to_device = isinstance(into, CudaTensor)
        asynchronous = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        self._count_copy(source, into, to_device, asynchronous)
        inner_args = [t.inner if isinstance(t, CudaTensor) else t for t in (into, source)]
        result = func(*inner_args, *args[2:], **kwargs)
        return into if func is aten.copy_.default else (CudaTensor(result) if to_device else result)

    def _count_copy(self, source: torch.Tensor, into: torch.Tensor | None, to_device: bool, asynchronous: bool) -> None:
        from_device = isinstance(source, CudaTensor)
        if from_device == to_device:
            self.launches["aten::copy_"] += 1
            return
        host = into if from_device else source
        if asynchronous and host is not None and self.is_pinned(host):
            return
        what = "copy to the CPU" if from_device else "copy from the CPU"
        self.wait(f"{what}, not pinned" if asynchronous else what)


def _wrapped(func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
    """Results as tensors of the device; those that an operator writes into are the ones that were given."""
    schema = func._schema
    if isinstance(result, list):  # of tensors
        return [CudaTensor(t) if isinstance(t, torch.Tensor) else t for t in result]
    single = len(schema.returns) == 1
    values = []
    for returned, value in zip(schema.returns, (result,) if single else (result or ()), strict=True):
        alias = returned.alias_info
        if alias is not None and alias.is_write:
            for i, argument in enumerate(schema.arguments):
                if argument.alias_info is not None and argument.alias_info.before_set & alias.before_set:
                    value = args[i] if i < len(args) else kwargs[argument.name]
                    break
            if isinstance(value, CudaTensor) and value.shape != value.inner.shape:
                raise NotImplementedError(f"{func} changes a shape in place")
        elif isinstance(value, torch.Tensor):
            value = CudaTensor(value)
        elif isinstance(value, list | tuple):
            value = [CudaTensor(t) if isinstance(t, torch.Tensor) else t for t in value]
        values.append(value)
    if single:
        return values[0]
    return tuple(values) if values else None


@functools.cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
