"""What was measured on: hardware, versions, commit, and the machine's own ceiling. In: a device. Out: plain data."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from panfpn import __version__

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "openvino", "onnxruntime")
_CHANNELS, _HEIGHT, _WIDTH = 256, 128, 256  # the finest map of the pyramid at 512×1024
_SIDE = 2048  # of a square matrix


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Plain data: `hardware`, `versions` and `commit`, which is None outside a checkout."""
    hardware = {"cpu": _cpu_name(), "cores": _cores(), "threads": torch.get_num_threads(), "memory_gb": _memory_gb(),
                "device": str(device), "gpu": None}  # fmt: skip
    if device.type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(device)
        # Whether "float32" convolutions compute in TF32; `allow_tf32` raises where the newer setting was used.
        hardware["tf32"] = torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
    versions = {"panfpn": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"hardware": hardware, "versions": versions, "commit": _commit()}


def _cpu_name() -> str:
    """The processor's name, and how wide it computes, which the name of a virtual one hides."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name, family = (re.search(rf"^{key}\s*: (.*)$", text, re.MULTILINE) for key in ("model name", "cpu family"))
    flags = re.search(r"^flags\s*: (.*)$", text, re.MULTILINE)
    widest = next((f for f in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flags and f in flags[1].split()), None)
    detail = ", ".join(part for part in (f"family {family[1]}" if family else None, widest) if part)
    return f"{name[1] if name else platform.machine()}{f' ({detail})' if detail else ''}"


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gb() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)


def _commit() -> str | None:
    """The commit of the checkout that this package stands in, `+` after it if the package has changed since.

    None if it stands in none: a virtual environment inside somebody's repository does not track it.
    """
    try:
        _git("ls-files", "--error-unmatch", "machine.py")
        return _git("rev-parse", "--short=10", "HEAD") + (
            "+" if _git("status", "--porcelain", "-uno", "--", "..") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


def measure_ceiling(device: torch.device, precision: torch.dtype, *, seconds: float = 2.0) -> float:
    """FLOP/s (two per multiply-add) of the faster of a large 3×3 convolution and a large matrix product.

    Both compute in `precision`, the convolution channels_last, under torch's present settings. `seconds` is how long
    each is repeated (three times at least); the best time counts.
    """
    batch = 16 if device.type == "cuda" else 1
    image = torch.randn(batch, _CHANNELS, _HEIGHT, _WIDTH, device=device, dtype=precision)
    image = image.to(memory_format=torch.channels_last)
    kernel = torch.randn(_CHANNELS, _CHANNELS, 3, 3, device=device, dtype=precision)
    kernel = kernel.to(memory_format=torch.channels_last)
    side = _SIDE * (4 if device.type == "cuda" else 1)
    matrix = torch.randn(side, side, device=device, dtype=precision)
    work: list[tuple[float, Callable[[], torch.Tensor]]] = [
        (2.0 * image.numel() * _CHANNELS * 9, lambda: F.conv2d(image, kernel, padding=1)),
        (2.0 * side**3, lambda: matrix @ matrix),
    ]
    with torch.inference_mode():
        return max(flops / _best_time(function, device, seconds) for flops, function in work)


def _best_time(function: Callable[[], torch.Tensor], device: torch.device, seconds: float) -> float:
    repeats = 10 if device.type == "cuda" else 1  # a GPU is kept busy, so that launching is not what is timed
    function()
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begun < seconds:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(repeats):
            function()
        synchronize(device)
        times.append((time.perf_counter() - start) / repeats)
    return min(times)


def synchronize(device: torch.device) -> None:
    """Wait until the device is done; a CPU is."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
