"""torch.cuda and torch.accelerator as on a machine with one GPU."""

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from fake_cuda.tensor import CUDA, CudaTensor

if TYPE_CHECKING:
    from fake_cuda.device import FakeCuda


class _Properties:
    name, major, minor, total_memory, multi_processor_count = "not there", 9, 0, 80 << 30, 132
    gcnArchName = ""  # noqa: N815 - torch's name


class _Context(contextlib.nullcontext):  # type: ignore[type-arg]
    """torch.cuda.device and torch.cuda.stream: there is one of each."""

    def __init__(self, *_: Any) -> None:
        super().__init__()


def _ignored(*_: Any, **__: Any) -> None: ...


@contextlib.contextmanager
def patched(device: "FakeCuda") -> Iterator[None]:
    """Within it, torch's functions speak of a device that is there; what synchronises is counted by `device`."""

    def synchronize(*_: Any, **__: Any) -> None:
        device.wait("torch.cuda.synchronize")

    class Stream:
        wait_stream = wait_event = _ignored

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def record_event(self, event: Any = None) -> Any:
            return event or Event()

        def is_capturing(self) -> bool:
            return False

        def query(self) -> bool:
            return True

        def synchronize(self) -> None:
            device.wait("Stream.synchronize")

    class Event:
        wait = _ignored

        def __init__(self, *_: Any, **__: Any) -> None:
            self.time = 0.0

        def record(self, stream: Any = None) -> None:
            self.time = time.perf_counter()

        def elapsed_time(self, other: "Event") -> float:
            return 1000 * (other.time - self.time)

        def query(self) -> bool:
            return True

        def synchronize(self) -> None:
            device.wait("Event.synchronize")

    random_state = torch.get_rng_state
    cuda = {
        "is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0, "init": _ignored,
        "_lazy_init": _ignored, "is_initialized": lambda: True, "_lazy_call": _ignored, "set_device": _ignored,
        "manual_seed": _ignored, "manual_seed_all": _ignored, "get_rng_state": lambda *_: random_state(),
        "set_rng_state": _ignored, "synchronize": synchronize, "is_bf16_supported": lambda *_, **__: True,
        "get_device_name": lambda *_: "not there", "get_device_capability": lambda *_: (9, 0),
        "get_device_properties": lambda *_: _Properties(), "max_memory_allocated": lambda *_: 0,
        "memory_allocated": lambda *_: 0, "reset_peak_memory_stats": _ignored, "empty_cache": _ignored,
        "Event": Event, "Stream": Stream, "device": _Context, "stream": _Context, "current_stream": Stream,
        "default_stream": Stream, "_is_in_bad_fork": lambda: False, "is_current_stream_capturing": lambda: False,
    }  # fmt: skip
    accelerator = {
        "is_available": lambda: True, "device_count": lambda: 1, "current_accelerator": lambda *_, **__: CUDA,
        "current_device_index": lambda: 0, "set_device_index": _ignored, "synchronize": synchronize,
        "current_stream": Stream,
    }  # fmt: skip
    group = torch._C._group_tensors_by_device_and_dtype

    def grouped(tensors: Any, *rest: Any, **named: Any) -> Any:  # C++ sees the device of the shadow
        on_device = any(isinstance(t, CudaTensor) for row in tensors for t in row)
        groups = group(tensors, *rest, **named)
        return {(CUDA if on_device and d is not None and d.type == "meta" else d, k): v for (d, k), v in groups.items()}

    def pin_memory(tensor: torch.Tensor, *_: Any) -> torch.Tensor:  # a copy with the same strides, as CUDA makes it
        copy = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        return device.pin(copy.copy_(tensor))

    def is_pinned(tensor: torch.Tensor, *_: Any) -> bool:
        return device.is_pinned(tensor)

    with contextlib.ExitStack() as stack:
        for module, names in ((torch.cuda, cuda), (torch.accelerator, accelerator)):
            for name, value in names.items():
                stack.enter_context(mock.patch.object(module, name, value))
        stack.enter_context(mock.patch.object(torch._C, "_group_tensors_by_device_and_dtype", grouped))
        stack.enter_context(mock.patch.object(torch.Tensor, "pin_memory", pin_memory))  # the loader's thread calls it
        stack.enter_context(mock.patch.object(torch.Tensor, "is_pinned", is_pinned))
        yield
