"""Peak memory of a piece of work. In: a device, or a function to run in a fresh process. Out: bytes."""

import contextlib
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")

_PROC = Path("/proc/self")


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


def in_child(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)` in a fresh process, which ends with it; its errors are raised here.

    The function must be importable by name, and the program's own module guarded by `if __name__ == "__main__"`.

    Raises:
        ValueError: the process was killed.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise ValueError(
                "the measuring process was killed, most likely for want of memory; take a smaller size or batch"
            ) from error
