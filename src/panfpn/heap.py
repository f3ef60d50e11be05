"""The C library's heap in a loop that asks for the same sizes again and again. In: nothing. Out: a context."""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Parameters of glibc's mallopt. To set one ends glibc's own rule for it, which raises both thresholds as large blocks
# are freed; so afterwards they are where that rule ends.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEPT = {_TRIM_THRESHOLD: -1, _MMAP_MAX: 0}
_USUAL = {_TRIM_THRESHOLD: 64 << 20, _MMAP_THRESHOLD: 32 << 20, _MMAP_MAX: 65536}

_lock = threading.Lock()
_holders = 0


@contextmanager
def kept_heap() -> Iterator[None]:
    """For the time of the block, memory that tensors give back stays with the process, for the next ones.

    glibc maps each large block anew and returns it when it is freed, so that a training step spends up to a third of
    its time in page faults. The process keeps the most that it ever had meanwhile, and returns it at the end. Does
    nothing without glibc, or where the environment already tunes it.
    """
    global _holders
    libc = _glibc()
    if libc is None:
        yield
        return
    with _lock:
        _holders += 1
        _set(libc, _KEPT)
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                _set(libc, _USUAL)
                libc.malloc_trim(0)


def _set(libc: Any, values: dict[int, int]) -> None:
    for key, value in values.items():
        libc.mallopt(key, value)


def _glibc() -> Any | None:
    """The C library, if it is glibc and nobody else has tuned its heap."""
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim  # noqa: B018 - all there
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return None
    return libc
