"""Work for a few threads, and a queue that does not grow. In: functions. Out: their results, or "full"."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


class FullError(Exception):
    """The queue is; come again in `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"all workers are busy and the queue is full; try again in {seconds} s")
        self.seconds = seconds


class Desk:
    """Takes work from the event loop to `workers` threads; `queue` more may wait.

    The cores are divided among the workers: several images at once, each on a few cores, is more images a second (and
    steadier beside other programs) than one image on all of them.
    """

    def __init__(self, workers: int, queue: int, threads: int) -> None:
        self.workers, self.queue, self.threads = workers, queue, threads
        self.inside = 0  # at work or waiting
        self.uploads = 0  # bodies that come in, or are at work
        self.closing = False  # no more streams
        self._seconds = 1.0  # that a piece of work takes, on average
        torch.set_num_threads(threads)  # also of the threads to come
        self._pool = ThreadPoolExecutor(workers, "panfpn", lambda: torch.set_num_threads(threads))

    @property
    def full(self) -> bool:
        """Whether nothing more may wait."""
        return self.inside >= self.workers + self.queue

    def wait(self) -> int:
        """Seconds until there will be a place."""
        return max(1, math.ceil(self._seconds * self.inside / self.workers))

    @asynccontextmanager
    async def upload(self) -> AsyncIterator[None]:
        """While a request's body comes in: `FullError` where nothing may wait, or too many bodies are on their way."""
        if self.full or self.uploads >= 2 * (self.workers + self.queue):
            raise FullError(self.wait())
        self.uploads += 1
        try:
            yield
        finally:
            self.uploads -= 1

    async def do(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What the function returns, from one of the threads; `FullError` if no place is left."""
        if self.full:
            raise FullError(self.wait())
        self.inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._timed, function, arguments, named)
        finally:
            self.inside -= 1

    def _timed(self, function: Callable[..., T], arguments: tuple[Any, ...], named: dict[str, Any]) -> T:
        begin = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            self._seconds += 0.1 * (time.perf_counter() - begin - self._seconds)

    def close(self) -> None:
        """Let the threads end when what they have is done."""
        self._pool.shutdown(wait=False)
