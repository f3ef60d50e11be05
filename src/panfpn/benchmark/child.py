"""A piece of work in a fresh process, so that its peak memory is its own. In: a function. Out: what it returns."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

T = TypeVar("T")


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
