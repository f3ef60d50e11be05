"""Where and in what precision to compute. In: names, as a user writes them. Out: torch's devices and dtypes.

A configuration keeps the name that the user gave (`auto`, `cuda`); what it stands for here, `resolve_device` says anew
each time, so that a run that began on one card can go on with another.
"""

import platform
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PRECISIONS = tuple(DTYPES)


def resolve_device(name: str) -> torch.device:
    """The device of a name; auto = cuda, else mps, else cpu.

    `cuda` stays without a number (the current card of whoever computes, see `on_device`).

    Raises:
        ValueError: a name that torch does not know, or a device that this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()  # that values can be stored and read there: not so on meta
    except Exception as error:  # torch has an own type of error for each way not to be there, even ImportError
        raise ValueError(f"device {name!r} is not available here; choose from {', '.join(_available())}") from error
    return device


def _available() -> list[str]:
    cards = [f"cuda:{k}" for k in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [
        "auto",
        "cpu",
        *(["cuda"] if cards else []),
        *cards,
        *(["mps"] if torch.backends.mps.is_available() else []),
    ]


@contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """For the time of the block, `device` is the current CUDA card of this thread.

    What is not told its device (events, memory counters, compiled kernels, NCCL) takes the current one: a run or a
    prediction on cuda:1 is made within this.
    """
    if device.type != "cuda" or device.index is None:
        yield
        return
    with torch.cuda.device(device):
        yield


def survive_fork(device: torch.device) -> None:
    """What a process must do, forked from one that has computed, before it computes: torch's threads are gone there.

    ValueError for CUDA, which no forked process can use.
    """
    if device.type == "cuda":
        raise ValueError(f"{device}: a forked process cannot use CUDA; start workers with the spawn method "
                         "(multiprocessing.get_context('spawn'))")  # fmt: skip
    torch.set_num_threads(1)


@contextmanager
def kept_generators(device: torch.device) -> Iterator[None]:
    """Torch's generators (the CPU's and that of `device`) are after the block as they were before it."""
    cards = []
    if device.type == "cuda":
        cards = [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(cards):
        yield


@contextmanager
def tuned_backend(device: torch.device, *, fixed_sizes: bool) -> Iterator[None]:
    """For the time of the block, cuDNN tries its kernels at each new size and keeps the fastest, if sizes are fixed.

    That pays for training crops, and costs at every image of another size: validation turns it off within.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = fixed_sizes
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def resolve_precision(name: str, device: torch.device, precisions: Collection[str] = PRECISIONS) -> str:
    """float32, bfloat16 or float16; `auto` is the fastest of `precisions` (those of an engine) on the device.

    That is bfloat16 where the hardware computes in it; on other CUDA cards float16, whose gradients a GradScaler
    scales; otherwise float32. ValueError for another name.
    """
    if name not in ("auto", *DTYPES):
        raise ValueError(f"precision is {name!r}; choose from auto, {', '.join(DTYPES)}")
    if name != "auto":
        return name
    fast = "float32"
    if device.type == "cuda":
        fast = "bfloat16" if _cuda_has_bfloat16(device) else "float16"
    elif device.type == "cpu" and cpu_has_bfloat16():
        fast = "bfloat16"
    return fast if fast in precisions else "float32"


def _cuda_has_bfloat16(device: torch.device) -> bool:
    with on_device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def cpu_has_bfloat16() -> bool:
    """Whether this processor computes faster in bfloat16 than in float32: oneDNN needs AVX512-BF16 for it."""
    return platform.machine() in ("x86_64", "AMD64") and bool(torch.cpu._is_avx512_bf16_supported())


def describe_choice(runner: str, device: torch.device, precision: torch.dtype, requested: str) -> str:
    """What computes, where and in which precision, and why if that was left open (`requested` is auto)."""
    chosen, why = str(precision).removeprefix("torch."), ""
    if requested == "auto":
        fast = resolve_precision("auto", device)
        why = f" (auto: this {device.type} computes fast in {fast})"
        if fast == "float32":
            why = f" (auto: this {device.type} is not faster in bfloat16)"
        elif fast != chosen:
            why = f" (auto: {runner} has no {fast})"
    return f"{runner} on {device} in {chosen}{why}"
