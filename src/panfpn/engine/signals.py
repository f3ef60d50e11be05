"""Stop politely. In: SIGTERM or SIGINT. Out: a flag that the loop looks at between two steps, or while it waits."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequested(BaseException):
    """Somebody wants the training to stop, and it was waiting for data."""


class StopRequests:
    """Whether SIGTERM or SIGINT came."""

    def __init__(self) -> None:
        self._flag, self._waiting = threading.Event(), False

    def __call__(self) -> bool:
        """Whether one came."""
        return self._flag.is_set()

    @contextmanager
    def heard_at_once(self) -> Iterator[None]:
        """For the time of the block, one raises StopRequested: it may wait for long, and can be left anywhere."""
        self._waiting = True
        try:
            if self._flag.is_set():
                raise StopRequested
            yield
        finally:
            self._waiting = False

    def handle(self, number: int, _: FrameType | None) -> None:
        """What a signal does."""
        again = self._flag.is_set()
        self._flag.set()
        if self._waiting:
            self._waiting = False
            raise StopRequested
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """For the time of the block, SIGTERM and SIGINT only set the flag; a second SIGINT is heard at once.

    Outside the main thread (where Python hears no signals) the flag is never set.
    """
    requests = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    old = {number: signal.signal(number, requests.handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield requests
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
