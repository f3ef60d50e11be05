"""What must not outlive its maker. In: processes and folders. Out: nothing that a kill leaves behind for good."""

import contextlib
import ctypes
import glob
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
_MARK = "panfpn"  # in the names of folders, so that nobody's own is taken for one


def end_with_parent(parent: int) -> None:
    """Let this process be killed when `parent`, which made it, ends; elsewhere than on Linux, does nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        try:  # it may have ended before; a fork server may stand between
            os.kill(parent, 0)
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def folder_beside(out: Path) -> Iterator[Path]:
    """An empty folder on the disk of `out`, for the time of the block; whatever is in it then is removed.

    Those of processes that were killed in such a block for the same `out` are removed first.
    """
    prefix = f".{out.name}.{_MARK}-"
    for other in out.parent.glob(f"{glob.escape(prefix)}????????"):
        if (handle := _held(other, wait=False)) is not None:
            shutil.rmtree(other, ignore_errors=True)
            os.close(handle)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
        handle = _held(folder, wait=True)
        if folder.is_dir():  # else another process took it for a dead one's before it was held
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def complete_or_nothing(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` (empty, or not there) at the end of the block, and is removed if that fails."""
    new = [parent for parent in out.parents if not parent.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with folder_beside(out) as folder:
            yield folder
            if out.is_dir():
                out.rmdir()
            folder.chmod(0o755)
            folder.rename(out)
    except BaseException:
        for parent in new:
            with contextlib.suppress(OSError):  # somebody else may use it by now
                parent.rmdir()
        raise


def _held(folder: Path, *, wait: bool) -> int | None:
    """A handle that holds a folder until it is closed, or this process ends; None where another process has one."""
    try:
        import fcntl  # noqa: PLC0415 - Windows has none
    except ImportError:
        return None
    handle = None
    try:
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        if handle is not None:
            os.close(handle)
        return None
    return handle
