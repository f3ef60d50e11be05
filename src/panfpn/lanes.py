"""Several images at once, each on its share of the cores. In: work and items. Out: results in the items' order.

One network on all cores waits for the slowest of them at every layer; several, each on few cores, wait for nobody, and
other programs cost them no more than the time they take. What is faster here is measured on the first items.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch

from panfpn.memory import free_memory

Item = TypeVar("Item")
Result = TypeVar("Result")
_TRIED = 6  # items a lane that are timed before one way is chosen
_BYTES = 600.0  # that a network takes at most, for each unit of an item's size (a pixel)


def in_lanes(
    work: Callable[[Item], Result], items: Iterable[Item], *, count: int | None = None, cores: int | None = None,
    size: Callable[[Item], float] = lambda _: 1.0,
) -> Generator[Result, None, None]:  # fmt: skip
    """`work(item)` of each item, in their order; `count` of them at once, each on its share of `cores`.

    `count` None: all cores on one item, or each on its own, whichever does more `size` a second. `cores` None: as many
    as torch uses. There are never more at once than half of the free memory holds. An error of `work` comes when it is
    that item's turn. torch uses as many threads afterwards as before.
    """
    threads = torch.get_num_threads()
    cores = cores or threads
    if count is not None and count < 1:
        raise ValueError(f"lanes is {count}; it must be 1 or more")
    left = iter(items)
    try:
        with ThreadPoolExecutor(count or cores) as pool:
            if count is None and cores > 1:
                rates = {}
                for tried in (1, cores):
                    yield from _lane(work, islice(left, tried), pool, tried, cores, _Measured(size))  # makes graphs
                    timed = _Measured(size)
                    yield from _lane(work, islice(left, _TRIED * tried), pool, tried, cores, timed)
                    rates[tried] = timed.rate
                count = max(rates, key=lambda tried: rates[tried])
            yield from _lane(work, left, pool, count or 1, cores, _Measured(size))
    finally:
        torch.set_num_threads(threads)


class _Measured:
    """How much was done, and in which time."""

    def __init__(self, size: Callable[[Any], float]) -> None:
        self.size, self.total, self.largest = size, 0.0, 0.0
        self.begin = time.perf_counter()

    def add(self, item: Any) -> None:
        one = self.size(item)
        self.total, self.largest = self.total + one, max(self.largest, one)

    @property
    def rate(self) -> float:
        return self.total / (time.perf_counter() - self.begin)


def _lane(
    work: Callable[[Item], Result], items: Iterator[Item], pool: ThreadPoolExecutor, count: int, cores: int,
    measured: _Measured,
) -> Generator[Result, None, None]:  # fmt: skip
    threads = max(1, cores // count)
    if count == 1:
        torch.set_num_threads(threads)
        for item in items:
            measured.add(item)
            yield work(item)
        return

    def call(item: Item) -> Result:
        torch.set_num_threads(threads)  # of this thread
        return work(item)

    waiting: deque[Future[Result]] = deque()
    try:
        while True:
            try:
                item = next(items)
            except StopIteration:
                break
            except Exception:  # of whoever gives the items: what came before it is not lost
                while waiting:
                    yield waiting.popleft().result()
                raise
            measured.add(item)
            free = free_memory(torch.device("cpu"))  # NaN where the system does not say: then there is no limit
            most = max(1.0, free / 2 / (_BYTES * measured.largest)) if free == free and measured.largest else math.inf
            while len(waiting) >= 2 * count or (waiting and _running(waiting) >= most):
                yield waiting.popleft().result()
            waiting.append(pool.submit(call, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _running(futures: Iterable[Future[Result]]) -> int:
    return sum(not future.done() for future in futures)
