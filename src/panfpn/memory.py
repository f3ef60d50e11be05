"""Memory: what a piece of work takes at its peak, and what is free. In: a device. Out: bytes."""

import contextlib
import sys
from pathlib import Path

import torch

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
        return _resident("VmHWM") - self.start


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
