"""Stop politely. In: SIGTERM or SIGINT. Out: a flag that the loop looks at between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """For the time of the block, SIGTERM and SIGINT only set the flag; a second SIGINT is heard at once.

    Outside the main thread (where Python hears no signals) the flag is never set.
    """
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return

    def request_stop(number: int, _: FrameType | None) -> None:
        if flag.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.set()

    old = {number: signal.signal(number, request_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag.is_set
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
