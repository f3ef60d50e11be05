"""The stack on which this thread's signals are handled. In: a call that changes it. Out: the stack as it was.

OpenVINO's plugin for CPUs gives the thread that compiles a signal stack of the kernel's minimum and leaves it behind.
Python handles signals there, so the next one (Ctrl-C, a child that ends) ends the process by SIGSEGV.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_DISABLED = 2  # SS_DISABLE


class _Stack(ctypes.Structure):
    """stack_t of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """After the block this thread handles its signals where it did before; elsewhere than on Linux, does nothing."""
    if sys.platform != "linux":
        yield
        return
    sigaltstack = ctypes.CDLL(None).sigaltstack
    before = _Stack()
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        # A stack that has become too small (the processor's state grew) is refused: then the thread's own serves.
        if sigaltstack(ctypes.byref(before), None):
            sigaltstack(ctypes.byref(_Stack(flags=_DISABLED)), None)
