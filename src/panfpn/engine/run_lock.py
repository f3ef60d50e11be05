"""One run folder, one process. In: a folder. Out: a lock that ends with the process, however it ends."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_FILE = ".lock"
_PAUSE = 0.02  # seconds between two looks
_held: set[Path] = set()  # by this process, whose own locks do not stop it


@contextlib.contextmanager
def locked(
    folder: Path, doing: str = "trains in this run folder", *, file: str = _FILE, patience: float = 0
) -> Iterator[None]:
    """Hold a folder for the time of the block; `doing` says what for, `patience` for how many seconds to wait for it.

    Who locks by another `file` is not in the way.

    Raises:
        ValueError: another process (or thread) holds it; it names host and process.
    """
    place, deadline = folder.resolve() / file, time.monotonic() + patience
    while True:
        try:
            held = _taken(place, folder, doing)
            break
        except ValueError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE)
    with held:
        try:
            held.truncate(0)
            held.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
            held.flush()
            yield
        finally:
            _held.discard(place)
            with contextlib.suppress(OSError):
                place.unlink()


def _taken(place: Path, folder: Path, doing: str) -> IO[bytes]:
    """The lock's file, now held by this thread."""
    if place in _held:  # and the file is not opened again: to close it would end the other's lock
        raise ValueError(f"{folder}: another thread of this process {doing}")
    _held.add(place)
    try:
        return _opened(place, folder, doing)
    except BaseException:
        _held.discard(place)
        raise


def _opened(path: Path, folder: Path, doing: str) -> IO[bytes]:
    """The lock's file, locked."""
    while True:
        file = path.open("a+b")
        if not _lock(file.fileno()):
            file.close()
            owner = _owner(path)
            raise ValueError(f"{folder}: process {owner.get('pid', '?')} on {owner.get('host', 'this machine')} "
                             f"{doing}; wait for its end, or end it")  # fmt: skip
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # who had it before has just taken it away


def _lock(handle: int) -> bool:
    """Whether the lock is now ours. The system lets it go when the process ends; forked workers do not inherit it."""
    try:
        import fcntl  # noqa: PLC0415 - Windows has none
    except ImportError:
        return True
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks: better none than no training
        return True
    return True


def _owner(path: Path) -> dict[str, Any]:
    try:
        owner = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}
