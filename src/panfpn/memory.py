"""Memory: what a piece of work takes at its peak, and what is free. In: a device. Out: bytes."""

import contextlib
import os
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_PROC = Path("/proc/self")
_GROUP = Path("/sys/fs/cgroup")  # of a container, as it sees its own


class PeakMemory:
    """Peak memory from here on, above what the process holds here: weights and work, but not the program.

    On CUDA it is what torch's allocator gave out (mmsegmentation's "memory"). Elsewhere it is the growth of the
    resident set by the system's own high-water mark, so nothing is missed between samples. What the process kept of
    earlier work is not counted again, which is why figures are taken in a fresh one (`in_child`).
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError):
                (_PROC / "clear_refs").write_text("5")  # the mark falls back to what is resident now
        self.start = 0 if device.type == "cuda" else _resident("VmRSS")

    def peak(self) -> float:
        """Bytes; NaN where the system does not say."""
        if self.device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self.device))
        growth = _resident("VmHWM") - self.start
        return 0.0 if growth < 0 else growth  # what was given back since counts as room; the kernel's marks lag too


def installed_memory() -> float:
    """Bytes of this machine, or of its container; NaN where the system does not say."""
    total = float("nan")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        total = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
        limit = float((_GROUP / "memory.max").read_text())
        total = min(total, limit) if total == total else limit
    return total


def resident() -> float:
    """Bytes of this process that are in memory now; NaN where the system does not say."""
    return _resident("VmRSS")


def _resident(key: str) -> float:
    """Bytes of the resident set: now (VmRSS) or at its highest (VmHWM); always the latter where there is no /proc.

    `getrusage` comes second since a new process inherits its parent's mark there.
    """
    with contextlib.suppress(OSError):
        for line in (_PROC / "status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_memory(device: torch.device) -> float:
    """Bytes that this process may still take, its container's limit minded; NaN where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    free = float("nan")
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024.0
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
        left = int((_GROUP / "memory.max").read_text()) - int((_GROUP / "memory.current").read_text())
        free = min(free, float(left)) if free == free else float(left)
    return free


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are alive while tensors without values are computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: dict[int, int] = {}  # bytes by storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._known:
                    self._known[key] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self._gone, key)
        return made

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)


def peak_of_shapes(run: Callable[[], Any]) -> int:
    """Bytes of the tensors that are alive at once, at most, while `run` computes with tensors of torch's meta device.

    What libraries take for themselves (copies in other layouts, scratch) comes on top.
    """
    alive = _Alive()
    with alive, torch.no_grad():
        run()
    return alive.most
