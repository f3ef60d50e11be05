"""A piece of work in a fresh process, so that its peak memory is its own. In: a function. Out: what it returns."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from panfpn.orphans import end_with_parent

T = TypeVar("T")


def in_child(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)` in a fresh process, which ends with it; its errors are raised here.

    The function must be importable by name, and the program's own module guarded by `if __name__ == "__main__"`.

    Raises:
        ValueError: the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(os.getpid(),)) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise ValueError(
                "the measuring process was killed, most likely for want of memory; take a smaller size or batch"
            ) from error


def _begin(parent: int) -> None:
    """Let this process not outlive its parent, so that nothing goes on unseen; Ctrl-C ends it without a word."""
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
